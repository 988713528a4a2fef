"""One bar on standard error for long work, whoever does it; plain lines where nobody watches."""

import importlib.util
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

LINE_SECONDS = 30.0  # between lines of one stage, where there is no bar


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How far the work is. `stage_index` counts from 1, `eta` is in seconds where known."""

    stage: str
    stage_index: int
    stage_count: int
    fraction: float
    item: str
    eta: float | None


class WorkBar(Protocol):
    def step(self, step: Step) -> None: ...

    def say(self, text: str) -> None:
        """A line that stays."""
        ...


@contextmanager
def work_bar(title: str) -> Iterator[WorkBar]:
    if not sys.stderr.isatty() or importlib.util.find_spec("rich") is None:
        yield _Lines(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[eta]}", markup=False),
        TextColumn("{task.fields[item]}", style="dim", markup=False),
    )
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as progress:
        task = progress.add_task(title, total=1.0, eta="", item="")

        class Bar:
            def step(self, step: Step) -> None:
                progress.update(
                    task,
                    description=f"{title}: {step.stage} ({step.stage_index}/{step.stage_count})",
                    completed=step.fraction,
                    eta="" if step.eta is None else f"{seconds_text(step.eta)} left",
                    item=step.item,
                )

            def say(self, text: str) -> None:
                progress.console.print(text, markup=False, highlight=False)

        yield Bar()


class _Lines:
    """A line for each stage, and one now and then in a long one: what a log can hold."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._stage = ""
        self._told = 0.0

    def step(self, step: Step) -> None:
        now = time.monotonic()
        if step.stage != self._stage:
            self._stage = step.stage
            self.say(f"{step.stage} ({step.stage_index}/{step.stage_count})")
        elif now - self._told >= LINE_SECONDS:
            left = "" if step.eta is None else f", {seconds_text(step.eta)} left"
            self.say(f"{step.fraction:.0%}, {step.item}{left}")
        else:
            return
        self._told = now

    def say(self, text: str) -> None:
        print(f"{self._title}: {text}", file=sys.stderr)


def seconds_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
    )


def size_text(num_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"
