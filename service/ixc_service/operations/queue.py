"""All operations: begun exactly once, jobs one at a time, taken up after a restart of the server.

    begin ─► written down, accepted ─► queue ─► running ─► done, kept for a while
    start of the server ─► leftovers cleared ─► what was not done is queued again

Jobs wait for each other, in the order of asking; loading a model waits for nobody. An operation
claims the name of the model that it makes or loads, and no two claim the same.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ixc_runtime.errors import JobFault, QueueFull, RuntimeFault
from ixc_runtime.models_root import ModelsRoot
from ixc_service.errors import OperationConflict, OperationNotFound, OperationRunning
from ixc_service.identifiers import model_name, new_id, operation_name
from ixc_service.limits import Limits
from ixc_service.log_events import emit
from ixc_service.moments import Clock
from ixc_service.operations.log import OperationLog
from ixc_service.operations.operation import Operation
from ixc_service.operations.records import (
    Accepted,
    Event,
    JobOrder,
    Kind,
    LoadOrder,
    OperationRecord,
    Order,
    Outcome,
    Restarted,
    State,
)
from ixc_service.operations.work import Work, with_load
from ixc_service.status import FaultDesk
from ixc_service.store import RequestKey
from ixc_service.store.operations import OperationStore

_log = logging.getLogger(__name__)

_KINDS_OF_JOBS = (Kind.MERGE_LORA, Kind.QUANTIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An operation to be told of: its record now, and the log that its readers follow.

    `live` is None once it is done.
    """

    record: OperationRecord
    log: OperationLog
    live: Operation | None


@dataclass(slots=True, kw_only=True)
class _Draft:
    """What `begin` needs of a request."""

    owner: str
    kind: Kind
    request_id: str
    order: Order
    operation_id: str = field(default="")


