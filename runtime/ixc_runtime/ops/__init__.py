"""The operations the model is made of: the line behind which a backend does the arithmetic.

`ixc_runtime.ops.cpu` is plain torch and defines what each operation means; a faster backend has to
agree with it. Tensors go in and out; requests, sequences and files are unknown here.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankPair:
    """An adapter of one linear: down to `rank`, and up again in one or more blocks of outputs.

    Two linears fused into one have two blocks, each reading its own part of the ranks.
    """

    down: Tensor  # (rank, in)
    blocks: tuple["UpBlock", ...]

    @property
    def num_bytes(self) -> int:
        return self.down.nbytes + sum(block.up.nbytes for block in self.blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpBlock:
    """`up` turns ranks [first_rank, …) into outputs [first_output, …)."""

    up: Tensor  # (outputs, ranks)
    first_rank: int
    first_output: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Int4Weight:
    """A linear's weights as published: int4 levels, laid out as `ixc_cuda.awq_layout` says.

    Outputs are columns, so linears that read the same input lie side by side.
    """

    qweight: Tensor  # int32 (in, out / 8)
    qzeros: Tensor  # int32 (in / group, out / 8)
    scales: Tensor  # float16 (in / group, out)
    group_size: int

    @property
    def nbytes(self) -> int:
        return self.qweight.nbytes + self.qzeros.nbytes + self.scales.nbytes


# What `Linear` holds and `Ops.linear` reads.
Weight = Tensor | Int4Weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """Of rows by their root mean square; `eps` is added to the mean of squares."""

    weight: Tensor  # (hidden,)
    eps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotary:
    """Cosines and sines of a step's rows: (rows, 1, 1, head_dim / 2) each."""

    cos: Tensor
    sin: Tensor


class Ops(Protocol):
    """One backend. `Plan` is its own: whatever it computes once a step for all layers."""

    name: str

    # ---- once, when a model or an adapter is loaded

    def linear_weight(self, weight: Tensor) -> Tensor:
        """A dense weight (out, in) in the memory layout this backend reads fastest."""

    def int4_weight(self, weight: Int4Weight, dtype: torch.dtype) -> Weight:
        """Rounded weights as this backend reads them fastest: packed, or unpacked into `dtype`."""

    def low_rank_pair(self, pair: LowRankPair) -> LowRankPair:
        """An adapter's pair as this backend reads it fastest; it computes the same."""

    # ---- once a step

    def rotary(self, positions: Tensor, bases: Tensor, head_dim: int, like: Tensor) -> Rotary:
        """Every row's rotation by its own base, in float32 or `like`'s dtype if wider."""

    def plan_attention(
        self,
        query_starts: tuple[int, ...],
        context_lengths: tuple[int, ...],
        page_tables: Tensor,
        page_size: int,
    ) -> Any:
        """What `attend` needs to know of a step's sequences."""

    # ---- in every layer

    def rms_norm(self, x: Tensor, norm: Norm) -> Tensor:
        """Return x / rms(x) in float32, rounded to x's dtype, then times the norm's weight."""

    def linear(self, x: Tensor, weight: Weight) -> Tensor:
        """(rows, in) by a prepared weight -> (rows, out)."""

    def normed_linear(
        self, x: Tensor, norm: Norm, weight: Weight, *, out: Tensor | None = None
    ) -> Tensor:
        """`linear` of the normalised rows, into `out` if given."""

    def normed_swiglu(self, x: Tensor, norm: Norm, weight: Weight) -> Tensor:
        """`swiglu` of `linear` of the normalised rows."""

    def add_linear(self, residual: Tensor, x: Tensor, weight: Weight) -> None:
        """Add `linear` of x to `residual`, in place."""

    def add_low_rank(self, y: Tensor, x: Tensor, pair: LowRankPair, *, rows: Tensor | None) -> None:
        """y[rows] += up(down(x[rows])), in place; no `rows` is every row."""

    def rotate_and_store(
        self, qkv: Tensor, rotary: Rotary, keys: Tensor, values: Tensor, slots: Tensor
    ) -> Tensor:
        """Split packed projections, rotate queries and keys, write keys and values to their slots.

        `qkv` is (rows, kv_heads * (group + 2) * head_dim): per KV head its queries, key, value.
        `keys` and `values` are one layer's pages. Returns (rows, kv_heads, group, head_dim).
        """

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, plan: Any) -> Tensor:
        """Causal attention of each row over its sequence's pages -> (rows, heads * head_dim)."""

    def swiglu(self, gate_and_up: Tensor) -> Tensor:
        """(rows, 2 * n) -> silu(first half) * second half."""
