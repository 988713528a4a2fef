"""Choosing the next token of each row: the reference that device kernels are tested against.

For one row, in this order (x are the logits in float32, c the counts of generated tokens):

    repetition   x = x / r where x > 0, x * r elsewhere, for every token with c > 0
    presence     x = x - presence              where c > 0
    frequency    x = x - frequency * c
    bias         x = x + bias
    banned       x = -inf                      bad words; stop ids before min_output_tokens
                                               (ids beyond the vocabulary: no rule touches them)
    temperature  0: argmax, done;  else x = x / temperature
    top_k        keep x >= the k-th largest
    top_p        keep p >= the smallest p of the shortest descending run whose sum reaches top_p,
                 p = softmax of what top_k kept
    min_p        keep p >= min_p * max p
    draw         the first token, in order of id, whose cumulative p exceeds u * sum,
                 u = uniform(seed, position, sample)

Each rule keeps all tokens of equal value, so nothing depends on how a sort breaks ties. Rows do
not see each other. Log-probabilities are those of the unchanged logits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ixc_runtime.request import TokenLogprob
from ixc_runtime.sampling.philox import uniform

# A nucleus larger than this is found by sorting the whole row.
_NUCLEUS_GUESS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingRow:
    """What one row needs: settings with nothing left open, and the sequence's own history."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int
    position: int  # of the new token among the request's output, from 0
    sample: int = 0
    generated: Mapping[int, int]  # token id -> how often it was generated
    logit_bias: tuple[tuple[int, float], ...] = ()
    banned: tuple[int, ...] = ()
    top_logprobs: int | None = None

    @property
    def edits_logits(self) -> bool:
        penalised = self.generated and (
            self.repetition_penalty != 1.0
            or self.presence_penalty != 0.0
            or self.frequency_penalty != 0.0
        )
        return bool(penalised or self.logit_bias or self.banned)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledToken:
    token_id: int
    logprob: TokenLogprob | None


def sample(logits: Tensor, rows: Sequence[SamplingRow]) -> list[SampledToken | None]:
    """One token per row of `logits` (rows, vocab) float32; None where the row is not finite."""
    maxima, argmaxima = logits.max(dim=-1)
    finite = maxima.isfinite().tolist()
    greedy = argmaxima.tolist()
    return [
        _sample_row(logits[index], row, greedy[index]) if finite[index] else None
        for index, row in enumerate(rows)
    ]


def _sample_row(raw: Tensor, row: SamplingRow, raw_argmax: int) -> SampledToken:
    edited = _edit(raw, row) if row.edits_logits else raw
    if row.temperature > 0:
        # The largest is made zero first: a tiny temperature must not overflow.
        token_id = _draw(_filter((edited - edited.max()) / row.temperature, row), row)
    else:
        token_id = int(edited.argmax()) if row.edits_logits else raw_argmax
    if (count := row.top_logprobs) is None:
        return SampledToken(token_id=token_id, logprob=None)
    chosen = torch.tensor([token_id], device=raw.device)
    logprob = top_logprobs(raw.unsqueeze(0), chosen, count).of_row(0, token_id, count)
    return SampledToken(token_id=token_id, logprob=logprob)


def _edit(logits: Tensor, row: SamplingRow) -> Tensor:
    logits = logits.clone()
    if row.generated:
        ids = torch.tensor(list(row.generated), device=logits.device)
        counts = torch.tensor(list(row.generated.values()), device=logits.device)
        seen = logits[ids]
        seen = torch.where(seen > 0, seen / row.repetition_penalty, seen * row.repetition_penalty)
        logits[ids] = seen - row.presence_penalty - row.frequency_penalty * counts
    vocabulary = range(logits.numel())
    for token_id, bias in row.logit_bias:
        if token_id in vocabulary:
            logits[token_id] += bias
    if banned := [token_id for token_id in row.banned if token_id in vocabulary]:
        logits[banned] = -torch.inf
    return logits


def _filter(logits: Tensor, row: SamplingRow) -> Tensor:
    """Probabilities with everything that top_k, top_p and min_p drop set to zero."""
    if 0 < row.top_k < logits.numel():
        threshold = logits.topk(row.top_k).values[-1]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    probabilities = logits.softmax(dim=-1)
    if row.top_p < 1:
        smallest = _nucleus_threshold(probabilities, row.top_p)
        probabilities = probabilities.masked_fill(probabilities < smallest, 0)
    if row.min_p > 0:
        smallest = row.min_p * probabilities.max()
        probabilities = probabilities.masked_fill(probabilities < smallest, 0)
    return probabilities


def _nucleus_threshold(probabilities: Tensor, top_p: float) -> Tensor:
    """The smallest probability inside the nucleus, without sorting the row where few suffice."""
    for size in (min(_NUCLEUS_GUESS, probabilities.numel()), probabilities.numel()):
        largest = probabilities.topk(size).values
        reached = largest.cumsum(0, dtype=torch.float64) >= top_p
        if bool(reached.any()):
            return largest[int(reached.int().argmax())]
    return largest[-1]


def _draw(probabilities: Tensor, row: SamplingRow) -> int:
    cumulative = probabilities.cumsum(0, dtype=torch.float64)
    target = uniform(seed=row.seed, position=row.position, sample=row.sample) * cumulative[-1]
    token_id = int(torch.searchsorted(cumulative, target, right=True))
    # Rounding may carry u * sum up to the sum itself; the last token with any mass is meant.
    return min(token_id, int(probabilities.nonzero()[-1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class TopLogprobs:
    """Of rows of logits: the chosen token's log-probability, and those of the likeliest tokens."""

    chosen: Tensor  # (rows,)
    ids: Tensor  # (rows, n)
    values: Tensor  # (rows, n)

    def of_row(self, row: int, token_id: int, count: int) -> TokenLogprob:
        pairs = zip(self.ids[row, :count].tolist(), self.values[row, :count].tolist(), strict=True)
        return TokenLogprob(token_id=token_id, logprob=float(self.chosen[row]), top=tuple(pairs))


def top_logprobs(logits: Tensor, chosen: Tensor, num_top: int) -> TopLogprobs:
    """`chosen` is a token of each row; the likeliest come first."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    normaliser = wide.logsumexp(dim=-1, keepdim=True)
    top = wide.topk(min(num_top, wide.shape[1]))
    return TopLogprobs(
        chosen=(wide.gather(1, chosen.unsqueeze(1)) - normaliser).squeeze(1),
        ids=top.indices,
        values=top.values - normaliser,
    )
