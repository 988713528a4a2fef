"""What a stream of an operation adds up to, and how it goes on when it breaks. No input or output:
both clients' streams read into this.

The work belongs to the server: a broken stream is taken up from the last event seen, over a
restart of the server too, and leaving it stops nothing.
"""

from collections import deque

from ixc.v1 import operation_pb2, operation_service_pb2
from ixc_client import _operation_replies as replies
from ixc_client._errors import IxcError, UsageError
from ixc_client._methods import WATCH_OPERATION, Call
from ixc_client._operations import (
    OperationAccepted,
    OperationCompleted,
    OperationEvent,
    OperationResult,
)
from ixc_client._settings import Retries
from ixc_client._status import error_from_status, may_retry


class OperationState:
    """`begin` is the call that began it; None for a watch of the operation `name`."""

    def __init__(
        self, begin: Call | None, *, retries: Retries, name: str = "", after_sequence: int = 0
    ) -> None:
        self._begin = begin
        self._retries = retries
        self._failures = 0
        self._ready: deque[OperationEvent] = deque()
        self._completed: OperationCompleted | None = None
        self.name = name
        self.last_sequence = after_sequence
        self.accepted: OperationAccepted | None = None
        self.error: IxcError | None = None

    @property
    def finished(self) -> bool:
        return self._completed is not None or self.error is not None

    def next_call(self) -> Call:
        """What to send for the next event: the request itself, or a watch of what it began."""
        if self._begin is not None and not self.name:
            return self._begin
        return WATCH_OPERATION, operation_service_pb2.WatchOperationRequest(
            name=self.name, after_sequence=self.last_sequence
        )

    def failed(self, error: IxcError) -> float:
        """Seconds to wait before `next_call` is worth another try; raises when it is not."""
        self._failures += 1
        delay = self._retries.delay(self._failures, error.retry_after_seconds)
        if delay is None or not may_retry(error):
            raise self._final(error)
        return delay

    def pop(self) -> OperationEvent | None:
        return self._ready.popleft() if self._ready else None

    def take(self, message: operation_pb2.OperationEvent) -> None:
        """Takes one event in. Raises what a `failed` event reports."""
        self._failures = 0
        kind = message.WhichOneof("event")
        is_logged = kind not in ("heartbeat", "draining")
        if is_logged and message.sequence <= self.last_sequence and kind not in _TERMINAL:
            return  # replayed: seen before the stream broke
        if is_logged:
            self.last_sequence = max(self.last_sequence, message.sequence)
        if kind == "failed":
            raise self._final(error_from_status(message.failed.status))
        event = replies.event(message)
        if isinstance(event, OperationAccepted):
            self.accepted, self.name = event, event.operation.name
        elif isinstance(event, OperationCompleted):
            self._completed = event
        if event is not None:
            self._ready.append(event)

    def result(self) -> OperationResult | None:
        if self.error is not None:
            raise self.error
        if self._completed is None:
            raise UsageError("the operation is not done; read the stream to its end first")
        return self._completed.result

    def _final(self, error: IxcError) -> IxcError:
        error.attempts = max(1, self._failures)
        self.error = error
        return error


# Sent once more to a watcher whose cursor is at the end.
_TERMINAL = ("completed", "failed")
