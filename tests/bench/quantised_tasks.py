"""What four bits cost the demo model: drift on held-out samples, and its tasks, case by case.

    python -m tests.bench.quantised_tasks [--count N] [--servers N] [--device cuda] [--output FILE]

Quantises the model by the product's own code in three ways: AWQ as it is shipped; rounding to the
nearest level; and AWQ whose adapters are not compensated, which exists to be measured here. Each
is held against its source by `weights.quality`, then source and all three are served by real
servers and asked the same drawn cases, each for its task's own question.

The drop of a task is counted over pairs, for the cases are the same: what was lost less what was
gained, in points, with the paired interval of `models.demo.evaluation.intervals`. Exit status 1
where AWQ drops by more than 3 points over all tasks, or drifts no less than plain rounding.

`--servers N` is how many answer at a time: all four models side by side where N is 4 or more, each
with its share of them and of the cores; one model after the other where N is 1.
"""

import argparse
import asyncio
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ixc_runtime.weights import (
    Drift,
    ProbeSettings,
    QualityFigures,
    QuantizeMethod,
    QuantizeSettings,
    QuantizeSummary,
)
from models.demo.drawing import JUDGED_TASKS
from models.demo.evaluation import Comparison, Report, Task, compare, drawn_tasks, evaluate
from models.demo.evaluation.beforehand import drawn_beforehand
from models.demo.evaluation.case import RIGHT, Case
from models.demo.evaluation.drawn import DRAWN, drawn_case
from models.demo.evaluation.servers import num_cores, private_servers, threads_of_each
from tests.bench.record import RESULTS, origin

SOURCE, AWQ, PLAIN, UNCOMPENSATED = "source", "AWQ", "rounding", "uncompensated"
MOST_DROP = 3.0  # points, over all tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A quantised model, and how far it is from its source."""

    folder: Path
    seconds: float
    summary: QuantizeSummary
    quality: QualityFigures


def main() -> int:
    args = arguments().parse_args()
    began = time.perf_counter()
    source = args.model or built()
    with tempfile.TemporaryDirectory(prefix="ixc-quantised-") as scratch:
        made = all_made(source, Path(scratch), args)
        write(args, made, {})
        tasks = drawn_beforehand(
            own_questions(args.tasks, args.count), args.seed, processes=min(num_cores(), 16)
        )
        say(f"drawn after {time.perf_counter() - began:.0f} s")
        folders = {SOURCE: source, **{name: each.folder for name, each in made.items()}}
        evaluation = all_evaluated(folders, tasks, args, partial(write, args, made))
        reports = asyncio.run(evaluation)
    comparisons = {name: compare(reports[SOURCE], reports[name]) for name in made}
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(table(made, reports, comparisons))
    faults = found_wanting(made, comparisons)
    for fault in faults:
        console.print(fault, style="bold red")
    write(args, made, reports, comparisons, faults, seconds=time.perf_counter() - began)
    return 1 if faults or any(report.errors for report in reports.values()) else 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--model", type=Path, help="its folder; default: the demo model, built")
    parser.add_argument("--tasks", nargs="+", choices=DRAWN, default=JUDGED_TASKS, metavar="TASK")
    parser.add_argument("--count", type=int, default=100, help="cases of each task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--servers", type=int, default=1, help="that answer at a time, of all")
    parser.add_argument("--concurrency", type=int, default=8, help="cases at a time, of each")
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--device", default="cpu", help="to quantise on; servers use the CPU")
    parser.add_argument("--output", type=Path, default=RESULTS / "quantised_tasks.json")
    return parser


def built() -> Path:
    from ixc_cli.demo_model import build

    return build()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- the models


