"""How to round one group of linears: by which scales to smooth, and where to clip.

Activation-aware weight quantisation: a column of weights that large inputs meet is made larger
before rounding, and the inputs smaller by as much, so that the columns that matter are rounded
finely. How much is found by trying. Then each group's range is narrowed as long as the loss at its
ends costs less than the finer steps gain.

Pure functions of float32 tensors; the error is measured as `moments` describes. Knows no model.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ixc_cuda.awq_layout import RoundedLinear, round_to_levels
from ixc_runtime.weights.awq.moments import Moments

_NUM_RATIOS = 20  # exponents 0, 1/20, ... 19/20
_SMALLEST_SCALE = 1e-4
_SHRINKS = tuple(1 - step / 20 for step in range(1, 11))  # of a group's range: 95 % to 50 %


def find_scale(weights: Sequence[Tensor], moments: Moments, group_size: int) -> Tensor:
    """The scale per input column, shared by linears that read the same inputs.

    Candidates are act^a / wmean^(1-a) for 20 exponents a, and no scaling at all.
    """
    importance = _mean_share(weights, group_size)
    scales = [torch.ones_like(moments.mean_abs)]
    for step in range(_NUM_RATIOS):
        ratio = step / _NUM_RATIOS
        scale = moments.mean_abs.clamp(min=_SMALLEST_SCALE).pow(ratio)
        scale = (scale / importance.pow(1 - ratio)).clamp(min=_SMALLEST_SCALE)
        scales.append(scale / (scale.max() * scale.min()).sqrt())
    # Compared on the device; only the winner's number comes back.
    errors = [_smoothed_error(weights, scale, moments.gram, group_size) for scale in scales]
    return scales[int(torch.stack(errors).argmin())]


def round_plainly(weight: Tensor, group_size: int) -> RoundedLinear:
    """To the nearest level of each group's own range."""
    return round_to_levels(weight, group_size, _span(weight, group_size))


def round_clipped(weight: Tensor, gram: Tensor, group_size: int) -> RoundedLinear:
    """Round with each group's range as narrow as pays, judged over `gram` (of these inputs).

    Groups are tried one by one, as if the others made no error; a row keeps the outcome only if
    its error over all groups together is the smaller for it.
    """
    low, high = _span(weight, group_size)
    plain = round_to_levels(weight, group_size, (low, high))
    blocks = _diagonal_blocks(gram, group_size)
    best = _group_errors(weight, plain, blocks)
    factor = torch.ones_like(low)
    for shrink in _SHRINKS:
        candidate = round_to_levels(weight, group_size, (low * shrink, high * shrink))
        errors = _group_errors(weight, candidate, blocks)
        better = errors < best
        best = torch.where(better, errors, best)
        factor = torch.where(better.unsqueeze(-1), shrink, factor)
    clipped = round_to_levels(weight, group_size, (low * factor, high * factor))
    plain_errors, clipped_errors = (
        _errors_over(weight - rounded.weights(), gram) for rounded in (plain, clipped)
    )
    pays = clipped_errors < plain_errors
    factor = torch.where(pays[:, None, None], factor, 1.0)
    return round_to_levels(weight, group_size, (low * factor, high * factor))


def relative_error(weight: Tensor, rounded: RoundedLinear, gram: Tensor) -> float:
    """The root mean square of the output's error, relative to that of the output."""
    error = _errors_over(weight - rounded.weights(), gram).sum()
    return float((error / _errors_over(weight, gram).sum().clamp(min=1e-30)).sqrt())


def _smoothed_error(
    weights: Sequence[Tensor], scale: Tensor, gram: Tensor, group_size: int
) -> Tensor:
    total = gram.new_zeros(())
    for weight in weights:
        rounded = round_plainly(weight * scale, group_size).weights().div_(scale)
        total += _errors_over(rounded.sub_(weight), gram).sum()
    return total


def _span(weight: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """Each group's range, widened to zero: a zero point outside 0 to 15 cannot be stored."""
    groups = _grouped(weight, group_size)
    return groups.amin(-1, keepdim=True).clamp(max=0), groups.amax(-1, keepdim=True).clamp(min=0)


def _mean_share(weights: Sequence[Tensor], group_size: int) -> Tensor:
    """Per input column: the mean over rows of |w| relative to the largest of its group."""
    total = torch.zeros_like(weights[0][0])
    for weight in weights:
        groups = _grouped(weight.abs(), group_size)
        total += (groups / groups.amax(-1, keepdim=True).clamp(min=1e-12)).sum(0).flatten()
    rows = sum(len(weight) for weight in weights)
    return (total / rows).clamp(min=_SMALLEST_SCALE)


def _errors_over(error: Tensor, gram: Tensor) -> Tensor:
    """E H e^T of every row."""
    return (error @ gram).mul_(error).sum(-1)


def _diagonal_blocks(gram: Tensor, group_size: int) -> Tensor:
    """(groups, group, group): how a group's inputs go together, among themselves."""
    groups = len(gram) // group_size
    blocks = gram.view(groups, group_size, groups, group_size)
    return blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1).contiguous()


def _group_errors(weight: Tensor, rounded: RoundedLinear, blocks: Tensor) -> Tensor:
    """(rows, groups): the error each group makes by itself."""
    error = _grouped(weight - rounded.weights(), blocks.shape[-1]).transpose(0, 1)
    return (error @ blocks).mul_(error).sum(-1).t()


def _grouped(weight: Tensor, group_size: int) -> Tensor:
    return weight.view(len(weight), -1, group_size)
