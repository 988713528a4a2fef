"""What the measurement of quantised tasks asks, finds wanting, shows and writes down."""

import argparse
import io
import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ixc_runtime.weights import Drift, QualityFigures, QuantizeSummary
from models.demo.evaluation import Comparison, Report, compare
from models.demo.evaluation.case import RIGHT
from tests.bench import quantised_tasks as bench
from tests.unit.models.test_evaluation_comparison import report

NEAR = Drift(
    positions=10,
    source_perplexity=8.0,
    candidate_perplexity=8.4,
    mean_kl=0.05,
    max_kl=1.0,
    top1_agreement=0.9,
)
FAR = replace(NEAR, mean_kl=0.2)
SUMMARY = QuantizeSummary(
    method="awq",
    group_size=64,
    dtype="float16",
    num_layers=2,
    num_resumed_layers=0,
    num_bytes=1,
    source_bytes=4,
    calibration_text_tokens=1,
    calibration_image_tokens=1,
    relative_error=0.1,
)


def made(searched: QualityFigures) -> dict[str, bench.Made]:
    plain = QualityFigures(text=FAR, image=FAR)
    return {
        name: bench.Made(folder=Path(name), seconds=1.0, summary=SUMMARY, quality=quality)
        for name, quality in (
            (bench.AWQ, searched),
            (bench.PLAIN, plain),
            (bench.UNCOMPENSATED, plain),
        )
    }


def found(lost: int) -> tuple[dict[str, Report], dict[str, Comparison]]:
    reports = {
        bench.SOURCE: report(()),
        bench.AWQ: report(range(lost)),
        bench.PLAIN: report({1}),
        bench.UNCOMPENSATED: report(range(10)),
    }
    names = (bench.AWQ, bench.PLAIN, bench.UNCOMPENSATED)
    return reports, {name: compare(reports[bench.SOURCE], reports[name]) for name in names}


def test_what_is_found_wanting() -> None:
    """A drop beyond the limit, and a drift no smaller than rounding's on texts or on pictures."""
    good = made(QualityFigures(text=NEAR, image=NEAR))
    _, comparisons = found(lost=0)
    assert bench.found_wanting(good, comparisons) == ()
    (fault,) = bench.found_wanting(good, found(lost=1)[1])
    assert fault == "AWQ drops by 5.0 points over all tasks; 3 is the limit"
    for quality in (QualityFigures(text=FAR, image=NEAR), QualityFigures(text=NEAR, image=FAR)):
        (fault,) = bench.found_wanting(made(quality), comparisons)
        assert "drifts no less than rounding" in fault


def test_what_is_shown_and_written(tmp_path: Path) -> None:
    """Drift, rates and drops of all models; the file has the reports whole."""
    models = made(QualityFigures(text=NEAR, image=None))
    reports, comparisons = found(lost=1)
    printed = io.StringIO()
    console = Console(file=printed, width=120)
    console.print(bench.table(made(QualityFigures(text=NEAR, image=NEAR)), reports, comparisons))
    for text in ("x1.050", "0.2000", "colour", "+50.0", "at most 3", "100.0 %", "50.0 %"):
        assert text in printed.getvalue()
    args = argparse.Namespace(output=tmp_path / "results" / "q.json", count=20)
    bench.write(args, models, reports, comparisons, ("a fault",), seconds=1.0)
    document = json.loads(args.output.read_text())
    assert document["comparisons"][bench.UNCOMPENSATED]["overall"]["drop"] == 50
    assert Report.from_json(document["reports"][bench.AWQ]) == reports[bench.AWQ]
    assert document["quantised"][bench.AWQ]["quality"]["image"] is None


def test_a_case_is_asked_its_own_question() -> None:
    """And those before it; what follows is about the same picture, and makes no pair."""
    for task in bench.own_questions(("colour", "compare"), 3):
        assert set(task.targets) == {RIGHT}
        for seed in task.seeds_of(0):
            judged = [each.judge is not None for each in task.make(seed).questions]
            assert judged.count(True) == 1 and judged[-1]
