"""Long work as it goes on, the asyncio way. The blocking twin is `_operation_stream`."""

from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from ixc_client._async_calls import AsyncCalls, AsyncResponseStream
from ixc_client._errors import IxcError, TruncatedStream
from ixc_client._operation_state import OperationState
from ixc_client._operations import (
    OperationAccepted,
    OperationEvent,
    OperationProgress,
    OperationResult,
)

ResultT_co = TypeVar("ResultT_co", bound=OperationResult, covariant=True)


class AsyncOperationStream(AsyncIterator[OperationProgress], Generic[ResultT_co]):
    """Iterate for the progress, then ask for `result`; or `await wait()` for the result alone.

    The work belongs to the server: leaving the stream stops nothing. `AsyncOperations.cancel` does.
    """

    def __init__(
        self,
        calls: AsyncCalls,
        state: OperationState,
        prepare: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._calls = calls
        self._state = state
        self._prepare = prepare  # uploads what is too large for the request
        self._responses: AsyncResponseStream[Any] | None = None

    @property
    def accepted(self) -> OperationAccepted | None:
        return self._state.accepted

    @property
    def operation(self) -> str:
        """Its name, for `AsyncOperations`' methods; "" until it is accepted."""
        return self._state.name

    @property
    def last_sequence(self) -> int:
        """The cursor: `AsyncOperations.watch(operation, after_sequence=…)` goes on from here."""
        return self._state.last_sequence

    @property
    def result(self) -> ResultT_co:
        """What came of it, once the stream has been read to its end.

        None if the request was to be validated only.
        """
        return cast(ResultT_co, self._state.result())

    async def __anext__(self) -> OperationProgress:
        while (event := await self._next_event()) is not None:
            if isinstance(event, OperationProgress):
                return event
        raise StopAsyncIteration

    async def events(self) -> AsyncIterator[OperationEvent]:
        """Everything that comes: figures of layers, log lines and heartbeats too."""
        while (event := await self._next_event()) is not None:
            yield event

    async def wait(self) -> ResultT_co:
        """Reads what is left and returns the result; raises what the work failed with."""
        while await self._next_event() is not None:
            pass
        return self.result

    async def close(self) -> None:
        """Leaves the stream; the work goes on."""
        self._drop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _next_event(self) -> OperationEvent | None:
        """The next event; None at the end."""
        if self._state.error is not None:
            raise self._state.error
        try:
            if self._prepare is not None:
                await self._prepare()
                self._prepare = None
            while (event := self._state.pop()) is None and not self._state.finished:
                self._state.take((await self._receive()).event)
        except IxcError:
            self._drop()
            raise
        if event is None:
            self._drop()
        return event

    async def _receive(self) -> Any:
        """One message, over as many connections as it takes and is allowed."""
        while True:
            error: IxcError
            try:
                return await anext(self._open())
            except StopAsyncIteration:
                error = TruncatedStream("the stream ended without a completed or failed event")
            except IxcError as failure:
                error = failure
            except BaseException:
                self._drop()  # interrupted while waiting; whoever reads on gets a new call
                raise
            self._drop()
            await self._calls.pause(self._state.failed(error))

    def _open(self) -> AsyncResponseStream[Any]:
        """The call under way, or one that goes on where the last one ended."""
        if self._responses is None:
            method, request = self._state.next_call()
            self._responses = self._calls.stream(method, request)
        return self._responses

    def _drop(self) -> None:
        if self._responses is not None:
            self._responses.close()
            self._responses = None
