"""A linear layer with its low-rank adapters, several of which may be in use in one step.

    y = W x + sum over the adapters of a row of  B (A x)

Nothing is merged: each row of a step takes the adapters it asks for, which need not touch every
linear. Knows no names of adapters; `ixc_runtime.model.adapters` decides which rows take which.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ixc_runtime.ops import LowRankPair, Ops, Weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Rows of this step that take one adapter; None is all of them."""

    adapter: str
    rows: Tensor | None


class Linear:
    """`weight` as `Ops` prepared it; `pairs` by adapter, absent ones left out.

    Adapters may come and go between steps.
    """

    def __init__(self, ops: Ops, weight: Weight, pairs: Mapping[str, LowRankPair]) -> None:
        self._ops = ops
        self.weight = weight
        self.pairs = dict(pairs)

    def __call__(self, x: Tensor, routes: tuple[Route, ...]) -> Tensor:
        y = self._ops.linear(x, self.weight)
        for route in routes:
            if (pair := self.pairs.get(route.adapter)) is not None:
                self._ops.add_low_rank(y, x, route.rows, pair)
        return y

    @property
    def adapters_bytes(self) -> int:
        return sum(pair.num_bytes for pair in self.pairs.values())

    @property
    def num_bytes(self) -> int:
        return self.weight.nbytes + self.adapters_bytes
