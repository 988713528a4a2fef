"""The numbered events of one operation, for any number of readers at any cursor.

An event is on disk before it is told. Of a stage's progress only the newest is kept, and of
figures and log lines the newest ten thousand, so a log stays small however long the work. Numbers
grow without being gapless; what replaces another comes later, so every cursor stays right.
"""

import asyncio
from collections.abc import Sequence

from ixc_runtime.jobs import Logged, Metric, Progress
from ixc_service.operations.records import (
    Completed,
    Event,
    Failed,
    Restarted,
    Terminal,
    Update,
)

MAX_LINES = 10_000  # metrics and log lines that are kept


class OperationLog:
    def __init__(self, events: Sequence[Event] = ()) -> None:
        self._events: dict[int, Event] = {event.sequence: event for event in events}
        self._waiting: set[asyncio.Future[None]] = set()
        self.last_sequence = max(self._events, default=0)

    # ---- writing: `take`, to disk, then `commit`

    def take(self, updates: Sequence[Update]) -> tuple[list[Event], list[int]]:
        """Numbers for these, without those that others among them replace; and the numbers of
        earlier events that they replace.
        """
        events: dict[int, Event] = {}
        superseded: list[int] = []
        known = dict(self._events)
        number = self.last_sequence
        for update in updates:
            number += 1
            for old in _replaced_by(update, known):
                del known[old]
                if events.pop(old, None) is None:
                    superseded.append(old)
            known[number] = events[number] = Event(number, update)
        return list(events.values()), superseded

    def commit(self, events: Sequence[Event], superseded: Sequence[int]) -> None:
        """These are on disk: readers may see them."""
        for number in superseded:
            del self._events[number]
        for event in events:
            self._events[event.sequence] = event
            self.last_sequence = event.sequence
        self.wake_readers()

    # ---- reading

    def after(self, sequence: int) -> list[Event]:
        return [event for event in self._events.values() if event.sequence > sequence]

    @property
    def terminal(self) -> Terminal | None:
        last = self._events.get(self.last_sequence)
        update = last.update if last else None
        return update if isinstance(update, Completed | Failed) else None

    @property
    def terminal_event(self) -> Event | None:
        return self._events[self.last_sequence] if self.terminal else None

    async def wait(self, seconds: float) -> bool:
        """Until there is something new, or somebody wakes the readers; False: time has passed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            done, _ = await asyncio.wait({future}, timeout=seconds)
            return bool(done)
        finally:
            self._waiting.discard(future)

    def wake_readers(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)


def _replaced_by(update: Update, known: dict[int, Event]) -> list[int]:
    """Which events need not be kept once this one is there."""
    match update:
        case Progress():
            return [
                number
                for number, event in known.items()
                if isinstance(event.update, Progress)
                and event.update.stage_index == update.stage_index
            ]
        case Restarted():
            # A new attempt: how far the last one was is of no interest any more.
            return [n for n, event in known.items() if isinstance(event.update, Progress)]
        case Metric() | Logged():
            lines = [n for n, each in known.items() if isinstance(each.update, Metric | Logged)]
            return lines[: len(lines) - MAX_LINES + 1] if len(lines) >= MAX_LINES else []
        case _:
            return []
