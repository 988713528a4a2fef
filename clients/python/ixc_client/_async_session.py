"""A conversation that the server keeps, the asyncio way. The blocking twin is `_session`."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self, Unpack

from ixc.v1 import session_pb2, session_service_pb2
from ixc_client import _methods as methods
from ixc_client import _requests as requests
from ixc_client import _resource_replies as replies
from ixc_client._answer import StreamState
from ixc_client._async_calls import AsyncCalls
from ixc_client._async_stream import AsyncAnswerStream
from ixc_client._async_uploader import AsyncUploader
from ixc_client._enclosures import Enclosures
from ixc_client._errors import IxcError, UsageError
from ixc_client._events import Answer
from ixc_client._inputs import ChatOptions, MessageLike, Sampling
from ixc_client._media import ImageLike, VideoLike
from ixc_client._resources import SessionInfo, TokenCount, Turn
from ixc_client._settings import NOT_GIVEN, NotGiven


class AsyncSession:
    """One conversation; made by `Client.session` and `Client.open_session`.

    Turns follow one another: a message sent while an earlier one is being answered is refused
    with SessionBusy unless `on_busy` says otherwise. A turn is in the session once its answer is
    finished, and then for good; one that fails or is stopped leaves no trace.
    """

    def __init__(
        self,
        calls: AsyncCalls,
        uploader: AsyncUploader,
        *,
        name: str = "",
        create: session_service_pb2.CreateSessionRequest | None = None,
        keep: bool,
    ) -> None:
        self._calls = calls
        self._uploader = uploader
        self._name = name
        self._create = create
        self._creating = asyncio.Lock()
        self._keep = keep

    @property
    def name(self) -> str:
        """Its full name, "sessions/…". A new session has one once something was asked of it."""
        if not self._name:
            raise UsageError("the session is not created yet; enter its block, or await open()")
        return self._name

    async def open(self) -> Self:
        """Creates the session if that has not been done yet."""
        async with self._creating:
            if not self._name:
                assert self._create is not None, "a session without a name has a request"
                made = await self._calls.unary(methods.CREATE_SESSION, self._create)
                self._name = made.session.name
        return self

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._keep or self._calls.closed:
            return
        try:
            await self.delete()
        except IxcError:
            if error is None:  # else it would hide what went wrong in the block
                raise

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name or 'not created yet'}>"

    # --- talking

    async def say(self, message: MessageLike, /, **options: Unpack[ChatOptions]) -> Answer:
        """Sends a message and returns the whole answer."""
        await self.open()
        async with self._stream(message, whole=True, options=options) as stream:
            return await stream.read()

    def stream(self, message: MessageLike, /, **options: Unpack[ChatOptions]) -> AsyncAnswerStream:
        """Sends a message, when first read, and gives the answer as it comes.

        The session must be there: inside its block, or after `await open()`.
        """
        return self._stream(message, whole=False, options=options)

    async def count(
        self,
        message: MessageLike,
        /,
        *,
        images: ImageLike | Sequence[ImageLike] = (),
        videos: VideoLike | Sequence[VideoLike] = (),
    ) -> TokenCount:
        """What the conversation would cost in tokens with this message as its next."""
        enclosures = Enclosures()
        request = requests.count(
            message,
            images=images,
            videos=videos,
            system=None,
            session=(await self.open()).name,
            model="",
            enclosures=enclosures,
        )
        await self._uploader.enclose(enclosures)
        reply = await self._unary(methods.COUNT_TOKENS, request)
        return replies.token_count(reply)

    # --- the conversation as a thing

    async def info(self) -> SessionInfo:
        request = methods.GET_SESSION.request(name=(await self.open()).name)
        reply = await self._unary(methods.GET_SESSION, request)
        return replies.session(reply.session)

    async def turns(self, *, token_ids: bool = False) -> AsyncIterator[Turn]:
        """Questions and answers, oldest first."""
        view = session_pb2.TURN_VIEW_FULL if token_ids else session_pb2.TURN_VIEW_BASIC
        request = methods.LIST_TURNS.request(parent=(await self.open()).name, view=view)
        while True:
            page = await self._unary(methods.LIST_TURNS, request)
            for item in page.turns:
                yield replies.turn(item)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def update(
        self,
        *,
        ttl: float | NotGiven | None = NOT_GIVEN,
        labels: Mapping[str, str] | NotGiven | None = NOT_GIVEN,
        sampling: Sampling | NotGiven | None = NOT_GIVEN,
        etag: str = "",
    ) -> SessionInfo:
        """Changes what is given; None goes back to the default. With `etag`, only if current."""
        request = requests.update_session(
            (await self.open()).name, ttl=ttl, labels=labels, sampling=sampling, etag=etag
        )
        reply = await self._unary(methods.UPDATE_SESSION, request)
        return replies.session(reply.session)

    async def fork(
        self, *, at_turn: int | None = None, session_id: str = "", ttl: float | None = None
    ) -> "AsyncSession":
        """A second conversation with the first `at_turn` turns of this one (None: all).

        Both go on independently. The fork is kept when its `async with` block is left.
        """
        request = requests.fork_session(
            (await self.open()).name, at_turn=at_turn, session_id=session_id, ttl=ttl
        )
        reply = await self._unary(methods.FORK_SESSION, request)
        return AsyncSession(self._calls, self._uploader, name=reply.session.name, keep=True)

    async def rewind(self, to_turn: int) -> SessionInfo:
        """Removes all turns but the first `to_turn`, for good; fork first to keep them."""
        request = methods.REWIND_SESSION.request(name=(await self.open()).name, to_turn=to_turn)
        reply = await self._unary(methods.REWIND_SESSION, request)
        return replies.session(reply.session)

    async def delete(self) -> None:
        """Deletes the session with its turns. One that is not there is no error."""
        if self._name:
            request = methods.DELETE_SESSION.request(name=self._name, allow_missing=True)
            await self._unary(methods.DELETE_SESSION, request)

    # --- how it is done

    def _stream(
        self, message: MessageLike, *, whole: bool, options: ChatOptions
    ) -> AsyncAnswerStream:
        retries = self._calls.retries
        enclosures = Enclosures()
        request = requests.chat(
            self.name,
            message,
            whole=whole,
            resumable=retries.attempts > 1,
            enclosures=enclosures,
            **options,
        )
        state = StreamState((methods.CHAT, request), retries=retries, session=self.name)
        return AsyncAnswerStream(self._calls, state, partial(self._uploader.enclose, enclosures))

    async def _unary(
        self, method: methods.Method[methods.RequestT, methods.ResponseT], request: methods.RequestT
    ) -> methods.ResponseT:
        return await self._calls.unary(method, request, session=self._name)
