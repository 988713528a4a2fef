"""Attention of decoded tokens over paged keys and values: a few query rows a sequence.

The work of a step is divided once, on the device, and the division serves all layers; no launch
depends on how long the contexts are, so that a CUDA graph holds for all of them. What the kernels
compute and how they divide it is said in kernels/decode_attention.cu and kernels/decode_plan.cu,
what was tried and measured in design/decode_attention.md.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ixc_cuda.catalogue import Instantiation
from ixc_cuda.kernel import load_kernel

MAX_QUERY_ROWS = 8  # of a sequence
MAX_GROUP = 8
HEAD_DIMS = (64, 128)

_TYPES = {torch.bfloat16: "__nv_bfloat16", torch.float16: "__half"}
_ARCHITECTURES = ("sm_80", "sm_90")
_TILE_ROWS = 8  # query rows of one tensor-core product
_QUERY_TILES = (1, 2, 3)  # products that share one read of the pages; four find no registers
_THREADS = 128
_PLAN_THREADS = 512


def _kernel_name(dtype: torch.dtype, head_dim: int, query_tiles: int) -> str:
    return f"decode_attention<PlainPages<{_TYPES[dtype]}, {head_dim}>, {head_dim}, {query_tiles}>"


INSTANTIATIONS = (
    Instantiation(source="decode_plan.cu", name="decode_plan", architectures=_ARCHITECTURES),
    *(
        Instantiation(
            source="decode_attention.cu",
            name=_kernel_name(dtype, head_dim, query_tiles),
            architectures=_ARCHITECTURES,
        )
        for dtype in _TYPES
        for head_dim in HEAD_DIMS
        for query_tiles in _QUERY_TILES
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """How many times the pages are read, and how many query rows each time serves."""

    query_tiles: int  # of eight rows
    passes: int


def passes_for(rows: int) -> Passes:
    """The fewest passes for `rows` query rows a KV head, each as narrow as will do."""
    tiles = -(-rows // _TILE_ROWS)
    passes = -(-tiles // max(_QUERY_TILES))
    return Passes(query_tiles=-(-tiles // passes), passes=passes)


def num_workers(multiprocessors: int, kv_heads: int, rows: int) -> int:
    """Workers a KV head has, so that all blocks together just fill the chip.

    Three of the kernel for eight query rows fit a multiprocessor, two of the wider ones.
    """
    blocks = 3 if rows <= _TILE_ROWS else 2
    return max(1, multiprocessors * blocks // kv_heads)


class DecodeWorkspace:
    """What a step's plan and the layers' partial results are written to; taken once.

    One workspace serves one stream: two steps at a time would write over each other.
    """

    def __init__(
        self,
        *,
        max_batch: int,
        max_query_rows: int,
        kv_heads: int,
        group: int,
        head_dim: int,
        multiprocessors: int,
        device: torch.device | str,
    ) -> None:
        _require(1 <= max_query_rows <= MAX_QUERY_ROWS, "query rows", max_query_rows)
        _require(1 <= group <= MAX_GROUP, "queries that share a KV head", group)
        _require(head_dim in HEAD_DIMS, "head size", head_dim)
        self.max_batch = max_batch
        self.max_query_rows = max_query_rows
        self.kv_heads = kv_heads
        self.group = group
        self.head_dim = head_dim
        self.workers = num_workers(multiprocessors, kv_heads, max_query_rows * group)
        rows = 2 * self.workers * kv_heads * max_query_rows * group
        passes = passes_for(max_query_rows * group).passes
        self.shares = torch.zeros(self.workers, 4, dtype=torch.int32, device=device)
        self.spans = torch.zeros(max_batch, 2, dtype=torch.int32, device=device)
        arrivals = max_batch * kv_heads * passes
        self.arrivals = torch.zeros(arrivals, dtype=torch.int32, device=device)
        self.sums = torch.empty(rows, head_dim, dtype=torch.float32, device=device)
        self.stats = torch.empty(rows, 2, dtype=torch.float32, device=device)

    @property
    def num_bytes(self) -> int:
        parts = (self.shares, self.spans, self.arrivals, self.sums, self.stats)
        return sum(part.nbytes for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodePlan:
    """A step's division of work, in the workspace until the next step's."""

    workspace: DecodeWorkspace
    num_sequences: int


def plan_decode(
    context_lengths: Tensor, workspace: DecodeWorkspace, *, overlap: bool = False
) -> DecodePlan:
    """Divide a step's work; `context_lengths` is int32 (sequences), 0 for an absent one.

    overlap: as `Kernel.launch`'s.
    """
    (num_sequences,) = context_lengths.shape
    _require_dtype("context_lengths", context_lengths, torch.int32)
    if num_sequences > workspace.max_batch:
        raise ValueError(f"{num_sequences} sequences; the workspace is for {workspace.max_batch}")
    plan = DecodePlan(workspace=workspace, num_sequences=num_sequences)
    if num_sequences == 0:
        return plan
    load_kernel("decode_plan.cu", "decode_plan").launch(
        (1, 1, 1),
        _PLAN_THREADS,
        (
            workspace.shares,
            workspace.spans,
            context_lengths,
            num_sequences,
            workspace.workers,
        ),
        shared_bytes=4 * (num_sequences + 1),
        overlap=overlap,
    )
    return plan


def decode_attention(  # noqa: PLR0917
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    page_tables: Tensor,
    context_lengths: Tensor,
    plan: DecodePlan,
    *,
    out: Tensor,
    overlap: bool = False,
) -> None:
    """Attend from each sequence's last rows to its pages; rows of absent sequences stay unwritten.

    queries is (sequences * n, kv_heads, group, head_dim), n rows of a sequence next to each other:
    row i sees the context but its last n - 1 - i slots. keys and values are one layer's pages
    (pages, page_size, kv_heads, head_dim), page_tables int32 (sequences, most pages). `plan` is of
    these context_lengths. out is (sequences * n, heads * head_dim). overlap: as `Kernel.launch`'s.
    """
    workspace, sequences = plan.workspace, plan.num_sequences
    rows, kv_heads, group, head_dim = queries.shape
    page_size = keys.shape[1]
    _check(
        queries=queries,
        keys=keys,
        values=values,
        page_tables=page_tables,
        context_lengths=context_lengths,
        plan=plan,
        out=out,
    )
    if sequences == 0:
        return
    query_rows = rows // sequences
    passes = passes_for(query_rows * group)
    kernel = load_kernel(
        "decode_attention.cu", _kernel_name(queries.dtype, head_dim, passes.query_tiles)
    )
    kernel.launch(
        (kv_heads, passes.passes, workspace.workers),
        _THREADS,
        (
            out,
            queries,
            keys,
            values,
            page_tables,
            context_lengths,
            workspace.shares,
            workspace.spans,
            workspace.sums,
            workspace.stats,
            workspace.arrivals,
            page_tables.shape[1],
            page_size.bit_length() - 1,
            group,
            query_rows,
            math.log2(math.e) / math.sqrt(head_dim),
        ),
        overlap=overlap,
    )


def _check(
    *,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    page_tables: Tensor,
    context_lengths: Tensor,
    plan: DecodePlan,
    out: Tensor,
) -> None:
    workspace, sequences = plan.workspace, plan.num_sequences
    rows, kv_heads, group, head_dim = queries.shape
    page_size = keys.shape[1]
    if queries.dtype not in _TYPES:
        raise ValueError(f"dtype {queries.dtype}; expected one of {', '.join(map(str, _TYPES))}")
    for name, tensor in (("keys", keys), ("values", values), ("out", out)):
        _require_dtype(name, tensor, queries.dtype)
    for name, tensor in (("page_tables", page_tables), ("context_lengths", context_lengths)):
        _require_dtype(name, tensor, torch.int32)
    for name, tensor in (
        ("queries", queries),
        *(("keys", keys), ("values", values), ("out", out)),
        *(("page_tables", page_tables), ("context_lengths", context_lengths)),
    ):
        if not tensor.is_contiguous():
            raise ValueError(f"{name} is not contiguous: strides {tensor.stride()}")
    _require(page_size >= 16 and page_size.bit_count() == 1, "page size", page_size)
    heads = (workspace.kv_heads, workspace.group, workspace.head_dim)
    if (kv_heads, group, head_dim) != heads:
        raise ValueError(f"queries of shape {tuple(queries.shape)}; the workspace is for {heads}")
    if keys.shape != values.shape or keys.shape[2:] != (kv_heads, head_dim):
        raise ValueError(f"pages of shapes {tuple(keys.shape)} and {tuple(values.shape)}")
    if len(context_lengths) != sequences or len(page_tables) != sequences:
        raise ValueError(
            f"{len(context_lengths)} context lengths and {len(page_tables)} page tables; "
            f"the plan is for {sequences} sequences"
        )
    most = workspace.max_query_rows * sequences
    if rows > most or (sequences and (rows == 0 or rows % sequences)):
        raise ValueError(
            f"{rows} query rows; expected as many for each of {sequences} sequences, "
            f"{workspace.max_query_rows} at most"
        )
    if out.numel() != queries.numel() or len(out) != rows:
        raise ValueError(f"out has shape {tuple(out.shape)}; queries {tuple(queries.shape)}")


def _require(fits: bool, what: str, value: int) -> None:
    if not fits:
        raise ValueError(
            f"{what}: {value}; the kernels are for 1 to {MAX_QUERY_ROWS} query rows a sequence, "
            f"groups of 1 to {MAX_GROUP}, head sizes {HEAD_DIMS} and page sizes that are powers of "
            "two from 16"
        )


def _require_dtype(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    if tensor.dtype != dtype:
        raise ValueError(f"{name} is {tensor.dtype}; expected {dtype}")
