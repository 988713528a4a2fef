"""One reader of a run: from its cursor to the terminal event, at a pace it can follow.

The reader holds no queue. Each round it takes everything the log has gained, merged, so that it
sends at once when idle and coalesces by itself under load. After a delta it pauses for as much of
the flush interval as the run does not gather anyway, which only the end cuts short; the first token
therefore never waits.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ixc_runtime import TextDelta
from ixc_service.errors import SlowConsumer
from ixc_service.event_log import Event, Failed, Finished
from ixc_service.generations import Generations
from ixc_service.identifiers import generation_name
from ixc_service.log_events import emit
from ixc_service.moments import Clock
from ixc_service.run import Run

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Nothing new, but alive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """The server stops in so many seconds at the latest."""

    time_left_seconds: float


Notice = Heartbeat | Draining


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How this reader wants the events, and from where."""

    after_sequence: int = 0
    flush_interval_seconds: float
    is_final_only: bool = False
    allows_snapshot: bool = False
    is_deduplicated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The server's own bounds on a silent stream and on a silent reader."""

    heartbeat_seconds: float
    slow_reader_seconds: float


Send = Callable[[Event | Notice, int], Awaitable[None]]


class Delivery:
    """`send(event or notice, sequence)` writes one message, waiting for the reader's window."""

    def __init__(
        self,
        run: Run,
        view: View,
        send: Send,
        *,
        generations: Generations,
        clock: Clock,
        pace: Pace,
    ) -> None:
        self._run = run
        self._view = view
        self._write = send
        self._generations = generations
        self._clock = clock
        self._pace = pace
        self._cursor = view.after_sequence  # what has been read
        self._written = view.after_sequence  # what the reader has taken
        self._may_snapshot = view.allows_snapshot
        self._knows_of_drain = False
        self._patience = asyncio.timeout(None)
        self._patience_timer: asyncio.TimerHandle | None = None
        self._writes_since: float | None = None  # when the write under way began
        self._last_sent = clock.monotonic()

    async def run_to_end(self) -> None:
        """Sends every event beyond the cursor. Raises the run's fault after a `failed` event, and
        SlowConsumer when the reader takes nothing for too long.
        """
        try:
            async with self._patience:
                self._check_patience()
                await self._run_to_end()
        except TimeoutError:
            # Said now: the RPC's own end has to wait for the reader, or for its connection's end.
            emit(_log, "slow_reader_dropped", generation=self._run.id, sequence=self._written)
            raise SlowConsumer(
                f"the reader took nothing for {self._pace.slow_reader_seconds:g} s",
                generation=generation_name(self._run.id),
                last_sequence=self._written,
            ) from None
        finally:
            if self._patience_timer is not None:
                self._patience_timer.cancel()

    async def _run_to_end(self) -> None:
        while True:
            sent_delta = False
            events = self._run.log.read(self._cursor, allow_snapshot=self._may_snapshot)
            self._may_snapshot = False  # a snapshot comes first or not at all
            for event in events:
                is_delta = isinstance(event.update, TextDelta)
                self._cursor = max(self._cursor, event.sequence)
                if is_delta and self._view.is_final_only:
                    continue
                await self._send(event)
                sent_delta = sent_delta or is_delta
                if isinstance(event.update, Failed):
                    raise event.update.fault
                if isinstance(event.update, Finished):
                    return
            await self._tell_of_drain()
            await self._pause(sent_delta=sent_delta)

    async def _pause(self, *, sent_delta: bool) -> None:
        log = self._run.log
        flush = self._view.flush_interval_seconds
        if sent_delta and flush > (gathered := self._generations.gathering_seconds(self._run)):
            await log.wait_for_end(flush - gathered)
            return
        silence = self._clock.monotonic() - self._last_sent
        left = self._pace.heartbeat_seconds - silence
        if left <= 0:
            await self._send(Heartbeat())
        elif self._view.is_final_only and self._run.processed is not None:
            await log.wait_for_end(left)  # deltas would only wake it for nothing
        else:
            await log.wait_beyond(self._cursor, left)

    async def _tell_of_drain(self) -> None:
        deadline = self._generations.drain_deadline
        if deadline is not None and not self._knows_of_drain:
            self._knows_of_drain = True
            left = max(0.0, deadline - self._clock.monotonic())
            await self._send(Draining(time_left_seconds=left))

    async def _send(self, item: Event | Notice) -> None:
        self._writes_since = asyncio.get_running_loop().time()
        await self._write(item, self._cursor)
        self._writes_since = None
        self._written = self._cursor
        self._last_sent = self._clock.monotonic()

    def _check_patience(self) -> None:
        """Ends the delivery if one write has taken too long, else looks again when it may have.

        One timer a stream, moved along now and then; a timeout around each write would cost as much
        as making the message.
        """
        loop = asyncio.get_running_loop()
        now, limit = loop.time(), self._pace.slow_reader_seconds
        deadline = (self._writes_since if self._writes_since is not None else now) + limit
        if deadline <= now:
            self._patience.reschedule(now)
        else:
            self._patience_timer = loop.call_at(deadline, self._check_patience)
