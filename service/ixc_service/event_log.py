"""The numbered events of one generation, kept for any number of readers at any cursor.

Events come in one order: Accepted, PromptProcessed, TextDelta …, and one terminal event, Finished
or Failed, after which nothing can be added. Numbers start at 1. Writing never waits; readers keep
no buffer of their own, only a cursor, so a slow one costs nothing but finds its deltas merged.

    seq   1          2                 3 … c          c+1 … n     n+1
          Accepted   PromptProcessed   folded away    deltas      terminal
                                       └ beyond max_events or max_bytes: only the text and the
                                         token ids survive, as one piece

Knows nothing of generations' owners, of pacing or of protobuf.
"""

import asyncio
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from ixc_runtime import Accepted, Completed, PromptProcessed, TextDelta
from ixc_runtime.errors import RuntimeFault
from ixc_service.errors import EventLogCompacted
from ixc_service.packed_deltas import PackedDeltas

MAX_EVENTS = 65_536
MAX_BYTES = 8 * 1024 * 1024
_EVENT_BYTES = 1024  # of what is no delta, about
# A merged delta stops growing here: whatever a reader missed, each message stays a small one.
_MAX_MERGED_BYTES = 256 * 1024
_ORDER = (Accepted, PromptProcessed, TextDelta)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedTurn:
    """What a chat's terminal event says of the session it changed."""

    session_id: str
    index: int
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The answer ended, by itself or by a cancel. `turn` only if a session gained one."""

    completed: Completed
    turn: CommittedTurn | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    fault: RuntimeFault


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All text and token ids up to its event's number, for a reader whose cursor is too old."""

    text: str
    token_ids: tuple[int, ...]


Update = Accepted | PromptProcessed | TextDelta | Finished | Failed
Terminal = Finished | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    sequence: int
    update: Update | Snapshot


