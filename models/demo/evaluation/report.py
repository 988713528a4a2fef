"""What an evaluation found: rows for the table, failures to look at, and the file of both."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import ixc_client
from models.demo.evaluation.intervals import wilson

# Raised when a field changes its meaning, so that nobody compares what cannot be compared.
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What was evaluated, as the server names it."""

    model: str
    display_name: str
    weights_digest: str
    dtype: str
    quantization: str | None
    server_version: str

    @classmethod
    def of(cls, model: ixc_client.ModelInfo, server: ixc_client.ServerInfo) -> Self:
        return cls(
            model=model.name,
            display_name=model.display_name,
            weights_digest=model.weights_digest,
            dtype=model.dtype,
            quantization=model.quantization,
            server_version=server.version,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One property of one task.

    `cases` were asked and judged in this; `errors` are those of the task that got no answer: they
    are neither right nor wrong. A case may have several judged `answers`. `seconds` is the time of
    the whole task, the other properties included.
    """

    task: str
    name: str
    cases: int
    answers: int
    right: int
    errors: int
    target: float | None
    chance: float | None
    seconds: float

    @property
    def rate(self) -> float | None:
        return self.right / self.answers if self.answers else None

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 %. Answers about the same picture hang together, so it is cases that count."""
        return wilson(self.rate or 0.0, self.cases)

    @property
    def is_met(self) -> bool | None:
        """Whether the rate found reaches the target; None without one. An error is no success."""
        if self.target is None:
            return None
        return self.rate is not None and self.rate >= self.target and not self.errors

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "rate": self.rate,
            "interval": list(self.interval),
            "is_met": self.is_met,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        return cls(**{name: document[name] for name in cls.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An answer that lacks a property, or an error in an answer's place.

    `shown_seed` is the case whose pictures were shown: another one's when they were exchanged.
    """

    task: str
    seed: int
    shown_seed: int
    question: str
    expected: str
    answer: str
    lacks: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`adapter` is "" where each task chose its own. `failures` has every one that was seen."""

    subject: Subject
    adapter: str
    seed: int
    is_shuffled: bool
    rows: tuple[Row, ...]
    failures: tuple[Failure, ...]

    @property
    def missed(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.is_met is False)

    @property
    def errors(self) -> tuple[Failure, ...]:
        return tuple(failure for failure in self.failures if failure.error)

    def row(self, task: str, name: str = "right") -> Row:
        """Raises KeyError for what was not asked."""
        for row in self.rows:
            if (row.task, row.name) == (task, name):
                return row
        raise KeyError(f"no row {name!r} of task {task!r}")

    def to_json(self) -> dict[str, Any]:
        """Plain values. The right answers are those that are not among the failures."""
        return {
            "format": FORMAT,
            "subject": asdict(self.subject),
            "adapter": self.adapter,
            "seed": self.seed,
            "is_shuffled": self.is_shuffled,
            "rows": [row.to_json() for row in self.rows],
            "failures": [
                asdict(failure) | {"lacks": list(failure.lacks)} for failure in self.failures
            ],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        if document.get("format") != FORMAT:
            raise ValueError(f"a report of format {document.get('format')}; {FORMAT} is read")
        return cls(
            subject=Subject(**document["subject"]),
            adapter=document["adapter"],
            seed=document["seed"],
            is_shuffled=document["is_shuffled"],
            rows=tuple(map(Row.from_json, document["rows"])),
            failures=tuple(_failures(document["failures"])),
        )


def _failures(documents: Iterable[Mapping[str, Any]]) -> Iterable[Failure]:
    for document in documents:
        failure = Failure(**document)
        yield replace(failure, lacks=tuple(failure.lacks))
