"""Long work as it goes on, the blocking way. The asyncio twin is `_async_operation_stream`."""

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from ixc_client._calls import Calls, ResponseStream
from ixc_client._errors import IxcError, TruncatedStream
from ixc_client._operation_state import OperationState
from ixc_client._operations import (
    OperationAccepted,
    OperationEvent,
    OperationProgress,
    OperationResult,
)

ResultT_co = TypeVar("ResultT_co", bound=OperationResult, covariant=True)


class OperationStream(Iterator[OperationProgress], Generic[ResultT_co]):
    """Iterate for the progress, then ask for `result`; or `wait()` for the result alone.

    The work belongs to the server: leaving the stream stops nothing. `Operations.cancel` does.

    >>> with ixc.weights.quantize("demo", "demo-int4") as work:  # doctest: +SKIP
    ...     for progress in work:
    ...         print(f"{progress.fraction:.0%} {progress.stage} {progress.item}")
    ...     print(work.result.text.perplexity_ratio)
    """

    def __init__(
        self, calls: Calls, state: OperationState, prepare: Callable[[], None] | None = None
    ) -> None:
        self._calls = calls
        self._state = state
        self._prepare = prepare  # uploads what is too large for the request
        self._responses: ResponseStream[Any] | None = None

    @property
    def accepted(self) -> OperationAccepted | None:
        return self._state.accepted

    @property
    def operation(self) -> str:
        """Its name, for `Operations.watch` and `Operations.cancel`; "" until it is accepted."""
        return self._state.name

    @property
    def last_sequence(self) -> int:
        """The cursor: `Operations.watch(operation, after_sequence=…)` goes on from here."""
        return self._state.last_sequence

    @property
    def result(self) -> ResultT_co:
        """What came of it, once the stream has been read to its end.

        None if the request was to be validated only.
        """
        return cast(ResultT_co, self._state.result())

    def __next__(self) -> OperationProgress:
        while (event := self._next_event()) is not None:
            if isinstance(event, OperationProgress):
                return event
        raise StopIteration

    def events(self) -> Iterator[OperationEvent]:
        """Everything that comes: figures of layers, log lines and heartbeats too."""
        while (event := self._next_event()) is not None:
            yield event

    def wait(self) -> ResultT_co:
        """Reads what is left and returns the result; raises what the work failed with."""
        while self._next_event() is not None:
            pass
        return self.result

    def close(self) -> None:
        """Leaves the stream; the work goes on."""
        self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _next_event(self) -> OperationEvent | None:
        """The next event; None at the end."""
        if self._state.error is not None:
            raise self._state.error
        try:
            if self._prepare is not None:
                self._prepare()
                self._prepare = None
            while (event := self._state.pop()) is None and not self._state.finished:
                self._state.take(self._receive().event)
        except IxcError:
            self._drop()
            raise
        if event is None:
            self._drop()
        return event

    def _receive(self) -> Any:
        """One message, over as many connections as it takes and is allowed."""
        while True:
            error: IxcError
            try:
                return next(self._open())
            except StopIteration:
                error = TruncatedStream("the stream ended without a completed or failed event")
            except IxcError as failure:
                error = failure
            except BaseException:
                self._drop()  # interrupted while waiting; whoever reads on gets a new call
                raise
            self._drop()
            self._calls.pause(self._state.failed(error))

    def _open(self) -> ResponseStream[Any]:
        """The call under way, or one that goes on where the last one ended."""
        if self._responses is None:
            method, request = self._state.next_call()
            self._responses = self._calls.stream(method, request)
        return self._responses

    def _drop(self) -> None:
        if self._responses is not None:
            self._responses.close()
            self._responses = None
