"""Whether a new model is good enough to be published, by the caller's limits or the usual ones.

Free of torch. A figure that is not a number is never good enough.
"""

from collections.abc import Iterable
from typing import NamedTuple

from ixc_runtime.errors import QualityTooLow
from ixc_runtime.jobs.messages import MergeWork, QuantizeWork
from ixc_runtime.weights import AgreementFigures, QualityFigures
from ixc_runtime.weights.figures import AGREEMENT_LIMITS, MIN_TOP1_AGREEMENT


def require_agreement(figures: AgreementFigures, work: MergeWork) -> None:
    """Raises QualityTooLow with every limit that does not hold; its metadata have the first."""
    most = work.max_relative_difference
    most = AGREEMENT_LIMITS[figures.dtype] if most is None else most
    least = MIN_TOP1_AGREEMENT if work.min_top1_agreement is None else work.min_top1_agreement
    _require(
        bound
        for on, part in figures.parts
        for bound in (
            _Bound("max_relative_difference", on, part.relative_difference, most),
            _Bound("min_top1_agreement", on, part.top1_agreement, least),
        )
    )


def require_quality(figures: QualityFigures, work: QuantizeWork) -> None:
    """As `require_agreement`."""
    _require(
        bound
        for on, part in figures.parts
        for bound in (
            _Bound("max_perplexity_ratio", on, part.perplexity_ratio, work.max_perplexity_ratio),
            _Bound("max_mean_kl", on, part.mean_kl, work.max_mean_kl),
            _Bound("min_top1_agreement", on, part.top1_agreement, work.min_top1_agreement),
        )
    )


def agreement_texts(figures: AgreementFigures) -> list[str]:
    return [
        f"{on}: logits within {part.relative_difference:.2g} of the largest, "
        f"top-1 equal on {part.top1_agreement:.2%}"
        for on, part in figures.parts
    ]


def quality_texts(figures: QualityFigures) -> list[str]:
    return [
        f"{on}: perplexity {part.source_perplexity:.4g} became {part.candidate_perplexity:.4g} "
        f"(x{part.perplexity_ratio:.3f}), mean KL {part.mean_kl:.3g}, "
        f"top-1 equal on {part.top1_agreement:.1%}"
        for on, part in figures.parts
    ]


class _Bound(NamedTuple):
    """A figure beside its limit, which is the least or the most as its name says."""

    figure: str
    on: str
    value: float
    limit: float

    @property
    def holds(self) -> bool:
        is_least = self.figure.startswith("min_")
        return self.value >= self.limit if is_least else self.value <= self.limit


def _require(bounds: Iterable[_Bound]) -> None:
    """All at once: each try at looser limits takes as long as the first."""
    broken = [bound for bound in bounds if not bound.holds]
    if not broken:
        return
    texts = [
        f"{each.figure} on {each.on}s is {each.value:.4g}, the limit is {each.limit:.4g}"
        for each in broken
    ]
    first = broken[0]
    raise QualityTooLow(
        f"{'; '.join(texts)}. Nothing was published; looser thresholds would accept it",
        figure=first.figure,
        on=first.on,
        value=f"{first.value:.6g}",
        limit=f"{first.limit:.6g}",
    )
