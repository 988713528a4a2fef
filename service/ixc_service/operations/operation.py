"""One operation that is not done: its record, its log, its work, and its end.

Whatever happens to it is first written down and then told. Knows no queue and no protobuf.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from ixc_runtime.errors import JobCancelled, RuntimeFault, WorkerLost
from ixc_runtime.jobs import JobEvent, Progress, Resumed
from ixc_service.errors import StoreUnavailable
from ixc_service.identifiers import operation_name
from ixc_service.log_events import emit
from ixc_service.moments import Clock
from ixc_service.operations.log import OperationLog
from ixc_service.operations.records import (
    Completed,
    Event,
    Failed,
    FaultRecord,
    OperationRecord,
    Outcome,
    Restarted,
    State,
    Update,
)
from ixc_service.operations.work import Work
from ixc_service.status import FaultDesk
from ixc_service.store.operations import OperationStore

# A process that dies is started anew, and takes over what is finished; one that dies again and
# again would do so for ever.
MAX_ATTEMPTS = 3
_STORE_RETRY_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Operation:
    def __init__(
        self,
        record: OperationRecord,
        log: OperationLog,
        work: Work,
        *,
        store: OperationStore,
        clock: Clock,
        faults: FaultDesk,
    ) -> None:
        self.record = record
        self.log = log
        self._work = work
        self._store = store
        self._clock = clock
        self._faults = faults
        self._pending: list[Update] = []
        self._writing = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None
        self.ended = asyncio.Event()  # done, or interrupted by the server's end

    @property
    def id(self) -> str:
        return self.record.operation_id

    @property
    def is_waiting(self) -> bool:
        return self.record.state is State.QUEUED

    # ---- running

    async def run(self, prepare_end: Callable[[Outcome], Awaitable[Outcome]]) -> None:
        """To its end. `prepare_end` may add to a good outcome before it is told.

        Cancelled from outside, it is left as it stands: the next start of the server takes it up.
        """
        try:
            try:
                outcome = await prepare_end(await self._worked())
            except RuntimeFault as fault:
                await self._fail(fault)
            except Exception as error:
                await self._fail(error)
            else:
                await self._finish(State.SUCCEEDED, Completed, outcome=outcome)
        finally:
            if self._writer is not None:
                self._writer.cancel()
            self.ended.set()
            self.log.wake_readers()

    async def _worked(self) -> Outcome:
        self._change(state=State.RUNNING, start_time=self._clock.now())
        while True:
            try:
                return await self._work.run(self._hear)
            except WorkerLost:
                if self.record.attempt >= MAX_ATTEMPTS:
                    raise WorkerLost(
                        "the process that did the work died, and died again when started anew",
                        attempts=self.record.attempt,
                    ) from None
                self._change(attempt=self.record.attempt + 1)
                emit(_log, "job_process_lost", level=logging.WARNING, operation=self.id)

    def _hear(self, event: JobEvent) -> None:
        if not isinstance(event, Resumed):
            self.tell(event)
        elif self.record.attempt > 1:
            self.tell(
                Restarted(
                    attempt=self.record.attempt,
                    kept_files=event.kept_files,
                    kept_bytes=event.kept_bytes,
                )
            )

    async def _fail(self, error: Exception) -> None:
        """Nothing is left behind, and only then is it told."""
        await self._clear()
        fault = self._faults.presentable(error, during=f"operation {self.id}")
        state = State.FAILED
        if isinstance(fault, JobCancelled):
            state = State.CANCELLED
            fault = JobCancelled("the operation was cancelled", operation=operation_name(self.id))
        await self._finish(state, Failed, error=FaultRecord.of(fault))

    async def _finish(
        self,
        state: State,
        terminal: type[Completed] | type[Failed],
        *,
        outcome: Outcome | None = None,
        error: FaultRecord | None = None,
    ) -> None:
        now = self._clock.now()
        if outcome is not None:
            await self._clear()
        self.record = msgspec.structs.replace(
            self.record.without_samples(), state=state, end_time=now, outcome=outcome, error=error
        )
        if outcome is not None:
            elapsed = now - self.record.create_time
            self._pending.append(Completed(outcome=outcome, elapsed_seconds=elapsed))
        else:
            assert error is not None, "an operation ends with an outcome or with an error"
            self._pending.append(Failed(error=error))
        await self._write()
        emit(_log, "operation_ended", operation=self.id, kind=self.record.kind, state=state)

    async def _clear(self) -> None:
        try:
            await self._work.clear()
        except Exception as error:  # the next start of the server tries again
            self._faults.presentable(error, during=f"clearing up after operation {self.id}")

    # ---- stopping

    async def ask_to_cancel(self) -> None:
        """The work hears of it at once; what it makes of it, its end tells."""
        if not self.record.is_cancel_requested and not self.record.is_done:
            self._change(is_cancel_requested=True)
        self._work.cancel()

    # ---- writing down and telling

    def tell(self, update: Update) -> None:
        """To disk and then to the readers, together with what else happens meanwhile."""
        self._pending.append(update)
        self._start_writing()

    def _change(self, **fields: object) -> None:
        self.record = msgspec.structs.replace(self.record, **fields)
        self._start_writing()

    def _start_writing(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name=f"operation {self.id} log")

    async def _write(self) -> None:
        """Returns when all that has happened so far is on disk. A store that refuses is asked
        again: events cannot be told otherwise, and the work goes on meanwhile.
        """
        async with self._writing:
            written: OperationRecord | None = None
            while self._pending or written is not self.record:
                taken, self._pending = self._pending, []
                events, superseded = self.log.take(taken)
                self._note(events)
                written = self.record
                await self._stored(written, events, superseded)
                self.log.commit(events, superseded)

    def _note(self, events: list[Event]) -> None:
        """What the record shows of the log."""
        progress = self.record.progress
        for event in events:
            if isinstance(event.update, Progress):
                progress = event.update
            elif isinstance(event.update, Restarted):
                progress = None
        if events:
            last = events[-1].sequence
            self.record = msgspec.structs.replace(
                self.record, last_sequence=last, progress=progress
            )

    async def _stored(
        self, record: OperationRecord, events: list[Event], superseded: list[int]
    ) -> None:
        while True:
            try:
                return await self._store.update(record, events, superseded)
            except StoreUnavailable as fault:
                self._faults.presentable(fault, during=f"operation {self.id}")
                await asyncio.sleep(_STORE_RETRY_SECONDS)
