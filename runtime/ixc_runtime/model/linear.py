"""A linear layer with its low-rank adapters, several of which may be in use in one step.

    y = W x + sum over the adapters of a row of  B (A x)

Nothing is merged: each row of a step takes the adapters it asks for, which need not touch every
linear. Knows no names of adapters; `ixc_runtime.model.adapters` decides which rows take which.
"""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from ixc_runtime.ops import LowRankPair, Norm, Ops, Weight


class StepAdapters(Protocol):
    """Which of a step's rows take which adapter."""

    def touch(self, linear: "Linear") -> bool:
        """Whether any row may take an adapter of this linear."""

    def add(self, y: Tensor, x: Tensor, linear: "Linear") -> None:
        """To each row of y what its adapters make of its row of x."""


class Linear:
    """`weight` as `Ops` prepared it; `pairs` by adapter, absent ones left out.

    Adapters may come and go between steps. Besides the plain call there are the three forms that a
    decoder layer uses, which a backend may compute in one go where no adapter stands between.
    """

    def __init__(self, ops: Ops, weight: Weight, pairs: Mapping[str, LowRankPair]) -> None:
        self.ops = ops
        self.weight = weight
        self.pairs = dict(pairs)

    def __call__(self, x: Tensor, adapters: StepAdapters) -> Tensor:
        y = self.ops.linear(x, self.weight)
        adapters.add(y, x, self)
        return y

    def of_norm(self, x: Tensor, norm: Norm, adapters: StepAdapters) -> Tensor:
        if adapters.touch(self):
            return self(self.ops.rms_norm(x, norm), adapters)
        return self.ops.normed_linear(x, norm, self.weight)

    def swiglu_of_norm(self, x: Tensor, norm: Norm, adapters: StepAdapters) -> Tensor:
        if adapters.touch(self):
            return self.ops.swiglu(self(self.ops.rms_norm(x, norm), adapters))
        return self.ops.normed_swiglu(x, norm, self.weight)

    def add_to(self, residual: Tensor, x: Tensor, adapters: StepAdapters) -> None:
        self.ops.add_linear(residual, x, self.weight)
        adapters.add(residual, x, self)

    @property
    def shape(self) -> tuple[int, int]:
        """Inputs and outputs, of dense weights."""
        assert isinstance(self.weight, Tensor), "packed weights know their own"
        outputs, inputs = self.weight.shape
        return inputs, outputs

    @property
    def adapters_bytes(self) -> int:
        return sum(pair.num_bytes for pair in self.pairs.values())

    @property
    def num_bytes(self) -> int:
        return self.weight.nbytes + self.adapters_bytes
