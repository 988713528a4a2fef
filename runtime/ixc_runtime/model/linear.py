"""A linear layer with its low-rank adapters, several of which may be in use in one step.

    y = W x + sum over the adapters of a row of  B (A x)

Nothing is merged: each row of a step takes the adapters it asks for, which need not touch every
linear. Knows no names of adapters; `ixc_runtime.model.adapters` decides which rows take which.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ixc_runtime.ops import LowRankPair, Norm, Ops, Weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Rows of this step that take one adapter: those listed, those masked by a one, or all."""

    adapter: str
    rows: Tensor | None = None
    mask: Tensor | None = None


class Linear:
    """`weight` as `Ops` prepared it; `pairs` by adapter, absent ones left out.

    Adapters may come and go between steps. Besides the plain call there are the three forms that a
    decoder layer uses, which a backend may compute in one go where no adapter stands between.
    """

    def __init__(self, ops: Ops, weight: Weight, pairs: Mapping[str, LowRankPair]) -> None:
        self.ops = ops
        self.weight = weight
        self.pairs = dict(pairs)

    def __call__(self, x: Tensor, routes: tuple[Route, ...]) -> Tensor:
        y = self.ops.linear(x, self.weight)
        self._add_adapters(y, x, routes)
        return y

    def of_norm(self, x: Tensor, norm: Norm, routes: tuple[Route, ...]) -> Tensor:
        if self._is_adapted(routes):
            return self(self.ops.rms_norm(x, norm), routes)
        return self.ops.normed_linear(x, norm, self.weight)

    def swiglu_of_norm(self, x: Tensor, norm: Norm, routes: tuple[Route, ...]) -> Tensor:
        if self._is_adapted(routes):
            return self.ops.swiglu(self(self.ops.rms_norm(x, norm), routes))
        return self.ops.normed_swiglu(x, norm, self.weight)

    def add_to(self, residual: Tensor, x: Tensor, routes: tuple[Route, ...]) -> None:
        self.ops.add_linear(residual, x, self.weight)
        self._add_adapters(residual, x, routes)

    def _add_adapters(self, y: Tensor, x: Tensor, routes: tuple[Route, ...]) -> None:
        for route in routes:
            if (pair := self.pairs.get(route.adapter)) is not None:
                self.ops.add_low_rank(y, x, pair, rows=route.rows, mask=route.mask)

    def _is_adapted(self, routes: tuple[Route, ...]) -> bool:
        return any(route.adapter in self.pairs for route in routes)

    @property
    def adapters_bytes(self) -> int:
        return sum(pair.num_bytes for pair in self.pairs.values())

    @property
    def num_bytes(self) -> int:
        return self.weight.nbytes + self.adapters_bytes
