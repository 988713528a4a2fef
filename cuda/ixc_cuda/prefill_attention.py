"""Causal attention of prompt chunks over pages: any number of sequences, each of any length.

A sequence's rows are the last of its context: what came before them lies in the pages already, and
so do their own keys and values. Two kernels compute the same: `prefill_attention_sm90.cu` with
Hopper's own copies and products, `prefill_attention_sm80.cu` on every other GPU.

The work is cut into tiles, planned on the host once a step for all layers. Rows that are decoded,
one or a few a sequence, are better off in `decode_attention`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ixc_cuda.catalogue import Instantiation
from ixc_cuda.device import device_info
from ixc_cuda.kernel import TensorMap, load_kernel, tensor_map

TILE_ROWS = 128  # of the products: positions times the query heads that share a KV head
SMALLEST_PAGE = 16
_BLOCK_SLOTS = 128  # of keys and values at once, in the Hopper kernel
_BOX_COLUMNS = 64  # as many as its 128-byte swizzle spans
_MOST_MAPS = 4096

_TYPES = {torch.bfloat16: "__nv_bfloat16", torch.float16: "__half"}
_HEAD_DIMS = (64, 128)
GROUPS = (3, 4)  # query heads that share a KV head
_HOPPER = (9, 0)

INSTANTIATIONS = tuple(
    Instantiation(
        source=f"prefill_attention_{suffix}.cu",
        name=f"prefill_attention_{suffix}<{type_name}, {head_dim}, {group}>",
        architectures=architectures,
    )
    for suffix, architectures in (("sm80", ("sm_80", "sm_90")), ("sm90", ("sm_90a",)))
    for type_name in _TYPES.values()
    for head_dim in _HEAD_DIMS
    for group in GROUPS
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillPlan:
    """A step's tiles on the device. Its launches must follow each other: they share a counter."""

    num_rows: int  # of the step
    group: int
    page_size: int
    longest_context: int
    tiles: Tensor  # int32 (tiles, 4): first row, positions, context, sequence
    page_tables: Tensor  # int32 (sequences, most pages)
    next_piece: Tensor  # int32 (1): zero between launches


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Which kernel runs, and on what."""

    source: str
    name: str
    threads: int
    shared_bytes: int
    persistent: bool  # a block a multiprocessor that takes work, rather than a block a tile


def plan_prefill(
    query_starts: Sequence[int],
    context_lengths: Sequence[int],
    page_tables: Tensor,
    page_size: int,
    *,
    group: int,
    sequences: Sequence[int] | None = None,
) -> PrefillPlan:
    """Cut the rows of `sequences` (all, by default) into tiles.

    Rows [query_starts[s], query_starts[s + 1]) are the last of sequence s's `context_lengths[s]`
    slots, which lie in the pages that row s of `page_tables` names in order.
    """
    if page_size < SMALLEST_PAGE or page_size & (page_size - 1):
        raise ValueError(f"pages of {page_size} slots: a power of two from {SMALLEST_PAGE} needed")
    chosen = range(len(context_lengths)) if sequences is None else sequences
    for sequence in chosen:
        rows = query_starts[sequence + 1] - query_starts[sequence]
        context = context_lengths[sequence]
        if not 0 <= rows <= context <= page_tables.shape[1] * page_size:
            raise ValueError(
                f"sequence {sequence} has {rows} rows, {context} slots of context and "
                f"{page_tables.shape[1]} pages of {page_size}"
            )
    tiles = torch.from_numpy(
        cut_into_tiles(query_starts, context_lengths, chosen, TILE_ROWS // group)
    )
    if page_tables.is_cuda:
        tiles = tiles.pin_memory()  # so that the copy is queued rather than waited for
    return PrefillPlan(
        num_rows=query_starts[-1],
        group=group,
        page_size=page_size,
        longest_context=max((context_lengths[sequence] for sequence in chosen), default=0),
        tiles=tiles.to(page_tables.device, non_blocking=True),
        page_tables=page_tables.to(torch.int32).contiguous(),
        next_piece=torch.zeros(1, dtype=torch.int32, device=page_tables.device),
    )


def cut_into_tiles(
    query_starts: Sequence[int],
    context_lengths: Sequence[int],
    sequences: Sequence[int],
    positions: int,
) -> npt.NDArray[np.int32]:
    """Tiles of up to `positions` rows: the longest sequence first, and in it what sees most first.

    So the small ones fill the end, and tiles that read the same pages do so at about the same time.
    """
    chosen = np.asarray(sequences, dtype=np.int64)
    edges = np.asarray(query_starts, dtype=np.int64)
    starts, rows = edges[chosen], edges[chosen + 1] - edges[chosen]
    past = np.asarray(context_lengths, dtype=np.int64)[chosen] - rows
    counts = -(-rows // positions)
    owner = np.repeat(np.arange(len(chosen)), counts)
    first = (np.arange(len(owner)) - np.repeat(counts.cumsum() - counts, counts)) * positions
    sizes = np.minimum(rows[owner] - first, positions)
    context = past[owner] + first + sizes
    tiles = np.stack((starts[owner] + first, sizes, context, chosen[owner]), axis=1)
    order = np.lexsort((-context, owner, -(past + rows)[owner]))
    return np.ascontiguousarray(tiles[order], dtype=np.int32)


def prefill_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    plan: PrefillPlan,
    *,
    out: Tensor,
    capability: tuple[int, int] | None = None,
) -> None:
    """Attention of the plan's rows, into their rows of `out`; other rows are left alone.

    queries: (rows, kv_heads, group, head_dim). keys, values: one layer's pages, (pages, page_size,
    kv_heads, head_dim). out: (rows, kv_heads * group * head_dim). All of one 16-bit type.
    capability: whose kernel to take; the device's own by default.
    """
    _check(queries, keys, values, plan, out)
    num_tiles = plan.tiles.shape[0]
    if num_tiles == 0:
        return
    info = device_info(queries.device.index)
    kv_heads, group, head_dim = queries.shape[1:]
    configuration = configure(capability or info.capability, queries.dtype, head_dim, group)
    kernel = load_kernel(configuration.source, configuration.name)
    pieces = num_tiles * kv_heads
    page_shift = plan.page_size.bit_length() - 1
    scale = math.log2(math.e) / math.sqrt(head_dim)  # of scores whose powers are of two
    tables = (plan.page_tables, plan.page_tables.stride(0), page_shift)
    if not configuration.persistent:
        kernel.launch(
            (pieces, 1, 1),
            configuration.threads,
            (out, queries, keys, values, plan.tiles, *tables, kv_heads, scale),
            shared_bytes=configuration.shared_bytes,
        )
        return
    box_slots = min(plan.page_size, _BLOCK_SLOTS)
    slots_box = (box_slots, 1, _BOX_COLUMNS)
    maps = (
        _map(queries, (TILE_ROWS // group, 1, group, _BOX_COLUMNS)),
        _map(keys.flatten(0, 1), slots_box),
        _map(values.flatten(0, 1), slots_box),
    )
    work = (plan.tiles, num_tiles, plan.next_piece)
    slot_bytes = 2 * head_dim * keys.element_size()
    heads = heads_at_once(kv_heads, plan.longest_context * slot_bytes, info.l2_bytes)
    kernel.launch(
        (min(info.multiprocessors, pieces), 1, 1),
        configuration.threads,
        (*maps, out, *work, *tables, box_slots, kv_heads, heads, scale),
        shared_bytes=configuration.shared_bytes,
    )


def configure(
    capability: tuple[int, int], dtype: torch.dtype, head_dim: int, group: int
) -> Configuration:
    """The kernel for a GPU of that compute capability and these shapes."""
    if dtype not in _TYPES or head_dim not in _HEAD_DIMS or group not in GROUPS:
        raise ValueError(
            f"no kernel for {dtype}, heads of {head_dim}, {group} query heads a KV head; there are "
            f"{[*map(str, _TYPES)]}, heads of {_HEAD_DIMS}, groups of {GROUPS}"
        )
    arguments = f"<{_TYPES[dtype]}, {head_dim}, {group}>"
    row_bytes = head_dim * dtype.itemsize
    if capability == _HOPPER:
        # Queries, two blocks each of keys and values, outputs; then barriers and the tile.
        shared_bytes = 6 * TILE_ROWS * row_bytes + 128
        name = f"prefill_attention_sm90{arguments}"
        return Configuration(
            source="prefill_attention_sm90.cu",
            name=name,
            threads=384,
            shared_bytes=shared_bytes,
            persistent=True,
        )
    # Queries, one tile each of keys and values.
    tile_slots = 64 if head_dim == 64 else 32
    return Configuration(
        source="prefill_attention_sm80.cu",
        name=f"prefill_attention_sm80{arguments}",
        threads=128,
        shared_bytes=(TILE_ROWS + 2 * tile_slots) * row_bytes,
        persistent=False,
    )


def heads_at_once(kv_heads: int, head_bytes: int, l2_bytes: int) -> int:
    """How many heads' keys and values, of one sequence, half of the L2 holds: a divisor."""
    fitting = (
        heads
        for heads in range(kv_heads, 1, -1)
        if kv_heads % heads == 0 and heads * head_bytes <= l2_bytes // 2
    )
    return next(fitting, 1)


