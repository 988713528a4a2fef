"""Whether a new model is good enough to be published, by the caller's limits or the usual ones.

Free of torch. A figure that is not a number is never good enough.
"""

from ixc_runtime.errors import QualityTooLow
from ixc_runtime.jobs.messages import MergeWork, QuantizeWork
from ixc_runtime.weights import Agreement, AgreementFigures, Drift, QualityFigures
from ixc_runtime.weights.figures import AGREEMENT_LIMITS, MIN_TOP1_AGREEMENT


def require_agreement(figures: AgreementFigures, work: MergeWork) -> None:
    """Raises QualityTooLow, naming the first limit that does not hold."""
    most = work.max_relative_difference
    most = AGREEMENT_LIMITS[figures.dtype] if most is None else most
    least = MIN_TOP1_AGREEMENT if work.min_top1_agreement is None else work.min_top1_agreement
    for on, part in _agreements(figures):
        _at_most("max_relative_difference", on, part.relative_difference, most)
        _at_least("min_top1_agreement", on, part.top1_agreement, least)


def require_quality(figures: QualityFigures, work: QuantizeWork) -> None:
    """Raises QualityTooLow, naming the first limit that does not hold."""
    for on, part in _drifts(figures):
        _at_most("max_perplexity_ratio", on, part.perplexity_ratio, work.max_perplexity_ratio)
        _at_most("max_mean_kl", on, part.mean_kl, work.max_mean_kl)
        _at_least("min_top1_agreement", on, part.top1_agreement, work.min_top1_agreement)


def agreement_texts(figures: AgreementFigures) -> list[str]:
    return [
        f"{on}: logits within {part.relative_difference:.2g} of the largest, "
        f"top-1 equal on {part.top1_agreement:.2%}"
        for on, part in _agreements(figures)
    ]


def quality_texts(figures: QualityFigures) -> list[str]:
    return [
        f"{on}: perplexity {part.source_perplexity:.4g} became {part.candidate_perplexity:.4g} "
        f"(x{part.perplexity_ratio:.3f}), mean KL {part.mean_kl:.3g}, "
        f"top-1 equal on {part.top1_agreement:.1%}"
        for on, part in _drifts(figures)
    ]


def _agreements(figures: AgreementFigures) -> list[tuple[str, Agreement]]:
    parts = (("text", figures.text), ("image", figures.image))
    return [(on, part) for on, part in parts if part is not None]


def _drifts(figures: QualityFigures) -> list[tuple[str, Drift]]:
    parts = (("text", figures.text), ("image", figures.image))
    return [(on, part) for on, part in parts if part is not None]


def _at_most(figure: str, on: str, value: float, limit: float) -> None:
    if not value <= limit:
        raise _too_low(figure, on, value, limit)


def _at_least(figure: str, on: str, value: float, limit: float) -> None:
    if not value >= limit:
        raise _too_low(figure, on, value, limit)


def _too_low(figure: str, on: str, value: float, limit: float) -> QualityTooLow:
    return QualityTooLow(
        f"{figure} on {on}s is {value:.4g}, the limit is {limit:.4g}; nothing was published",
        figure=figure,
        on=on,
        value=f"{value:.6g}",
        limit=f"{limit:.6g}",
    )
