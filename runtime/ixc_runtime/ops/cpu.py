"""The operations in plain torch: their definition, and fast enough for a small model on a CPU.

What makes it fast there: a step of one token is bound by reading the weights, one of many by the
number of calls, so weights lie as the matrix library reads them best, sequences that decode share
one attention call, and nothing is copied that a view can say.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention, silu

from ixc_cuda import awq_layout
from ixc_runtime.ops import Int4Weight, LowRankPair, Norm, Rotary, Weight


@dataclass(frozen=True, slots=True, kw_only=True)
class _DecodeGroup:
    """Sequences of one row each and of similar length; `mask` (n, 1, 1, slots) hides the rest.

    `hidden` are the same slots, counted over all pages. They are made zero: what they hold, perhaps
    a sequence's whose output was not finite, could be NaN, which no mask would hide.
    """

    rows: Tensor | None  # None: the whole step, in order
    pages: Tensor | slice  # flat (n * pages each), or one sequence's consecutive ones
    num_sequences: int
    num_slots: int
    mask: Tensor | None  # None: all are of one length
    hidden: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _PromptChunk:
    """Rows of one sequence; `mask` (rows, context) is None when it is causal from the start."""

    rows: slice
    pages: Tensor
    context_length: int
    mask: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionPlan:
    num_rows: int
    decoding: tuple[_DecodeGroup, ...]
    chunks: tuple[_PromptChunk, ...]


class CpuOps:
    """On whatever device its tensors are: on a GPU too, where no kernels of ours are wanted."""

    def __init__(self, name: str = "cpu") -> None:
        self.name = name

    def linear_weight(self, weight: Tensor) -> Tensor:
        """Wide weights column by column: one row times 576 x 49152 takes 6 ms so, 11 ms otherwise.

        (oneMKL, two cores, float32. At eight rows and more both orders take about the same time;
        tall weights are faster as they are.) The shape stays (out, in), only the strides change.
        """
        if weight.shape[0] > weight.shape[1]:
            return weight.t().contiguous().t()
        return weight.contiguous()

    def int4_weight(self, weight: Int4Weight, dtype: torch.dtype) -> Weight:
        """Unpacked, once and for all.

        On the demo model packed weights take half the memory in all (342 MB of 709) and fifteen
        times the time for a token (819 ms instead of 54, one thread): here it is only a definition.
        """
        return self.linear_weight(_dequantize(weight).to(dtype))

    def low_rank_pair(self, pair: LowRankPair) -> LowRankPair:
        return pair

    def rotary(self, positions: Tensor, bases: Tensor, head_dim: int, like: Tensor) -> Rotary:
        # As the reference: frequencies and angles in float32, so that long prompts round alike.
        dtype = torch.promote_types(like.dtype, torch.float32)
        exponents = torch.arange(0, head_dim, 2, device=positions.device).to(dtype) / head_dim
        frequencies = 1.0 / bases.to(dtype).unsqueeze(-1).pow(exponents)
        angles = (positions.to(dtype).unsqueeze(-1) * frequencies)[:, None, None, :]
        return Rotary(cos=angles.cos(), sin=angles.sin())

    def plan_attention(
        self,
        query_starts: tuple[int, ...],
        context_lengths: tuple[int, ...],
        page_tables: Tensor,
        page_size: int,
    ) -> AttentionPlan:
        single: list[int] = []
        chunks: list[_PromptChunk] = []
        for sequence, length in enumerate(context_lengths):
            start, stop = query_starts[sequence], query_starts[sequence + 1]
            if stop - start == 1:
                single.append(sequence)
                continue
            past = length - (stop - start)
            mask = torch.ones(stop - start, length, dtype=torch.bool, device=page_tables.device)
            chunks.append(
                _PromptChunk(
                    rows=slice(start, stop),
                    pages=page_tables[sequence, : -(-length // page_size)],
                    context_length=length,
                    mask=mask.tril_(past) if past else None,
                )
            )
        groups = _by_similar_length(single, context_lengths)
        return AttentionPlan(
            num_rows=query_starts[-1],
            decoding=tuple(
                _decode_group(group, query_starts, context_lengths, page_tables, page_size)
                for group in groups
            ),
            chunks=tuple(chunks),
        )

    def rms_norm(self, x: Tensor, norm: Norm) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True).add_(norm.eps))
        return (wide * scale).to(x.dtype) * norm.weight

    def linear(self, x: Tensor, weight: Weight) -> Tensor:
        if isinstance(weight, Int4Weight):
            weight = _dequantize(weight).to(x.dtype)
        return linear(x, weight)

    def normed_linear(
        self, x: Tensor, norm: Norm, weight: Weight, *, out: Tensor | None = None
    ) -> Tensor:
        y = self.linear(self.rms_norm(x, norm), weight)
        return y if out is None else out.copy_(y)

    def normed_swiglu(self, x: Tensor, norm: Norm, weight: Weight) -> Tensor:
        return self.swiglu(self.normed_linear(x, norm, weight))

    def add_linear(self, residual: Tensor, x: Tensor, weight: Weight) -> None:
        residual += self.linear(x, weight)

    def add_low_rank(self, y: Tensor, x: Tensor, pair: LowRankPair, *, rows: Tensor | None) -> None:
        ranks = linear(x if rows is None else x[rows], pair.down)
        for block in pair.blocks:
            size, rank = block.up.shape
            delta = linear(ranks[:, block.first_rank : block.first_rank + rank], block.up)
            outputs = y[:, block.first_output : block.first_output + size]
            if rows is None:
                outputs.add_(delta)
            else:
                outputs.index_add_(0, rows, delta)

    def rotate_and_store(
        self, qkv: Tensor, rotary: Rotary, keys: Tensor, values: Tensor, slots: Tensor
    ) -> Tensor:
        kv_heads, head_dim = keys.shape[-2:]
        half = head_dim // 2
        heads = qkv.view(qkv.shape[0], kv_heads, -1, head_dim)
        plain = heads[:, :, :-1].to(rotary.cos.dtype)
        rotated = torch.empty_like(plain)
        left, right = plain[..., :half], plain[..., half:]
        torch.mul(left, rotary.cos, out=rotated[..., :half]).addcmul_(right, rotary.sin, value=-1)
        torch.mul(right, rotary.cos, out=rotated[..., half:]).addcmul_(left, rotary.sin)
        rotated = rotated.to(qkv.dtype)
        keys.view(-1, kv_heads, head_dim).index_copy_(0, slots, rotated[:, :, -1])
        values.view(-1, kv_heads, head_dim).index_copy_(0, slots, heads[:, :, -1])
        return rotated[:, :, :-1]

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, plan: AttentionPlan) -> Tensor:
        if len(plan.decoding) == 1 and plan.decoding[0].rows is None:
            return _decode(queries, keys, values, plan.decoding[0])
        width = queries.shape[1] * queries.shape[2] * queries.shape[3]
        out = queries.new_empty(plan.num_rows, width)
        for group in plan.decoding:
            out[group.rows] = _decode(queries[group.rows], keys, values, group)
        for chunk in plan.chunks:
            out[chunk.rows] = _prefill(queries[chunk.rows], keys, values, chunk)
        return out

    def swiglu(self, gate_and_up: Tensor) -> Tensor:
        gate, up = gate_and_up.chunk(2, -1)
        return silu(gate).mul_(up)


def _dequantize(weight: Int4Weight) -> Tensor:
    """Float32 (out, in): what the levels stand for."""
    packed = awq_layout.PackedLinear(
        qweight=weight.qweight, qzeros=weight.qzeros, scales=weight.scales
    )
    return awq_layout.dequantize(packed, weight.group_size)


def _by_similar_length(single: list[int], context_lengths: tuple[int, ...]) -> list[list[int]]:
    """Groups whose members are padded to less than twice their length."""
    groups: dict[int, list[int]] = {}
    for sequence in single:
        # Short ones are cheap to pad: all up to 512 slots go together.
        size = max(context_lengths[sequence] - 1, 511).bit_length()
        groups.setdefault(size, []).append(sequence)
    return list(groups.values())


def _decode_group(
    sequences: list[int],
    query_starts: tuple[int, ...],
    context_lengths: tuple[int, ...],
    page_tables: Tensor,
    page_size: int,
) -> _DecodeGroup:
    lengths = [context_lengths[sequence] for sequence in sequences]
    num_pages = -(-max(lengths) // page_size)
    whole_step = len(sequences) == query_starts[-1]
    tables = page_tables[:, :num_pages] if whole_step else page_tables[sequences, :num_pages]
    pages: Tensor | slice = tables.flatten()
    if len(sequences) == 1:
        first = int(tables[0, 0])
        if tables[0].tolist() == list(range(first, first + num_pages)):
            pages = slice(first, first + num_pages)
    mask = hidden = None
    if min(lengths) != max(lengths):
        device = page_tables.device
        ends = torch.tensor(lengths, device=device).unsqueeze(-1)
        seen = torch.arange(num_pages * page_size, device=device) < ends
        hidden = (~seen).flatten().nonzero().squeeze(-1)
        mask = seen[:, None, None, : max(lengths)]
    rows = torch.tensor([query_starts[s] for s in sequences], device=page_tables.device)
    return _DecodeGroup(
        rows=None if whole_step else rows,
        pages=pages,
        num_sequences=len(sequences),
        num_slots=max(lengths),
        mask=mask,
        hidden=hidden,
    )


def _decode(queries: Tensor, keys: Tensor, values: Tensor, group: _DecodeGroup) -> Tensor:
    """One query row a sequence: the queries that share a KV head stand where its rows would."""
    k, v = (
        _gather(pages, group.pages, group.num_sequences, group.hidden)[:, :, : group.num_slots]
        for pages in (keys, values)
    )
    out = scaled_dot_product_attention(queries, k, v, attn_mask=group.mask)
    return out.reshape(group.num_sequences, -1)


def _prefill(queries: Tensor, keys: Tensor, values: Tensor, chunk: _PromptChunk) -> Tensor:
    """KV heads stand as the batch, so that a group's queries share them without a copy."""
    group = queries.shape[2]
    k, v = (
        _gather(pages, chunk.pages, 1)[:, :, : chunk.context_length].transpose(0, 1)
        for pages in (keys, values)
    )
    out = scaled_dot_product_attention(
        queries.permute(1, 2, 0, 3),
        k.expand(-1, group, -1, -1),
        v.expand(-1, group, -1, -1),
        attn_mask=chunk.mask,
        is_causal=chunk.mask is None,
    )
    return out.permute(2, 0, 1, 3).reshape(queries.shape[0], -1)


def _gather(
    arena: Tensor, pages: Tensor | slice, num_sequences: int, hidden: Tensor | None = None
) -> Tensor:
    """Pages of one layer as (sequences, kv_heads, slots, head_dim)."""
    kv_heads, head_dim = arena.shape[-2:]
    if isinstance(pages, slice):
        chosen = arena[pages]
    else:
        chosen = arena.index_select(0, pages)
        if hidden is not None:
            chosen.view(-1, kv_heads, head_dim).index_fill_(0, hidden, 0)
    return chosen.view(num_sequences, -1, kv_heads, head_dim).transpose(1, 2)