def _check(queries: Tensor, keys: Tensor, values: Tensor, plan: PrefillPlan, out: Tensor) -> None:
    rows, kv_heads, group, head_dim = queries.shape
    expected = {
        "queries": (queries, (plan.num_rows, kv_heads, plan.group, head_dim)),
        "keys": (keys, (keys.shape[0], plan.page_size, kv_heads, head_dim)),
        "values": (values, tuple(keys.shape)),
        "out": (out, (rows, kv_heads * group * head_dim)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape or not tensor.is_contiguous():
            raise ValueError(
                f"{name}: shape {tuple(tensor.shape)}, strides {tensor.stride()}; "
                f"{shape}, contiguous, needed"
            )
        if tensor.dtype != queries.dtype or tensor.device != plan.tiles.device:
            raise ValueError(
                f"{name}: {tensor.dtype} on {tensor.device}; {queries.dtype} on "
                f"{plan.tiles.device} needed"
            )


_maps: dict[tuple[int, torch.Size, torch.dtype, tuple[int, ...]], TensorMap] = {}


def _map(tensor: Tensor, box: tuple[int, ...]) -> TensorMap:
    """A contiguous tensor's map: where it lies and its shape say all, and every step asks again."""
    key = (tensor.data_ptr(), tensor.shape, tensor.dtype, box)
    if (known := _maps.get(key)) is None:
        if len(_maps) >= _MOST_MAPS:
            _maps.clear()
        known = _maps[key] = tensor_map(tensor, box, swizzle=128, promotion=256)
    return known
