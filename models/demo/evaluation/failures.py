"""Failures as files to look at: what was shown, and beside it what was asked and answered."""

from collections.abc import Sequence
from pathlib import Path

from models.demo.evaluation.case import Task
from models.demo.evaluation.report import Failure, Report


def save_failures(folder: Path, report: Report, tasks: Sequence[Task]) -> int:
    """Draws the pictures anew, which their seeds suffice for. Returns how many there were."""
    folder.mkdir(parents=True, exist_ok=True)
    by_name = {task.name: task for task in tasks}
    # The names of files sort as the failures came.
    for number, failure in enumerate(report.failures):
        stem = f"{failure.task}-{number:04}"
        shown = by_name[failure.task].make(failure.shown_seed).shown
        for place, picture in enumerate(shown.pictures, start=1):
            (folder / f"{stem}-{place}.png").write_bytes(picture)
        if shown.clip is not None:
            (folder / f"{stem}.mp4").write_bytes(shown.clip)
        (folder / f"{stem}.txt").write_text(_text(failure), encoding="utf-8")
    return len(report.failures)


def _text(failure: Failure) -> str:
    lines = [
        f"seed      {failure.seed}, shown {failure.shown_seed}",
        f"asked     {failure.question}",
        f"expected  {failure.expected}",
        f"lacks     {', '.join(failure.lacks)}",
        f"error     {failure.error}",
        "answer",
        failure.answer,
    ]
    return "\n".join(lines) + "\n"