class Operations:
    """`make_work` gives an order its work, by the operation's id."""

    def __init__(
        self,
        store: OperationStore,
        *,
        make_work: Callable[[str, Order], Work],
        models_root: Path | None,
        clock: Clock,
        limits: Limits,
        faults: FaultDesk,
    ) -> None:
        self._store = store
        self._make_work = make_work
        self._models_root = models_root
        self._clock = clock
        self._limits = limits
        self._faults = faults
        self._live: dict[str, Operation] = {}  # oldest first
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._beginning = asyncio.Lock()
        self.is_closing = False
        self.drain_deadline: float | None = None  # monotonic; set once the server is to stop

    # ---- beginning

    async def begin(
        self,
        key: RequestKey | None,
        *,
        owner: str,
        kind: Kind,
        order: Order,
        operation_id: str = "",
    ) -> tuple[Found, bool]:
        """The operation of this request, begun now or attached to; and whether it was there.

        Raises REQUEST_ID_REUSED, OPERATION_CONFLICT or QUEUE_FULL.
        """
        draft = _Draft(
            owner=owner,
            kind=kind,
            request_id=key.request_id if key else "",
            order=order,
            operation_id=operation_id or new_id(self._clock.now()),
        )
        beginning = asyncio.create_task(self._begin_once(draft, key))
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            # What is written down must run, though its caller has gone meanwhile.
            await asyncio.gather(beginning, return_exceptions=True)
            raise

    async def _begin_once(self, draft: _Draft, key: RequestKey | None) -> tuple[Found, bool]:
        async with self._beginning:
            if key is not None and (earlier := await self._store.find_request(key)) is not None:
                return await self.get(draft.owner, earlier), True
            return await self._begin(draft, key), False

    async def find_request(self, key: RequestKey | None) -> str | None:
        """The id of an earlier request's operation, before anything is done for this one."""
        return None if key is None else await self._store.find_request(key)

    def check_claim(self, model_id: str, *, after: str = "") -> None:
        """Raises OperationConflict if an operation that is not done makes or loads this model;
        `after` is one that has done its work.
        """
        for operation in self._live.values():
            if operation.record.claim == model_id and operation.id != after:
                raise OperationConflict(
                    "another operation makes or loads this model",
                    model=model_name(model_id),
                    operation=operation_name(operation.id),
                )

    async def _begin(self, draft: _Draft, key: RequestKey | None, *, after: str = "") -> Found:
        record = OperationRecord(
            owner=draft.owner,
            operation_id=draft.operation_id,
            kind=draft.kind,
            state=State.QUEUED,
            order=draft.order,
            request_id=draft.request_id,
            create_time=self._clock.now(),
        )
        self.check_claim(record.claim, after=after)
        ahead = self._num_jobs() if isinstance(draft.order, JobOrder) else 0
        waiting = max(0, ahead - self._limits.max_running_jobs)
        if ahead >= self._limits.max_running_jobs and waiting >= self._limits.max_queued_operations:
            raise QueueFull(f"{waiting} operations wait already", depth=waiting)
        position = max(0, ahead + 1 - self._limits.max_running_jobs)
        first = Event(1, Accepted(record=record.without_samples(), queue_position=position))
        await self._store.add(record, key, first)
        operation = self._enlist(record, OperationLog([first]))
        emit(_log, "operation_accepted", operation=operation.id, kind=record.kind)
        self._start_next()
        return Found(record=operation.record, log=operation.log, live=operation)

    def _enlist(self, record: OperationRecord, log: OperationLog) -> Operation:
        operation = Operation(
            record,
            log,
            self._make_work(record.operation_id, record.order),
            store=self._store,
            clock=self._clock,
            faults=self._faults,
        )
        self._live[operation.id] = operation
        return operation

    def _num_jobs(self) -> int:
        return sum(each.record.kind in _KINDS_OF_JOBS for each in self._live.values())

    # ---- running

    def _start_next(self) -> None:
        running = sum(
            each.id in self._tasks and each.record.kind in _KINDS_OF_JOBS
            for each in self._live.values()
        )
        for operation in tuple(self._live.values()):
            if operation.id in self._tasks or self.is_closing:
                continue
            if operation.record.kind in _KINDS_OF_JOBS:
                if running >= self._limits.max_running_jobs:
                    continue
                running += 1
            self._start(operation)

    def _start(self, operation: Operation) -> None:
        async def drive() -> None:
            await operation.run(lambda outcome: self._followed_up(operation, outcome))
            # Only one that is done is no longer looked for here.
            del self._live[operation.id]

        task = asyncio.create_task(drive(), name=f"operation {operation.id}")
        self._tasks[operation.id] = task
        task.add_done_callback(lambda _: self._ended(operation.id))

    def _ended(self, operation_id: str) -> None:
        del self._tasks[operation_id]
        if not self.is_closing:
            self._start_next()

    async def _followed_up(self, operation: Operation, outcome: Outcome) -> Outcome:
        """Begins to load what was made, if that was asked for; failing at that changes nothing."""
        order = operation.record.order
        if not isinstance(order, JobOrder) or not order.load_when_done:
            return outcome
        draft = _Draft(
            owner=operation.record.owner,
            kind=Kind.LOAD_MODEL,
            request_id="",
            order=LoadOrder(model_id=order.spec.output),
            operation_id=new_id(self._clock.now()),
        )
        try:
            async with self._beginning:
                # The name is free for it: the operation that claims it has done its work.
                found = await self._begin(draft, None, after=operation.id)
        except RuntimeFault as fault:
            emit(_log, "load_not_begun", level=logging.WARNING, reason=fault.reason)
            return outcome
        return with_load(outcome, found.record.operation_id)

    # ---- finding

    async def get(self, owner: str, operation_id: str) -> Found:
        live = self._live.get(operation_id)
        if live is not None and live.record.owner == owner:
            return Found(record=live.record, log=live.log, live=live)
        record = await self._store.get(owner, operation_id)
        log = OperationLog(await self._store.events(owner, operation_id))
        return Found(record=record, log=log, live=None)

    async def page(
        self,
        owner: str,
        before: str | None,
        size: int,
        *,
        kinds: frozenset[Kind],
        states: frozenset[State],
    ) -> list[OperationRecord]:
        """Newest first, as far as it is on disk."""
        return await self._store.page(owner, before, size, kinds=kinds, states=states)

    def queue_position(self, operation_id: str) -> int:
        """How many jobs must end before this one begins; 0 once it runs."""
        if operation_id in self._tasks:
            return 0
        jobs = [each.id for each in self._live.values() if each.record.kind in _KINDS_OF_JOBS]
        place = jobs.index(operation_id) if operation_id in jobs else 0
        return max(0, place + 1 - self._limits.max_running_jobs)

    # ---- stopping and forgetting

    async def cancel(self, owner: str, operation_id: str) -> Found:
        """Returns once it is done, which it may have been before."""
        found = await self.get(owner, operation_id)
        if found.live is None:
            return found
        await found.live.ask_to_cancel()
        if operation_id not in self._tasks:
            self._start(found.live)  # it ends without having begun
        await found.live.ended.wait()
        return await self.get(owner, operation_id)

    async def delete(self, owner: str, operation_id: str, *, allow_missing: bool) -> None:
        try:
            found = await self.get(owner, operation_id)
        except OperationNotFound:
            if allow_missing:
                return
            raise
        if found.live is not None:
            raise OperationRunning(
                "the operation is not done; cancel it first", operation=operation_name(operation_id)
            )
        await self._store.delete(owner, operation_id)

    async def expire(self) -> int:
        horizon = self._clock.now() - self._limits.operation_retention_seconds
        return await self._store.expire(horizon)

    # ---- the server's start and end

    async def resume(self) -> frozenset[str]:
        """Clears up what dead jobs have left, and queues what an earlier server did not finish.

        Returns the ids of the latter.
        """
        records = await self._store.not_done()
        keep = frozenset(record.operation_id for record in records)
        if self._models_root is not None:
            owner = await self._store.identity()
            try:
                root = ModelsRoot(self._models_root)
                cleared = await asyncio.to_thread(root.recover, owner, keep)
            except JobFault as fault:  # the disk refuses: jobs will say so themselves
                self._faults.presentable(fault, during="clearing the models root")
            else:
                if cleared:
                    emit(_log, "dead_jobs_cleared", jobs=",".join(cleared))
        for record in records:
            await self._take_up(record)
        self._start_next()
        return keep

    async def _take_up(self, record: OperationRecord) -> None:
        log = OperationLog(await self._store.events(record.owner, record.operation_id))
        attempt = record.attempt
        if has_begun := record.state is not State.QUEUED:
            attempt += 1
            record = msgspec.structs.replace(
                record, state=State.QUEUED, start_time=None, attempt=attempt
            )
        operation = self._enlist(record, log)
        if has_begun and isinstance(record.order, LoadOrder):
            # A job says itself what it can take over.
            operation.tell(Restarted(attempt=attempt, kept_files=0, kept_bytes=0))
        if record.is_cancel_requested:
            await operation.ask_to_cancel()
            self._start(operation)

    def announce_drain(self, deadline: float) -> None:
        """From now on every stream tells its reader that the server will stop."""
        self.drain_deadline = deadline
        for operation in self._live.values():
            operation.log.wake_readers()

    async def close(self) -> None:
        """Stops all work where it stands; the next start takes it up."""
        self.is_closing = True
        for task in (tasks := tuple(self._tasks.values())):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for operation in self._live.values():
            operation.log.wake_readers()
