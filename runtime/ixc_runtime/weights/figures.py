"""What merging, quantising and measuring have to say for themselves. Free of torch.

Plain numbers, fit for a manifest by `dataclasses.asdict`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

# How far logits of merged weights may be from those of run-time adapters, by the dtype the merged
# weights are stored in, relative to the largest logit: what one rounding of every weight costs.
AGREEMENT_LIMITS: Mapping[str, float] = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 5e-2}
MIN_TOP1_AGREEMENT = 0.995

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSummary:
    """`merged` is what went in: web, write, or an adapter's name."""

    merged: str
    dtype: str
    num_tensors: int
    num_merged: int
    num_bytes: int
    num_shards: int
    num_resumed_shards: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeSummary:
    """`relative_error` is the linears' mean output error, relative to their outputs' size.

    None where nothing was measured: plain rounding, or all layers finished by an earlier run.
    """

    method: str
    group_size: int
    dtype: str
    num_layers: int
    num_resumed_layers: int
    num_bytes: int
    source_bytes: int
    calibration_text_tokens: int
    calibration_image_tokens: int
    relative_error: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Logits of two models over the same positions. `scale` is the largest of the first's."""

    positions: int
    max_difference: float
    scale: float
    top1_agreement: float

    @property
    def relative_difference(self) -> float:
        return self.max_difference / self.scale


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementFigures:
    """Merged weights beside run-time adapters. `image` is None for a model without a tower."""

    dtype: str
    text: Agreement
    image: Agreement | None

    @property
    def parts(self) -> tuple[tuple[str, Agreement], ...]:
        """Each by what it is over."""
        return _present(("text", self.text), ("image", self.image))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A candidate's predictions beside its source's, over the same positions.

    KL is the divergence of the candidate from the source, in nats.
    """

    positions: int
    source_perplexity: float
    candidate_perplexity: float
    mean_kl: float
    max_kl: float
    top1_agreement: float

    @property
    def perplexity_ratio(self) -> float:
        return self.candidate_perplexity / self.source_perplexity


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityFigures:
    """`image` is over the words said about pictures; None for a model without a tower."""

    text: Drift
    image: Drift | None

    @property
    def parts(self) -> tuple[tuple[str, Drift], ...]:
        """Each by what it is over."""
        return _present(("text", self.text), ("image", self.image))


def _present(*parts: tuple[str, _Part | None]) -> tuple[tuple[str, _Part], ...]:
    return tuple((on, part) for on, part in parts if part is not None)
