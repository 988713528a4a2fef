"""Operations as gRPC streams: a cursor over a log that ends with the operation, not before."""

import asyncio
from collections.abc import Callable

from google.protobuf.message import Message

from ixc.v1.operation_pb2 import OperationEvent
from ixc_runtime.errors import ServerDraining
from ixc_service.delivery import Pace
from ixc_service.errors import RequestInvalid, SlowConsumer, Violation
from ixc_service.identifiers import operation_name
from ixc_service.moments import Clock
from ixc_service.operations.queue import Found, Operations
from ixc_service.operations.records import Completed, Failed
from ixc_service.streams import Context
from ixc_service.translate.operations import Describe, draining, event_message, heartbeat

Wrap = Callable[[OperationEvent], Message]


class OperationStreams:
    def __init__(
        self,
        operations: Operations,
        *,
        describe: Describe,
        clock: Clock,
        pace: Pace,
        instance: str,
        retention_seconds: float,
    ) -> None:
        self._operations = operations
        self._describe = describe
        self._clock = clock
        self._pace = pace
        self._instance = instance
        self._retention_seconds = retention_seconds

    async def send(
        self,
        found: Found,
        context: Context,
        wrap: Wrap,
        *,
        after_sequence: int = 0,
        is_deduplicated: bool = False,
    ) -> None:
        """Every event beyond the cursor, to the terminal one. Raises the operation's own fault
        after a `failed` event, and ServerDraining when the server ends before the operation.
        """
        if after_sequence > found.log.last_sequence:
            raise RequestInvalid(
                (
                    Violation(
                        field="after_sequence",
                        rule="OUT_OF_RANGE",
                        description=f"is {after_sequence}; "
                        f"the log ends at {found.log.last_sequence}",
                    ),
                )
            )
        await context.send_initial_metadata(
            (
                ("x-operation", operation_name(found.record.operation_id)),
                ("x-instance", self._instance),
            )
        )
        delivery = _Delivery(
            self, found, context, wrap, cursor=after_sequence, is_deduplicated=is_deduplicated
        )
        await delivery.run()


class _Delivery:
    def __init__(
        self,
        streams: OperationStreams,
        found: Found,
        context: Context,
        wrap: Wrap,
        *,
        cursor: int,
        is_deduplicated: bool,
    ) -> None:
        self._streams = streams
        self._found = found
        self._context = context
        self._wrap = wrap
        self._cursor = cursor
        self._is_deduplicated = is_deduplicated
        self._knows_of_drain = False

    async def run(self) -> None:
        streams, log = self._streams, self._found.log
        last = log.terminal_event
        if last is not None and self._cursor >= last.sequence:
            self._cursor = last.sequence - 1  # every watch ends with the terminal event
        while True:
            events = log.after(self._cursor)
            for event in events:
                await self._write(
                    await event_message(
                        event,
                        describe=streams._describe,
                        retention_seconds=streams._retention_seconds,
                        is_deduplicated=self._is_deduplicated,
                    )
                )
                self._cursor = event.sequence
                if isinstance(event.update, Failed):
                    raise event.update.error.fault()
                if isinstance(event.update, Completed):
                    return
            await self._tell_of_drain()
            if self._found.live is not None and self._found.live.ended.is_set():
                if not log.after(self._cursor):
                    raise ServerDraining("the server stops; the operation goes on when it is back")
            elif not events and not await log.wait(streams._pace.heartbeat_seconds):
                await self._write(self._heartbeat())

    def _heartbeat(self) -> OperationEvent:
        live = self._found.live
        record = live.record if live else self._found.record
        position = self._streams._operations.queue_position(record.operation_id)
        return heartbeat(self._cursor, record.state, position)

    async def _tell_of_drain(self) -> None:
        deadline = self._streams._operations.drain_deadline
        if deadline is not None and not self._knows_of_drain:
            self._knows_of_drain = True
            left = max(0.0, deadline - self._streams._clock.monotonic())
            await self._write(draining(self._cursor, left))

    async def _write(self, event: OperationEvent) -> None:
        seconds = self._streams._pace.slow_reader_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._context.write(self._wrap(event))
        except TimeoutError:
            raise SlowConsumer(
                f"the reader took nothing for {seconds:g} s",
                operation=operation_name(self._found.record.operation_id),
                last_sequence=self._cursor,
            ) from None