def all_made(source: Path, scratch: Path, args: argparse.Namespace) -> dict[str, Made]:
    """In processes of their own, side by side where there are cores for it."""
    plain = QuantizeSettings(group_size=args.group_size, device=args.device)
    wanted = {
        AWQ: plain,
        UNCOMPENSATED: replace(plain, compensate_adapters=False),
        PLAIN: replace(plain, method=QuantizeMethod.RTN),
    }
    at_once = len(wanted) if num_cores() >= 4 * len(wanted) else 1
    threads = max(1, num_cores() // at_once)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_once, mp_context=context) as pool:
        begun = {
            name: pool.submit(make, source, scratch / name, settings, threads)
            for name, settings in wanted.items()
        }
        made = {}
        for name, future in begun.items():
            made[name] = future.result()
            say(f"{name}: quantised and measured in {made[name].seconds:.0f} s")
    return {name: made[name] for name in (AWQ, PLAIN, UNCOMPENSATED)}


def make(source: Path, folder: Path, settings: QuantizeSettings, threads: int) -> Made:
    import torch

    from ixc_runtime.weights.awq import quantize
    from ixc_runtime.weights.quality import measure_quality
    from tests.fakes.weights_work import FolderOutput, Notes

    torch.set_num_threads(threads)
    began = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    summary = quantize(source, FolderOutput(folder), settings, Notes())
    probes = ProbeSettings(device=settings.device)
    quality = measure_quality(source, folder, probes, Notes())
    seconds = time.perf_counter() - began
    return Made(folder=folder, seconds=seconds, summary=summary, quality=quality)


# ---- the tasks


def own_questions(names: Sequence[str], count: int) -> list[Task]:
    """The tasks without the questions that follow a case's own: those are no pairs."""
    return [
        replace(task, make=partial(own_question, task.name), targets={RIGHT: task.targets[RIGHT]})
        for task in drawn_tasks(count, names=names)
    ]


def own_question(task: str, seed: int) -> Case:
    case = drawn_case(task, seed)
    judged = [number for number, each in enumerate(case.questions) if each.judge is not None]
    return replace(case, questions=case.questions[: judged[0] + 1] if judged else ())


async def all_evaluated(
    folders: Mapping[str, Path],
    tasks: Sequence[Task],
    args: argparse.Namespace,
    keep: Callable[[Mapping[str, Report]], None],
) -> dict[str, Report]:
    """As many models at a time as there are servers for; `keep` hears of each that is done."""
    names = list(folders)
    at_once = min(len(names), args.servers)
    reports: dict[str, Report] = {}
    for first in range(0, len(names), at_once):
        round_ = names[first : first + at_once]
        found = await asyncio.gather(
            *(evaluated(name, folders[name], tasks, args, at_once) for name in round_)
        )
        reports |= dict(zip(round_, found, strict=True))
        keep(reports)
    return reports


async def evaluated(
    name: str, folder: Path, tasks: Sequence[Task], args: argparse.Namespace, at_once: int
) -> Report:
    threads = threads_of_each(args.servers)
    count = args.servers // at_once
    async with private_servers(str(folder), count, threads=threads) as (client, *beside):
        began = time.perf_counter()
        say(f"{name}: {count} of {args.servers} servers ready")
        report = await evaluate(
            client, tasks, beside=beside, seed=args.seed, concurrency=args.concurrency
        )
        say(f"{name}: asked in {time.perf_counter() - began:.0f} s")
        return report


# ---- what came of it


def found_wanting(
    made: Mapping[str, Made], comparisons: Mapping[str, Comparison]
) -> tuple[str, ...]:
    """What AWQ has to be, and is not."""
    faults = []
    if (drop := comparisons[AWQ].overall.drop) > MOST_DROP:
        faults.append(f"AWQ drops by {drop:.1f} points over all tasks; {MOST_DROP:g} is the limit")
    for on in ("text", "image"):
        searched, plain = (drift_on(made[name].quality, on) for name in (AWQ, PLAIN))
        if searched and plain and not searched.mean_kl < plain.mean_kl:
            faults.append(
                f"AWQ drifts no less than rounding on {on}s: "
                f"mean KL {searched.mean_kl:.4f} and {plain.mean_kl:.4f}"
            )
    return tuple(faults)


def drift_on(quality: QualityFigures, on: str) -> Drift | None:
    return quality.text if on == "text" else quality.image


def table(
    made: Mapping[str, Made],
    reports: Mapping[str, Report],
    comparisons: Mapping[str, Comparison],
) -> Table:
    title = f"4 bits, groups of {next(iter(made.values())).summary.group_size}"
    lines = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    lines.add_column("", no_wrap=True)
    for name in (SOURCE, *made):
        lines.add_column(name, justify="right", no_wrap=True)
    for on in ("text", "image"):
        drifts = [drift_on(each.quality, on) for each in made.values()]
        if (found := [drift for drift in drifts if drift is not None]) and found == drifts:
            own = f"{found[0].source_perplexity:.2f}"
            ratios = (f"x{drift.perplexity_ratio:.3f}" for drift in found)
            lines.add_row(f"perplexity, {on}", own, *ratios)
            lines.add_row(f"mean KL, {on}", "", *(f"{drift.mean_kl:.4f}" for drift in found))
            tops = (f"{100 * drift.top1_agreement:.1f} %" for drift in found)
            lines.add_row(f"same top-1, {on}", "", *tops)
    lines.add_section()
    for changes in zip(*(each.tasks for each in comparisons.values()), strict=True):
        task = changes[0].task
        lines.add_row(task, *(rate_text(report, task) for report in reports.values()))
        drops = (drop_text(each.drop, each.interval) for each in changes)
        lines.add_row("  drop, points", "", *drops, style="dim")
    lines.add_section()
    before = next(iter(comparisons.values())).overall
    after = (100 * each.overall.rates[1] for each in comparisons.values())
    overall = (f"{100 * before.rates[0]:.1f} %", *(f"{rate:.1f} %" for rate in after))
    lines.add_row("overall", *overall, style="bold")
    total = (drop_text(each.overall.drop, each.overall.interval) for each in comparisons.values())
    lines.add_row("  drop, points", f"at most {MOST_DROP:g}", *total, style="bold")
    return lines


def rate_text(report: Report, task: str) -> str:
    row = report.row(task)
    low, high = row.interval
    rate = (
        "" if row.rate is None else f"{100 * row.rate:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
    )
    return f"{rate}, {row.errors} errors" if row.errors else rate


def drop_text(drop: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{drop:+.1f} ({low:+.1f} to {high:+.1f})"


def write(
    args: argparse.Namespace,
    made: Mapping[str, Made],
    reports: Mapping[str, Report],
    comparisons: Mapping[str, Comparison] | None = None,
    faults: Sequence[str] = (),
    *,
    seconds: float | None = None,
) -> None:
    """As far as it has come: what is cut off later keeps what was found."""
    document: dict[str, Any] = origin() | {
        "settings": {name: str(value) for name, value in vars(args).items() if name != "output"},
        "seconds": seconds,
        "most_drop": MOST_DROP,
        "faults": list(faults),
        "quantised": {
            name: {
                "seconds": each.seconds,
                "summary": asdict(each.summary),
                "quality": asdict(each.quality),
            }
            for name, each in made.items()
        },
        "comparisons": {name: each.to_json() for name, each in (comparisons or {}).items()},
        "reports": {name: report.to_json() for name, report in reports.items()},
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    say(f"written to {args.output}")


if __name__ == "__main__":
    sys.exit(main())
