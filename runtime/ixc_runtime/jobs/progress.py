"""How far a job is, and how long the rest will take: from stages and items to a fraction.

Stages have weights, in which they share the whole. The time left is drawn from the items of late,
and only once three of them have shown a rate. Free of torch.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ixc_runtime.jobs.messages import Progress

_ITEMS_FOR_A_RATE = 3
_WINDOW = 32
# As often as a bar needs to look alive; every stage's beginning and end is told in any case.
_LEAST_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """`weight` is its usual share of the time, in any unit."""

    name: str
    weight: float


class Meter:
    """`tell` hears of progress, not more often than anybody can see."""

    def __init__(
        self,
        stages: Sequence[Stage],
        tell: Callable[[Progress], None],
        *,
        clock: Callable[[], float],
        bytes_written: Callable[[], int] = lambda: 0,
    ) -> None:
        self._stages = stages
        self._tell = tell
        self._clock = clock
        self._bytes_written = bytes_written
        self._began = clock()
        self._told = float("-inf")
        self._index = 0
        self._recent: deque[tuple[float, int]] = deque(maxlen=_WINDOW)
        self._fraction = 0.0

    def begin(self, index: int) -> None:
        """A stage begins; what is left of the one before counts as done."""
        self._index = index
        self._recent.clear()
        self._recent.append((self._clock(), 0))
        self._say(item="", done=0, total=0, part=0.0)

    def item(self, name: str, *, done: int, total: int, part: float | None = None) -> None:
        """`part` is how much of the stage that is, where `done` of `total` does not say it."""
        now = self._clock()
        self._recent.append((now, done))
        if now - self._told >= _LEAST_SECONDS or done >= total:
            share = done / total if total else 0.0
            self._say(item=name, done=done, total=total, part=share if part is None else part)

    def _say(self, *, item: str, done: int, total: int, part: float) -> None:
        now = self._clock()
        weights = [stage.weight for stage in self._stages]
        whole = sum(weights)
        here = sum(weights[: self._index]) + min(part, 1.0) * weights[self._index]
        self._fraction = max(self._fraction, here / whole)  # what is told never goes back
        self._told = now
        self._tell(
            Progress(
                stage=self._stages[self._index].name,
                stage_index=self._index,
                stage_count=len(self._stages),
                fraction=self._fraction,
                done=done,
                total=total,
                item=item,
                elapsed_seconds=now - self._began,
                eta_seconds=self._eta(done, total),
                bytes_written=self._bytes_written(),
            )
        )

    def _eta(self, done: int, total: int) -> float | None:
        """By this stage's rate of late; later ones take as long beside it as their weights say."""
        if len(self._recent) <= _ITEMS_FOR_A_RATE or not total:
            return None
        (began, first), (now, last) = self._recent[0], self._recent[-1]
        if last <= first or now <= began:
            return None
        seconds = (now - began) / (last - first)
        weights = [stage.weight for stage in self._stages]
        later = sum(weights[self._index + 1 :]) / weights[self._index]
        return seconds * (total - done) + seconds * total * later
