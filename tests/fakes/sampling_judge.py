"""Whether a token could have been drawn: sampling's definition in float64, with room for rounding.

Two samplers that round differently may part where a number lies within rounding of a threshold: a
nucleus that just reaches top_p, or a draw at the border of two tokens. The judge works out how far
away that is.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ixc_runtime.sampling import sampler
from ixc_runtime.sampling.philox import uniform
from ixc_runtime.sampling.sampler import SamplingRow

# Float32 probabilities of 92,544 tokens, and their sum, may be off by this much of the whole.
TOLERANCE = 2e-5

# No rule but the draw itself; what a test or a bench is about it sets on top.
PLAIN = SamplingRow(
    temperature=1.0,
    top_p=1.0,
    top_k=0,
    min_p=0.0,
    repetition_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    seed=0,
    position=0,
    generated={},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`clear` is the one possible answer, where no rounding could lead to another."""

    clear: int | None
    possible: bool


def judge(logits: Tensor, row: SamplingRow, token_id: int, tolerance: float = TOLERANCE) -> Verdict:
    """`logits`: one row, float32, on the CPU."""
    edited = sampler._edit(logits, row) if row.edits_logits else logits
    if row.temperature == 0:
        best = int(edited.argmax())
        return Verdict(clear=best, possible=token_id == best)
    scaled = (edited - edited.max()) / row.temperature
    if 0 < row.top_k < scaled.numel():
        scaled = scaled.masked_fill(scaled < scaled.topk(row.top_k).values[-1], -torch.inf)
    weights = scaled.double().exp()
    u = uniform(seed=row.seed, position=row.position, sample=row.sample)
    answers = set()
    possible = False
    for kept in _kept(weights, row, tolerance):
        cumulative = kept.cumsum(0)
        total = cumulative[-1]
        room = tolerance * total
        low, target, high = (
            _first_beyond(cumulative, u * total + shift) for shift in (-room, 0, room)
        )
        answers |= {low, target, high}
        after, before = cumulative[token_id], cumulative[token_id] - kept[token_id]
        possible |= bool(kept[token_id] > 0 and before - room <= u * total <= after + room)
    return Verdict(clear=answers.pop() if len(answers) == 1 else None, possible=possible)


def _kept(weights: Tensor, row: SamplingRow, tolerance: float) -> Iterator[Tensor]:
    """The weights that the rules leave, each threshold a little lower, as it is, and higher."""
    descending = weights.sort(descending=True).values
    total = weights.sum()
    sums = descending.cumsum(0)
    for shift in (-tolerance, 0.0, tolerance):
        kept = weights
        if row.top_p < 1:
            reached = sums >= min((row.top_p + shift), 1.0) * total
            smallest = descending[int(reached.int().argmax())] if reached.any() else 0.0
            kept = kept.masked_fill(kept < smallest, 0)
        for factor in (1 - tolerance, 1 + tolerance) if row.min_p > 0 else (1.0,):
            yield kept.masked_fill(kept < min(row.min_p * factor, 1.0), 0)


def _first_beyond(cumulative: Tensor, target: Tensor) -> int:
    target = target.clamp(min=0)
    found = int(torch.searchsorted(cumulative, target, right=True))
    # Beyond the sum: the last token that has any mass.
    return min(found, int(torch.searchsorted(cumulative, cumulative[-1])))