class EventLog:
    """`name` is the generation's, for the fault that a cursor too old gets."""

    def __init__(
        self, name: str = "", *, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES
    ) -> None:
        self._name = name
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._head: list[Event] = []  # Accepted and PromptProcessed
        self._deltas = PackedDeltas()
        self._first_delta = 0  # number of the first delta ever; 0 before there is one
        self._first_kept = 0  # number of _deltas[0]
        self._folded_text = ""
        self._folded_ids = array("I")
        self._has_folded = False
        self._terminal: Event | None = None
        self._stage = 0
        self._waiting_for_any: set[asyncio.Future[bool]] = set()
        self._waiting_for_end: set[asyncio.Future[bool]] = set()
        self.last_sequence = 0

    # ---- writing

    def append(self, update: Update) -> int:
        """Adds one event and wakes the readers; returns its number."""
        assert self._terminal is None, "a log takes nothing after its terminal event"
        self.last_sequence += 1
        match update:
            case Finished() | Failed():
                self._terminal = Event(sequence=self.last_sequence, update=update)
                _resolve_all(self._waiting_for_end)
            case TextDelta():
                self._advance_to(TextDelta)
                if not self._deltas:
                    self._first_delta = self._first_delta or self.last_sequence
                    self._first_kept = self.last_sequence
                self._deltas.append(update)
                size = self._deltas.num_bytes
                if len(self._deltas) > self._max_events or size > self._max_bytes:
                    self._fold()
            case Accepted() | PromptProcessed():
                assert not self._head or type(update) is not type(self._head[-1].update)
                self._advance_to(type(update))
                self._head.append(Event(sequence=self.last_sequence, update=update))
        _resolve_all(self._waiting_for_any)
        return self.last_sequence

    def _advance_to(self, kind: type) -> None:
        stage = _ORDER.index(kind)
        assert stage >= self._stage, f"{kind.__name__} after {_ORDER[self._stage].__name__}"
        self._stage = stage

    def _fold(self) -> None:
        """Drops the older half of the deltas, keeping their text and ids (not their logprobs)."""
        count = max(1, len(self._deltas) // 2)
        older = self._deltas.merged(0, count)
        self._folded_text += older.text
        self._folded_ids.extend(older.token_ids)
        self._has_folded = True
        self._deltas.drop(count)
        self._first_kept += count

    # ---- reading

    @property
    def terminal(self) -> Terminal | None:
        update = self._terminal.update if self._terminal else None
        assert not isinstance(update, Accepted | PromptProcessed | TextDelta | Snapshot)
        return update

    @property
    def first_available_sequence(self) -> int:
        """The oldest event that can still be had as it was; 1 while nothing was folded."""
        return self._first_kept if self._has_folded else 1

    @property
    def num_bytes(self) -> int:
        folded = 4 * len(self._folded_text) + 4 * len(self._folded_ids)
        return self._deltas.num_bytes + folded + _EVENT_BYTES * (len(self._head) + 1)

    def text(self) -> str:
        return self._folded_text + self._deltas.text()

    def token_ids(self) -> tuple[int, ...]:
        return (*self._folded_ids, *self._deltas.token_ids())

    def deltas(self) -> Iterator[tuple[int, TextDelta]]:
        """The deltas still held apart, with their numbers."""
        return enumerate(self._deltas, self._first_kept)

    def read(self, after: int, *, allow_snapshot: bool = False) -> list[Event]:
        """Every event numbered beyond `after`, runs of deltas merged into one.

        A merged delta carries the number of its last part. Once the log has ended, the terminal
        event is always among them: a reader that has it already asks no more. Raises
        EventLogCompacted if `after` lies within what was folded away, unless a snapshot will do.
        """
        events = [event for event in self._head if event.sequence > after]
        first = max(after + 1, self._first_kept)
        if self._has_folded and after < self._first_kept - 1:
            # A reader without any text yet gets it all as one delta; one inside cannot be served
            # exactly, for the borders are gone.
            if after < self._first_delta:
                folded = TextDelta(text=self._folded_text, token_ids=tuple(self._folded_ids))
                events.append(Event(sequence=self._first_kept - 1, update=folded))
            elif allow_snapshot:
                whole = Snapshot(text=self.text(), token_ids=self.token_ids())
                first = self._first_kept + len(self._deltas)
                events.append(Event(sequence=first - 1, update=whole))
            else:
                raise EventLogCompacted(
                    f"events up to {self._first_kept - 1} are gone, asked for those after {after}",
                    generation=self._name,
                    first_available_sequence=self._first_kept,
                )
        events += self._merged_from(first - self._first_kept)
        if self._terminal:
            events.append(self._terminal)
        return events

    def _merged_from(self, start: int) -> Iterator[Event]:
        """As few events as may be; each bears the number of its last part."""
        deltas, count = self._deltas, len(self._deltas)
        while start < count:
            stop, size = start + 1, deltas.size(start)
            while stop < count and (size := size + deltas.size(stop)) <= _MAX_MERGED_BYTES:
                stop += 1
            update = deltas.merged(start, stop)
            yield Event(sequence=self._first_kept + stop - 1, update=update)
            start = stop

    def wake_readers(self) -> None:
        """Ends every wait as if something had come: there is news beside the log."""
        _resolve_all(self._waiting_for_any)
        _resolve_all(self._waiting_for_end)

    async def wait_beyond(self, sequence: int, seconds: float) -> bool:
        """Waits for an event numbered beyond `sequence`; False after `seconds` without one."""
        if self.last_sequence > sequence or self._terminal:
            return True
        return await _wait(self._waiting_for_any, seconds)

    async def wait_for_end(self, seconds: float) -> bool:
        """Waits for the terminal event; False after `seconds` without one."""
        if self._terminal:
            return True
        return await _wait(self._waiting_for_end, seconds)


async def _wait(waiting: set[asyncio.Future[bool]], seconds: float) -> bool:
    # A bare future and a timer: a third of the cost of asyncio.wait_for, paid once per message.
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bool] = loop.create_future()
    timer = loop.call_later(seconds, _resolve, future, False)
    waiting.add(future)
    try:
        return await future
    finally:
        timer.cancel()
        waiting.discard(future)


def _resolve(future: asyncio.Future[bool], outcome: bool) -> None:
    if not future.done():
        future.set_result(outcome)


def _resolve_all(waiting: set[asyncio.Future[bool]]) -> None:
    for future in tuple(waiting):
        _resolve(future, True)
