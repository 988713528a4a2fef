"""The operations on an NVIDIA GPU: our kernels, and cuBLAS where it is as fast.

In bfloat16 and float16. A step of up to 128 rows is bound by reading the weights: there a linear
and its residual or activation are one kernel, of one row also its norm. With more rows cuBLAS does
the products.
Everything is launched on torch's current stream, nothing waits for the device, and what a decode
step needs can be captured in a graph.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from ixc_cuda import many_rows
from ixc_cuda.decode_attention import (
    HEAD_DIMS,
    DecodePlan,
    DecodeWorkspace,
    decode_attention,
    plan_decode,
)
from ixc_cuda.device import device_info
from ixc_cuda.few_rows import few_rows_linear, pays
from ixc_cuda.low_rank import ALIGNMENT
from ixc_cuda.many_rows import many_rows_linear
from ixc_cuda.prefill_attention import GROUPS, PrefillPlan, plan_prefill, prefill_attention
from ixc_cuda.rms_norm import rms_norm
from ixc_cuda.rotary import rotate_and_store
from ixc_cuda.sampling import MOST_TOKENS
from ixc_cuda.swiglu import swiglu
from ixc_runtime.config import ModelConfig
from ixc_runtime.ops import Int4Weight, LowRankPair, Norm, Rotary, UpBlock, Weight
from ixc_runtime.ops.cpu import CpuOps


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decoding:
    """Sequences of one row each; a context length of 0 is nobody's row."""

    page_tables: Tensor  # int32 (sequences, most pages)
    context_lengths: Tensor  # int32 (sequences)
    plan: DecodePlan

    @property
    def num_rows(self) -> int:
        return self.context_lengths.shape[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionPlan:
    """Rows that decode come first, chunks of prompts behind them."""

    decoding: _Decoding | None
    chunks: PrefillPlan | None


def unsupported_shapes(config: ModelConfig) -> str | None:
    """What the kernels cannot compute of a model of these sizes; None if they can all of it."""
    group = config.queries_per_group
    if config.head_dim not in HEAD_DIMS or group not in GROUPS:
        return (
            f"heads of {config.head_dim}, {group} to a KV head; there are kernels for heads of "
            f"{_listed(HEAD_DIMS)}, {_listed(GROUPS)} to a KV head"
        )
    for name in ("hidden_size", "intermediate_size", "vocab_size"):
        if (size := getattr(config, name)) % 8:
            return f"{name} is {size}; the kernels read eight numbers at once"
    if config.vocab_size > MOST_TOKENS:
        return f"a vocabulary of {config.vocab_size}; the sampling kernel takes {MOST_TOKENS}"
    return None


def _listed(sizes: tuple[int, ...]) -> str:
    return " or ".join(map(str, sizes))


class CudaOps:
    """`max_sequences` bounds the sequences of a step; the scratch for them is taken at once."""

    name = "cuda"

    def __init__(
        self, config: ModelConfig, *, max_sequences: int, device: torch.device | str = "cuda"
    ) -> None:
        device = torch.device(device)
        info = device_info(device.index or 0)
        self._plain = CpuOps()
        self._capability = info.capability
        self._group = config.queries_per_group
        self._workspace = DecodeWorkspace(
            max_batch=max_sequences,
            max_query_rows=1,
            kv_heads=config.num_kv_heads,
            group=self._group,
            head_dim=config.head_dim,
            multiprocessors=info.multiprocessors,
            device=device,
        )

    # ---- once, when a model or an adapter is loaded

    def linear_weight(self, weight: Tensor) -> Tensor:
        return weight.contiguous()

    def int4_weight(self, weight: Int4Weight, dtype: torch.dtype) -> Weight:
        """Unpacked: there is no kernel for packed ones yet."""
        unpacked = self._plain.int4_weight(weight, dtype)
        assert isinstance(unpacked, Tensor), "the plain operations unpack"
        return unpacked.contiguous()

    def low_rank_pair(self, pair: LowRankPair) -> LowRankPair:
        return aligned(pair)

    # ---- once a step

    def rotary(self, positions: Tensor, bases: Tensor, head_dim: int, like: Tensor) -> Rotary:
        return self._plain.rotary(positions, bases, head_dim, like)

    def plan_attention(
        self,
        query_starts: tuple[int, ...],
        context_lengths: tuple[int, ...],
        page_tables: Tensor,
        page_size: int,
    ) -> AttentionPlan:
        num_decoding = 0
        while num_decoding < len(context_lengths) and query_starts[num_decoding + 1] == (
            num_decoding + 1
        ):
            num_decoding += 1
        tables = page_tables.to(torch.int32)
        decoding = None
        if num_decoding:
            lengths = torch.tensor(context_lengths[:num_decoding], dtype=torch.int32)
            decoding = self._decoding(
                tables[:num_decoding], lengths.pin_memory().to(tables.device, non_blocking=True)
            )
        chunks = None
        if num_decoding < len(context_lengths):
            chunks = plan_prefill(
                query_starts,
                context_lengths,
                tables,
                page_size,
                group=self._group,
                sequences=range(num_decoding, len(context_lengths)),
            )
        return AttentionPlan(decoding=decoding, chunks=chunks)

    def plan_decode(self, context_lengths: Tensor, page_tables: Tensor) -> AttentionPlan:
        """For a step of decoding sequences alone; reads the lengths on the device."""
        return AttentionPlan(decoding=self._decoding(page_tables, context_lengths), chunks=None)

    def _decoding(self, page_tables: Tensor, context_lengths: Tensor) -> _Decoding:
        return _Decoding(
            page_tables=page_tables,
            context_lengths=context_lengths,
            plan=plan_decode(context_lengths, self._workspace),
        )

    # ---- in every layer

    def rms_norm(self, x: Tensor, norm: Norm) -> Tensor:
        return rms_norm(x, norm.weight, norm.eps)

    def linear(self, x: Tensor, weight: Weight) -> Tensor:
        if self._is_many(x, weight):
            return many_rows_linear(x, _dense(weight))
        if self._is_few(x):
            return few_rows_linear(x, _dense(weight))
        return linear(x, _dense(weight))

    def normed_linear(
        self, x: Tensor, norm: Norm, weight: Weight, *, out: Tensor | None = None
    ) -> Tensor:
        if self._is_many(x, weight):
            return many_rows_linear(self.rms_norm(x, norm), _dense(weight), out=out)
        if self._is_few(x):
            return few_rows_linear(x, _dense(weight), norm=norm.weight, eps=norm.eps, out=out)
        return torch.mm(self.rms_norm(x, norm), _dense(weight).t(), out=out)

    def normed_swiglu(self, x: Tensor, norm: Norm, weight: Weight) -> Tensor:
        if self._is_many(x, weight, swiglu=True):
            return many_rows_linear(self.rms_norm(x, norm), _dense(weight), swiglu=True)
        if self._is_few(x):
            return few_rows_linear(x, _dense(weight), norm=norm.weight, eps=norm.eps, swiglu=True)
        return swiglu(linear(self.rms_norm(x, norm), _dense(weight)))

    def add_linear(self, residual: Tensor, x: Tensor, weight: Weight) -> None:
        if self._is_many(x, weight):
            many_rows_linear(x, _dense(weight), add_to=residual)
        elif self._is_few(x):
            few_rows_linear(x, _dense(weight), add_to=residual)
        else:
            residual.addmm_(x, _dense(weight).t())

    def add_low_rank(self, y: Tensor, x: Tensor, pair: LowRankPair, *, rows: Tensor | None) -> None:
        """By the matrix library, which is as fast as any at the many rows of prompts.

        A decode step of mixed rows goes by `ixc_cuda.low_rank` instead.
        """
        self._plain.add_low_rank(y, x, pair, rows=rows)

    def rotate_and_store(
        self, qkv: Tensor, rotary: Rotary, keys: Tensor, values: Tensor, slots: Tensor
    ) -> Tensor:
        cos, sin = rotary.cos.flatten(1), rotary.sin.flatten(1)
        return rotate_and_store(qkv, cos, sin, keys, values, slots)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, plan: AttentionPlan) -> Tensor:
        out = queries.new_empty(queries.shape[0], queries[0].numel())
        if (decoding := plan.decoding) is not None:
            num_decoding = decoding.num_rows
            decode_attention(
                queries[:num_decoding],
                keys,
                values,
                decoding.page_tables,
                decoding.context_lengths,
                decoding.plan,
                out=out[:num_decoding],
            )
        if plan.chunks is not None:
            prefill_attention(queries, keys, values, plan.chunks, out=out)
        return out

    def swiglu(self, gate_and_up: Tensor) -> Tensor:
        return swiglu(gate_and_up)

    def _is_few(self, x: Tensor) -> bool:
        rows, width = x.shape
        return pays(rows, width, clusters=self._capability >= (9, 0))

    def _is_many(self, x: Tensor, weight: Weight, *, swiglu: bool = False) -> bool:
        rows, width = x.shape
        outputs = _dense(weight).shape[0] // (2 if swiglu else 1)
        return many_rows.pays(rows, outputs, width, capability=self._capability)


def aligned(pair: LowRankPair) -> LowRankPair:
    """The pair itself, or with zeros between its ranks: a block's are a multiple of eight then."""
    if all(
        block.first_rank % ALIGNMENT == 0 and block.up.shape[1] % ALIGNMENT == 0
        for block in pair.blocks
    ):
        return pair
    downs, blocks, first_rank = [], [], 0
    for block in pair.blocks:
        ranks = block.up.shape[1]
        missing = -ranks % ALIGNMENT
        downs.append(
            pad(pair.down[block.first_rank : block.first_rank + ranks], (0, 0, 0, missing))
        )
        up = pad(block.up, (0, missing)).contiguous()
        blocks.append(UpBlock(up=up, first_rank=first_rank, first_output=block.first_output))
        first_rank += ranks + missing
    return LowRankPair(down=torch.cat(downs), blocks=tuple(blocks))


def _dense(weight: Weight) -> Tensor:
    assert isinstance(weight, Tensor), "int4 weights are unpacked when they are prepared"
    return weight
