"""An answer as it comes, the asyncio way. The blocking twin is `_stream`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from ixc_client import _requests as requests
from ixc_client._answer import StreamState
from ixc_client._async_calls import AsyncCalls, AsyncResponseStream
from ixc_client._errors import AnswerLost, IxcError, NotFound, TruncatedStream
from ixc_client._events import Accepted, Answer, Delta, Event, PromptProcessed
from ixc_client._methods import CANCEL_GENERATION
from ixc_client._stop_button import StopButton, UploadStopped

# How long leaving a stream early may wait for the server to be told.
_CLOSE_SECONDS = 2.0


class AsyncAnswerStream(AsyncIterator[Delta]):
    """Iterate for the deltas, then ask for `answer`; or `await read()` for the answer alone.

    As a context manager it stops a generation that is unfinished when the block is left.
    """

    def __init__(
        self,
        calls: AsyncCalls,
        state: StreamState,
        prepare: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._calls = calls
        self._state = state
        self._prepare = prepare  # uploads what is too large for the request
        self._responses: AsyncResponseStream[Any] | None = None
        self._stop = StopButton()
        self._cancelled = ""  # the generation that was told so
        self._sent = False

    @property
    def text(self) -> str:
        """What has come so far."""
        return self._state.text

    @property
    def accepted(self) -> Accepted | None:
        return self._state.accepted

    @property
    def prompt(self) -> PromptProcessed | None:
        return self._state.prompt

    @property
    def generation(self) -> str:
        """Its name, for `AsyncClient.watch` and `AsyncClient.cancel`; "" until it is accepted."""
        return self._state.generation

    @property
    def last_sequence(self) -> int:
        """The cursor: `AsyncClient.watch(generation, after_sequence=…)` goes on from here."""
        return self._state.last_sequence

    @property
    def answer(self) -> Answer:
        """The whole answer, once the stream has been read to its end."""
        return self._state.answer()

    async def __anext__(self) -> Delta:
        while (event := await self._next_event()) is not None:
            if isinstance(event, Delta):
                return event
        raise StopAsyncIteration

    async def events(self) -> AsyncIterator[Event]:
        """Everything that comes, progress and heartbeats too; consumes the deltas as well."""
        while (event := await self._next_event()) is not None:
            yield event

    async def read(self) -> Answer:
        """Reads what is left and returns the answer."""
        while await self._next_event(is_shown=False) is not None:
            pass
        return self.answer

    async def cancel(self) -> None:
        """The stop button; any task may press it. The stream ends soon, with what there is."""
        self._stop.press()  # for the reader, should the generation have no name yet
        await self._pass_cancel_on()

    async def close(self) -> None:
        """Ends the stream. A generation that it began and that is not finished is cancelled."""
        if self._sent and self._state.owned and not self._state.finished:
            with contextlib.suppress(IxcError, StopAsyncIteration):
                if not self.generation:
                    # Only a name can be cancelled, so it is waited for a little longer.
                    self._open().limit(_CLOSE_SECONDS)
                    self._state.take((await anext(self._open())).event)
                await self._tell_cancelled(_CLOSE_SECONDS)
        self._state.abandon()
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

    async def _next_event(self, *, is_shown: bool = True) -> Event | None:
        """The next event for the reader; None at the end."""
        if self._state.error is not None:
            raise self._state.error
        try:
            await self._enclose()
            state = self._state
            while (event := state.pop(is_shown=is_shown)) is None and not state.finished:
                state.take((await self._receive()).event)
                await self._pass_cancel_on()
        except IxcError as error:
            self._drop()
            if isinstance(error, AnswerLost):  # nobody is going to read the new one
                with contextlib.suppress(IxcError):
                    await self._tell_cancelled(_CLOSE_SECONDS)
            raise
        if event is None:
            await self._finish_call()
        return event

    async def _enclose(self) -> None:
        """Once, before anything is sent."""
        if self._prepare is None:
            return
        uploading = asyncio.create_task(self._prepare())
        try:
            with self._stop.interrupting(uploading.cancel):
                await asyncio.wait({uploading})
                if not uploading.cancelled():
                    uploading.result()
        except UploadStopped:
            self._state.stop_unsent()
        except IxcError as error:
            self._state.error = error
            raise
        finally:
            uploading.cancel()
        self._prepare = None

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
                # Interrupted while waiting. The call is of no more use, but the answer is: whoever
                # reads on afterwards gets a new call from the last event seen.
                self._drop()
                raise
            self._drop()
            await self._calls.pause(self._state.failed(error))

    def _open(self) -> AsyncResponseStream[Any]:
        """The call under way, or one that goes on where the last one ended."""
        if self._responses is None:
            self._sent = True
            method, request = self._state.next_call()
            self._responses = self._calls.stream(method, request, session=self._state.session)
        return self._responses

    async def _pass_cancel_on(self) -> None:
        """Once to every generation of this request: a server that was restarted begins another."""
        name = self.generation
        if self._stop.is_pressed and name not in {"", self._cancelled} and not self._state.finished:
            self._cancelled = name
            await self._tell_cancelled(None)

    async def _tell_cancelled(self, seconds: float | None) -> None:
        with contextlib.suppress(NotFound):  # it ended in the meantime
            await self._calls.unary(
                CANCEL_GENERATION,
                requests.cancel(self.generation),
                session=self._state.session,
                seconds=seconds,
            )

    async def _finish_call(self) -> None:
        """Takes the status behind the terminal event, so that the call ends as the server meant."""
        if self._responses is not None:
            with contextlib.suppress(IxcError, StopAsyncIteration):
                self._responses.limit(_CLOSE_SECONDS)
                await anext(self._responses)
            self._drop()

    def _drop(self) -> None:
        if self._responses is not None:
            self._responses.close()
            self._responses = None
