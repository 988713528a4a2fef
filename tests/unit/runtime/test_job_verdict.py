"""What is good enough to be published: limits hold on texts and pictures alike; NaN never is."""

import math
from dataclasses import replace

import msgspec
import pytest

from ixc_runtime.errors import QualityTooLow
from ixc_runtime.jobs.messages import MergeWork, QuantizeWork
from ixc_runtime.jobs.verdict import require_agreement, require_quality
from ixc_runtime.weights import Agreement, AgreementFigures, Drift, QualityFigures

SAME = Agreement(positions=100, max_difference=0.0, scale=1.0, top1_agreement=1.0)
NEAR = Drift(
    positions=100,
    source_perplexity=10.0,
    candidate_perplexity=10.2,
    mean_kl=0.01,
    max_kl=0.5,
    top1_agreement=0.95,
)


@pytest.mark.parametrize(
    ("dtype", "difference", "is_enough"),
    [
        ("float32", 0.9e-4, True),
        ("float32", 1.1e-4, False),
        ("float16", 1.9e-2, True),
        ("float16", 2.1e-2, False),
        ("bfloat16", 4.9e-2, True),
        ("bfloat16", 5.1e-2, False),
        ("bfloat16", math.nan, False),
    ],
)
def test_how_closely_a_merged_model_must_agree(
    dtype: str, difference: float, is_enough: bool
) -> None:
    """As one rounding of its weights costs, by the numbers they are stored in."""
    part = replace(SAME, max_difference=difference)
    for figures in (
        AgreementFigures(dtype=dtype, text=part, image=None),
        AgreementFigures(dtype=dtype, text=SAME, image=part),
    ):
        if is_enough:
            require_agreement(figures, MergeWork(task="web"))
            continue
        with pytest.raises(QualityTooLow) as raised:
            require_agreement(figures, MergeWork(task="web"))
        assert raised.value.metadata["figure"] == "max_relative_difference"
        assert raised.value.metadata["on"] == ("image" if figures.image else "text")


def test_the_callers_own_limits() -> None:
    """Take the place of the usual ones, zero too."""
    loose = AgreementFigures(
        dtype="float32", text=replace(SAME, max_difference=0.5, top1_agreement=0.3), image=None
    )
    with pytest.raises(QualityTooLow):
        require_agreement(loose, MergeWork(task="web", max_relative_difference=0.5))
    work = MergeWork(task="web", max_relative_difference=0.5, min_top1_agreement=0.0)
    require_agreement(loose, work)


@pytest.mark.parametrize(
    ("figure", "changed"),
    [
        ("max_perplexity_ratio", {"candidate_perplexity": 11.0}),
        ("max_perplexity_ratio", {"candidate_perplexity": math.nan}),
        ("max_mean_kl", {"mean_kl": 0.3}),
        ("max_mean_kl", {"mean_kl": math.nan}),
        ("min_top1_agreement", {"top1_agreement": 0.7}),
    ],
)
def test_what_rounding_may_cost(figure: str, changed: dict[str, float]) -> None:
    """Each limit by itself, with its value; a caller may loosen it."""
    bad = replace(NEAR, **changed)
    require_quality(QualityFigures(text=NEAR, image=NEAR), QuantizeWork())
    for figures in (QualityFigures(text=bad, image=NEAR), QualityFigures(text=NEAR, image=bad)):
        with pytest.raises(QualityTooLow) as raised:
            require_quality(figures, QuantizeWork())
        assert raised.value.metadata["figure"] == figure
    if not math.isnan(sum(changed.values())):
        loose = 0.0 if figure.startswith("min") else 10.0
        work = msgspec.structs.replace(QuantizeWork(), **{figure: loose})
        require_quality(QualityFigures(text=bad, image=bad), work)


def test_a_refusal_names_every_limit() -> None:
    """With its figure: a second try must not fail at the next one. The metadata have the first."""
    bad = replace(NEAR, candidate_perplexity=12.0, top1_agreement=0.7)
    with pytest.raises(QualityTooLow) as raised:
        require_quality(QualityFigures(text=NEAR, image=bad), QuantizeWork())
    assert raised.value.message == (
        "max_perplexity_ratio on images is 1.2, the limit is 1.05; min_top1_agreement on images is "
        "0.7, the limit is 0.8. Nothing was published; looser thresholds would accept it"
    )
    assert raised.value.metadata == {
        "figure": "max_perplexity_ratio",
        "on": "image",
        "value": "1.2",
        "limit": "1.05",
    }
