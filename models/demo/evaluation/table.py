"""The report for people: the table, and the failures one by one."""

from collections import Counter
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from models.demo.evaluation.case import RIGHT
from models.demo.evaluation.comparison import Change, Comparison
from models.demo.evaluation.intervals import wilson
from models.demo.evaluation.report import Failure, Report, Row

_VERDICTS = {True: "[green]yes[/]", False: "[bold red]no[/]", None: ""}


def table(report: Report) -> RenderableType:
    """A line for each property of each task, and below it what happened beside."""
    subject = report.subject
    title = f"{subject.display_name} · {subject.dtype}"
    if subject.quantization:
        title += f" · {subject.quantization}"
    if report.is_shuffled:
        title += " · pictures exchanged"
    lines = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD)
    lines.add_column("task", no_wrap=True)
    for heading in ("cases", "right", "rate", "95 % interval"):
        lines.add_column(heading, justify="right", no_wrap=True)
    headings = ("chance", "at chance") if report.is_shuffled else ("target", "met")
    for heading in (*headings, "errors", "s/case"):
        lines.add_column(heading, justify="right", no_wrap=True)
    for row in report.rows:
        lines.add_row(*_cells(row, is_shuffled=report.is_shuffled))
    foot = (
        f"weights {subject.weights_digest[:12]} · adapter {report.adapter or 'each task’s own'} · "
        f"seed {report.seed} · server {subject.server_version}"
    )
    return Group(lines, Text(foot, style="dim"), *_errors(report.errors))


def comparison_table(comparison: Comparison, title: str) -> Table:
    """A line for each task, case by case, and one for all of them."""
    lines = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD)
    lines.add_column("task", no_wrap=True)
    for heading in ("cases", "before", "now", "lost", "gained", "drop", "95 % interval"):
        lines.add_column(heading, justify="right", no_wrap=True)
    for change in comparison.tasks:
        lines.add_row(*_change_cells(change))
    lines.add_section()
    lines.add_row(*_change_cells(comparison.overall), style="bold")
    return lines


def _change_cells(change: Change) -> Sequence[str]:
    before, after = change.rates
    low, high = change.interval
    return (
        change.task,
        str(change.cases),
        _percent(before),
        _percent(after),
        str(change.lost),
        str(change.gained),
        f"{change.drop:+.1f}",
        f"{low:+.1f} to {high:+.1f}",
    )


def is_at_chance(row: Row) -> bool | None:
    """Whether what was found with exchanged pictures may be luck; less than luck is no skill.

    One row in two hundred is called skilled by mistake; with the interval of the table it would be
    one in forty, too often for a table of ten.
    """
    if row.chance is None or row.rate is None:
        return None
    return wilson(row.rate, row.cases, confidence=0.99)[0] <= row.chance


def show_failures(console: Console, report: Report, most: int) -> None:
    """Of every task the first few, whatever is wrong with them."""
    shown: Counter[str] = Counter()
    for failure in report.failures:
        shown[failure.task] += 1
        if shown[failure.task] <= most:
            console.print(_failure(failure), soft_wrap=True)
    for task, count in shown.items():
        if count > most:
            console.print(f"[dim]{task}: {count - most} more[/]")


def _cells(row: Row, *, is_shuffled: bool) -> Sequence[str]:
    name = row.task if row.name == RIGHT else f"{row.task}: {row.name}"
    low, high = row.interval
    if is_shuffled:
        judged = (_percent(row.chance), _VERDICTS[is_at_chance(row)])
    else:
        judged = (_percent(row.target, places=0), _VERDICTS[row.is_met])
    return (
        name,
        str(row.cases),
        f"{row.right} of {row.answers}",
        _percent(row.rate),
        f"{100 * low:.1f} to {100 * high:.1f} %" if row.answers else "",
        *judged,
        f"[bold red]{row.errors}[/]" if row.errors else "",
        f"{row.seconds / max(1, row.cases + row.errors):.2f}" if row.seconds else "",
    )


def _percent(rate: float | None, places: int = 1) -> str:
    return "" if rate is None else f"{100 * rate:.{places}f} %"


def _errors(errors: Sequence[Failure]) -> list[Text]:
    """Each message once; they tend to come in numbers."""
    counts = Counter((error.task, error.error) for error in errors)
    return [
        Text(f"{task}: {count} not answered: {message}", style="bold red")
        for (task, message), count in counts.items()
    ]


def _failure(failure: Failure) -> Text:
    where = f"{failure.task} {failure.seed}"
    if failure.shown_seed != failure.seed:
        where += f", shown {failure.shown_seed}"
    text = Text.assemble(
        (where, "bold"),
        (f"\n  asked    {failure.question}"),
        (f"\n  expected {failure.expected}"),
    )
    if failure.error:
        return text.append(f"\n  error    {failure.error}", style="red")
    if failure.lacks != (RIGHT,):
        text.append(f"\n  lacks    {', '.join(failure.lacks)}")
    return text.append("\n  answer   " + failure.answer.strip().replace("\n", "\n           "))
