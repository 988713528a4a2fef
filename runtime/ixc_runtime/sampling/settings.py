"""Sampling settings: their ranges, and the effective values of one request.

One table of ranges, used for requests and for the defaults of a model alike. Knows no tensors.
"""

import math
from dataclasses import dataclass, fields, replace

from ixc_runtime.errors import FieldInvalid
from ixc_runtime.request import SamplingParams

MAX_SEED = 2**64 - 1
# Biases and bans of one request, all together: a device's sampler has room for so many a sequence.
MOST_EDITS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Allowed values; `low_open` leaves the lower bound itself out."""

    low: float
    high: float
    low_open: bool = False

    def holds(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        return math.isfinite(value) and above and value <= self.high

    def __str__(self) -> str:
        return f"{'(' if self.low_open else '['}{self.low:g}, {self.high:g}]"


RANGES: dict[str, Range] = {
    "temperature": Range(low=0, high=100),
    "top_p": Range(low=0, high=1, low_open=True),
    "top_k": Range(low=0, high=2**31 - 1),
    "min_p": Range(low=0, high=1),
    "repetition_penalty": Range(low=0.01, high=100),
    "presence_penalty": Range(low=-100, high=100),
    "frequency_penalty": Range(low=-100, high=100),
    "seed": Range(low=0, high=MAX_SEED),
    "max_output_tokens": Range(low=0, high=2**31 - 1),
    "min_output_tokens": Range(low=0, high=2**31 - 1),
}
BIAS_RANGE = Range(low=-100, high=100)

NEUTRAL = SamplingParams(
    temperature=1.0,
    top_p=1.0,
    top_k=0,
    min_p=0.0,
    repetition_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    max_output_tokens=0,
    min_output_tokens=0,
    ignore_eos=False,
)


def violations(sampling: SamplingParams, *, vocab_size: int) -> list[FieldInvalid]:
    """Everything that is wrong with these settings, each naming its field, value and limit."""
    found = []
    for name, allowed in RANGES.items():
        value = getattr(sampling, name)
        if value is not None and not allowed.holds(value):
            found.append(FieldInvalid(f"sampling.{name}", f"{name} is {value}, allowed: {allowed}"))
    for token_id, bias in sampling.logit_bias:
        if not 0 <= token_id < vocab_size:
            found.append(_beyond_vocabulary("sampling.logit_bias", token_id, vocab_size))
        if not BIAS_RANGE.holds(bias):
            message = f"the bias of token {token_id} is {bias}, allowed: {BIAS_RANGE}"
            found.append(FieldInvalid("sampling.logit_bias", message))
    found.extend(
        _beyond_vocabulary("sampling.stop_token_ids", token_id, vocab_size)
        for token_id in sampling.stop_token_ids
        if not 0 <= token_id < vocab_size
    )
    found.extend(
        FieldInvalid(f"sampling.{name}", f"{name} holds an empty string")
        for name in ("stop_sequences", "bad_words")
        if "" in getattr(sampling, name)
    )
    low, high = sampling.min_output_tokens, sampling.max_output_tokens
    if low is not None and high and low > high:
        message = f"min_output_tokens is {low}, more than max_output_tokens, {high}"
        found.append(FieldInvalid("sampling.min_output_tokens", message))
    return found


def _beyond_vocabulary(field: str, token_id: int, vocab_size: int) -> FieldInvalid:
    return FieldInvalid(field, f"token id {token_id} is beyond the vocabulary of {vocab_size}")


def merged(*layers: SamplingParams) -> SamplingParams:
    """Settings from several layers, the first that says something about a field wins.

    Usually (request, session, model, NEUTRAL). An empty tuple says nothing, like None.
    """
    result = layers[-1]
    for layer in reversed(layers[:-1]):
        said = {
            field.name: value
            for field in fields(layer)
            if (value := getattr(layer, field.name)) is not None and value != ()
        }
        result = replace(result, **said)
    return result
