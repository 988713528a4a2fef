"""One model beside another, case by case: what a change of the weights or the server has cost.

Both reports are of the same seeds, so every case has its own counterpart, and only those that were
lost or gained say anything. The judged property of a task is its own question's, or of written
pages and articles that they pass; follow-ups hang together with their pictures and are left out.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from models.demo.evaluation.case import FOLLOW_UP, RIGHT
from models.demo.evaluation.intervals import paired_drop
from models.demo.evaluation.report import Report, Row
from models.demo.evaluation.written import PASSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """`lost` were right and are wrong now, `gained` the other way round. Errors are no `cases`."""

    task: str
    cases: int
    right_before: int
    lost: int
    gained: int

    @property
    def drop(self) -> float:
        """In points, of a hundred; below 0 where more was gained than lost."""
        return 100 * (self.lost - self.gained) / self.cases if self.cases else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 %, in points: the drops that these cases speak for."""
        low, high = paired_drop(self.lost, self.gained, self.cases)
        return 100 * low, 100 * high

    @property
    def rates(self) -> tuple[float, float]:
        """Before and after, in parts of one."""
        right_after = self.right_before - self.lost + self.gained
        cases = max(1, self.cases)
        return self.right_before / cases, right_after / cases

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"drop": self.drop, "interval": list(self.interval)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`overall` is over the cases of all tasks, each counting once."""

    tasks: tuple[Change, ...]
    overall: Change

    def to_json(self) -> dict[str, Any]:
        return {"overall": self.overall.to_json(), "tasks": [each.to_json() for each in self.tasks]}


def compare(before: Report, after: Report) -> Comparison:
    """Raises ValueError for reports that were not asked the same."""
    for name in ("seed", "is_shuffled"):
        if getattr(before, name) != getattr(after, name):
            raise ValueError(
                f"{name} was {getattr(before, name)} and is {getattr(after, name)}: "
                "the cases are not the same"
            )
    earlier = {row.task: row for row in before.rows if _is_judged(row)}
    tasks = [
        _change(earlier[row.task], row, before, after)
        for row in after.rows
        if _is_judged(row) and row.task in earlier
    ]
    if not tasks:
        raise ValueError("the reports have no task in common")
    return Comparison(tasks=tuple(tasks), overall=_sum(tasks))


def _is_judged(row: Row) -> bool:
    return row.name in (RIGHT, PASSED) and row.task != FOLLOW_UP


def _change(earlier: Row, later: Row, before: Report, after: Report) -> Change:
    asked = earlier.cases + earlier.errors
    if later.cases + later.errors != asked:
        raise ValueError(
            f"{asked} cases of {earlier.task} were asked, and now {later.cases + later.errors}"
        )
    wrong_before, wrong_after = (_wrong(report, earlier) for report in (before, after))
    errors = _errors(before, earlier.task) | _errors(after, earlier.task)
    cases = asked - len(errors)
    return Change(
        task=earlier.task,
        cases=cases,
        right_before=cases - len(wrong_before - errors),
        lost=len(wrong_after - wrong_before - errors),
        gained=len(wrong_before - wrong_after - errors),
    )


def _wrong(report: Report, row: Row) -> set[int]:
    """The seeds of cases that lack the property."""
    return {
        each.seed for each in report.failures if each.task == row.task and row.name in each.lacks
    }


def _errors(report: Report, task: str) -> set[int]:
    return {each.seed for each in report.errors if each.task == task}


def _sum(tasks: Iterable[Change]) -> Change:
    tasks = tuple(tasks)
    return Change(
        task="overall",
        cases=sum(each.cases for each in tasks),
        right_before=sum(each.right_before for each in tasks),
        lost=sum(each.lost for each in tasks),
        gained=sum(each.gained for each in tasks),
    )
