"""What a linear's inputs look like over the calibration passages: all that the search needs.

The error that rounded weights make on those inputs is a quadratic form of the rounding error,

    sum over rows x of |E x|^2 = trace(E H E^T),   H = sum of x x^T

so the rows themselves are never kept, however many there are. Rows of pictures are many more than
those of words: each kind weighs the same in total.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ixc_runtime.model.linear import Linear, StepAdapters
from ixc_runtime.ops import Norm
from ixc_runtime.weights.walk import Passage


class Moments:
    """`gram` is the weighted mean of x x^T, `mean_abs` that of |x|; float32."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.gram = torch.zeros(size, size, device=device)
        self.mean_abs = torch.zeros(size, device=device)

    def add(self, x: Tensor, row_weights: Tensor) -> None:
        weighted = x * row_weights.sqrt().unsqueeze(-1)
        self.gram.addmm_(weighted.t(), weighted)
        self.mean_abs.add_(row_weights @ x.abs())

    def scaled_gram(self, scale: Tensor) -> Tensor:
        """That of the inputs divided by `scale`, column by column."""
        return self.gram / scale / scale.unsqueeze(-1)


class Tap(Linear):
    """A linear that shows its inputs to `watch` before it does its work."""

    def __init__(self, linear: Linear, watch: Callable[[Tensor], None]) -> None:
        super().__init__(linear.ops, linear.weight, linear.pairs)
        self._watch = watch

    def __call__(self, x: Tensor, adapters: StepAdapters) -> Tensor:
        self._watch(x)
        return super().__call__(x, adapters)

    def of_norm(self, x: Tensor, norm: Norm, adapters: StepAdapters) -> Tensor:
        return self(self.ops.rms_norm(x, norm), adapters)

    def swiglu_of_norm(self, x: Tensor, norm: Norm, adapters: StepAdapters) -> Tensor:
        return self.ops.swiglu(self.of_norm(x, norm, adapters))

    def add_to(self, residual: Tensor, x: Tensor, adapters: StepAdapters) -> None:
        self._watch(x)
        super().add_to(residual, x, adapters)


def row_weights(passages: Sequence[Passage], device: torch.device) -> list[Tensor]:
    """A weight for every row of every passage; they add up to one."""
    is_image = [torch.tensor(passage.token_ids, device=device) < 0 for passage in passages]
    num_image = sum(int(rows.sum()) for rows in is_image)
    num_text = sum(len(rows) for rows in is_image) - num_image
    kinds = (num_text > 0) + (num_image > 0)
    of_text, of_image = (1 / (kinds * max(count, 1)) for count in (num_text, num_image))
    return [torch.where(rows, of_image, of_text).to(torch.float32) for rows in is_image]
