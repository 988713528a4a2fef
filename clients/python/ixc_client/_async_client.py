"""The client, the asyncio way. The blocking twin is `_client`: same names, same meaning.

What is sent is built in `_requests`, what comes back is read in `_replies` and `_answer`; here is
only which call answers which wish. The channel belongs to the event loop that runs at its first
call.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self, Unpack, overload

from ixc_client import _methods as methods
from ixc_client import _requests as requests
from ixc_client import _resource_replies as replies
from ixc_client._answer import StreamState
from ixc_client._async_calls import AsyncCalls
from ixc_client._async_session import AsyncSession
from ixc_client._async_stream import AsyncAnswerStream
from ixc_client._async_uploader import AsyncUploader
from ixc_client._async_weights import AsyncOperations, AsyncWeights
from ixc_client._blob import Source, open_blob
from ixc_client._enclosures import Enclosures
from ixc_client._errors import ConnectionFailed, ServerError
from ixc_client._events import Answer
from ixc_client._health import Health
from ixc_client._inputs import (
    GenerateOptions,
    PromptLike,
    PromptT,
    Sampling,
    System,
)
from ixc_client._media import ImageLike, Media, MediaState, VideoLike
from ixc_client._resources import (
    GenerationInfo,
    Load,
    ModelInfo,
    ServerInfo,
    SessionInfo,
    TokenCount,
)
from ixc_client._settings import Retries, Timeouts, Tls
from ixc_client._upload import Progress


class AsyncClient:
    """A connection to a server. Tasks of one event loop share it; close it, or use `async with`.

    >>> async with AsyncClient("localhost:50051") as ixc:  # doctest: +SKIP
    ...     print(await ixc.generate("What is this?", images="cat.jpg"))

    Args:
        address: "host:port", or "unix:/path/to/socket".
        timeouts: how long to wait; see `Timeouts`.
        retries: how often to try again; see `Retries`.
        tls: certificates; None speaks plaintext, which is meant for this machine and for meshes.
        headers: sent with every call, such as {"authorization": "Bearer …"}.
    """

    def __init__(
        self,
        address: str = "localhost:50051",
        *,
        timeouts: Timeouts | None = None,
        retries: Retries | None = None,
        tls: Tls | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._calls = AsyncCalls(
            address,
            timeouts=timeouts or Timeouts(),
            retries=retries or Retries(),
            tls=tls,
            headers=headers or {},
        )
        self._uploader = AsyncUploader(self._calls)
        self.weights = AsyncWeights(self._calls, self._uploader)
        self.operations = AsyncOperations(self._calls)

    @property
    def address(self) -> str:
        return self._calls.address

    async def close(self) -> None:
        """Ends every call under way and the connection. A closed client stays closed."""
        await self._calls.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = " closed" if self._calls.closed else ""
        return f"<{type(self).__name__} {self.address}{state}>"

    # --- answers

    @overload
    async def generate(
        self, prompt: PromptLike, /, *, concurrency: int = ..., **options: Unpack[GenerateOptions]
    ) -> Answer: ...
    @overload
    async def generate(
        self,
        prompt: list[PromptT],
        /,
        *,
        concurrency: int = ...,
        **options: Unpack[GenerateOptions],
    ) -> list[Answer]: ...
    async def generate(
        self,
        prompt: PromptLike | list[PromptT],
        /,
        *,
        concurrency: int = 16,
        **options: Unpack[GenerateOptions],
    ) -> Answer | list[Answer]:
        """The answer to a prompt; to a list of prompts, a list of answers in the same order.

        A prompt is a text, a (text, pictures and clips) pair, a `Message`, a `Conversation` or a
        `TokenPrompt`. Of a list, `concurrency` are under way at a time; the first failure cancels
        the rest and is raised.
        """
        if not isinstance(prompt, list):
            return await self._generate_one(prompt, options)
        requests.check_batch(prompt, options)
        return await self._generate_all(prompt, concurrency, options)

    def stream(
        self, prompt: PromptLike, /, **options: Unpack[GenerateOptions]
    ) -> AsyncAnswerStream:
        """The answer to a prompt, as it comes. Nothing is sent until it is read."""
        return self._generation(prompt, whole=False, options=options)

    def watch(self, generation: str, *, after_sequence: int = 0) -> AsyncAnswerStream:
        """Follows a generation, running or just ended, from a point of its log.

        Leaving the stream early does not stop it, as this reader did not begin it.
        """
        return AsyncAnswerStream(
            self._calls,
            StreamState(
                None,
                retries=self._calls.retries,
                generation=requests.generation_name(generation),
                after_sequence=after_sequence,
            ),
        )

    async def cancel(self, generation: str) -> GenerationInfo:
        """Stops a generation, and returns it stopped. One that has ended is returned as it is."""
        request = requests.cancel(generation)
        reply = await self._calls.unary(methods.CANCEL_GENERATION, request)
        return replies.generation(reply.generation)

    async def get_generation(self, generation: str) -> GenerationInfo:
        request = methods.GET_GENERATION.request(name=requests.generation_name(generation))
        reply = await self._calls.unary(methods.GET_GENERATION, request)
        return replies.generation(reply.generation)

    async def list_generations(self, *, session: str = "") -> AsyncIterator[GenerationInfo]:
        """Those that run or have just ended, newest first, without their texts."""
        request = methods.LIST_GENERATIONS.request(
            session=requests.session_name(session) if session else ""
        )
        while True:
            page = await self._calls.unary(methods.LIST_GENERATIONS, request)
            for item in page.generations:
                yield replies.generation(item)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    # --- sessions

    def session(
        self,
        *,
        system: System = None,
        sampling: Sampling | None = None,
        ttl: float | None = None,
        labels: Mapping[str, str] | None = None,
        session_id: str = "",
        model: str = "",
        keep: bool = False,
    ) -> AsyncSession:
        """A new conversation, which the server keeps.

        It is created with the first thing asked of it, or on entering its `with` block; leaving
        the block deletes it unless `keep` is set. `ttl` is how many seconds it may stay unused.
        """
        request = requests.create_session(
            system=system,
            sampling=sampling,
            ttl=ttl,
            labels=labels,
            session_id=session_id,
            model=model,
        )
        return AsyncSession(self._calls, self._uploader, create=request, keep=keep)

    def open_session(self, name: str) -> AsyncSession:
        """A conversation that exists, by its name. Leaving its `with` block leaves it there."""
        name = requests.session_name(name)
        return AsyncSession(self._calls, self._uploader, name=name, keep=True)

    async def get_session(self, name: str) -> SessionInfo:
        return await self.open_session(name).info()

    async def list_sessions(
        self, *, labels: Mapping[str, str] | None = None
    ) -> AsyncIterator[SessionInfo]:
        """Newest first; with `labels`, those that carry all of them."""
        request = methods.LIST_SESSIONS.request(labels=labels)
        while True:
            page = await self._calls.unary(methods.LIST_SESSIONS, request)
            for item in page.sessions:
                yield replies.session(item)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def delete_session(self, name: str) -> None:
        """Deletes it with its turns, for good. One that is not there is no error."""
        await self.open_session(name).delete()

    # --- media

    async def upload(
        self,
        source: Source,
        *,
        mime_type: str = "",
        ttl: float | None = None,
        progress: Progress | None = None,
    ) -> Media:
        """Sends a picture or clip once, to be named in any number of prompts.

        A path, bytes or an open binary file. A connection that breaks is taken up where it broke,
        also by a later program; what the server has already is not sent at all. `ttl` is how many
        seconds it is kept (None: the server's default), `progress` is called with the bytes sent
        and all of them. Bytes that cannot be used raise MediaUndecodable.
        """
        blob = await asyncio.to_thread(open_blob, source)
        return await self._uploader.upload(blob, mime_type=mime_type, ttl=ttl, progress=progress)

    async def media(self, name: str) -> Media:
        """What is known of an uploaded picture or clip: its size, its tokens, its time."""
        request = methods.GET_MEDIA.request(name=requests.media_name(name))
        reply = await self._calls.unary(methods.GET_MEDIA, request)
        return replies.media(reply.media)

    async def list_media(self, *, states: Sequence[MediaState] = ()) -> AsyncIterator[Media]:
        """Newest first; with `states`, those in one of them."""
        request = methods.LIST_MEDIA.request(states=requests.media_states(states))
        while True:
            page = await self._calls.unary(methods.LIST_MEDIA, request)
            for item in page.media:
                yield replies.media(item)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def delete_media(self, media: Media | str) -> None:
        """Deletes it for good. One that is not there is no error, one in use is MediaInUse."""
        name = requests.media_name(media)
        request = methods.DELETE_MEDIA.request(name=name, allow_missing=True)
        await self._calls.unary(methods.DELETE_MEDIA, request)

    # --- tokens

    async def count(
        self,
        prompt: PromptLike,
        /,
        *,
        images: ImageLike | Sequence[ImageLike] = (),
        videos: VideoLike | Sequence[VideoLike] = (),
        system: System = None,
        model: str = "",
    ) -> TokenCount:
        """What a prompt costs in tokens, pictures and clips included, before it is paid for."""
        enclosures = Enclosures()
        request = requests.count(
            prompt,
            images=images,
            videos=videos,
            system=system,
            session="",
            model=model,
            enclosures=enclosures,
        )
        await self._uploader.enclose(enclosures)
        reply = await self._calls.unary(methods.COUNT_TOKENS, request)
        return replies.token_count(reply)

    async def tokenize(self, text: str, *, model: str = "") -> list[int]:
        request = methods.TOKENIZE.request(text=text, model=requests.model_name(model))
        reply = await self._calls.unary(methods.TOKENIZE, request)
        return list(reply.token_ids)

    async def detokenize(self, token_ids: Sequence[int], *, model: str = "") -> str:
        request = methods.DETOKENIZE.request(token_ids=token_ids, model=requests.model_name(model))
        reply = await self._calls.unary(methods.DETOKENIZE, request)
        return reply.text

    # --- the server

    async def model(self, name: str = "") -> ModelInfo:
        """A model by name; the server's default one without."""
        request = methods.GET_MODEL.request(name=requests.model_name(name))
        reply = await self._calls.unary(methods.GET_MODEL, request)
        return replies.model(reply.model)

    async def list_models(self) -> AsyncIterator[ModelInfo]:
        request = methods.LIST_MODELS.request()
        while True:
            page = await self._calls.unary(methods.LIST_MODELS, request)
            for item in page.models:
                yield replies.model(item)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def server_info(self) -> ServerInfo:
        """Which server this is, its limits, and how it divided its memory."""
        request = methods.GET_SERVER_INFO.request()
        reply = await self._calls.unary(methods.GET_SERVER_INFO, request)
        return replies.server(reply.server)

    async def load(self) -> Load:
        request = methods.GET_LOAD.request()
        reply = await self._calls.unary(methods.GET_LOAD, request)
        return replies.load(reply.load)

    async def is_ready(self) -> bool:
        """Whether the server takes work now, by the standard health service."""
        try:
            status = await self._calls.health("readiness")
        except (ConnectionFailed, ServerError):
            return False
        return status is Health.SERVING

    # --- how it is done

    def _generation(
        self, prompt: PromptLike, *, whole: bool, options: GenerateOptions
    ) -> AsyncAnswerStream:
        enclosures = Enclosures()
        request = requests.generate(
            prompt,
            whole=whole,
            resumable=self._calls.retries.attempts > 1,
            enclosures=enclosures,
            **options,
        )
        state = StreamState((methods.GENERATE, request), retries=self._calls.retries)
        return AsyncAnswerStream(self._calls, state, partial(self._uploader.enclose, enclosures))

    async def _generate_one(self, prompt: PromptLike, options: GenerateOptions) -> Answer:
        async with self._generation(prompt, whole=True, options=options) as stream:
            return await stream.read()

    async def _generate_all(
        self, prompts: Sequence[PromptLike], concurrency: int, options: GenerateOptions
    ) -> list[Answer]:
        places = asyncio.Semaphore(max(1, concurrency))

        async def one(prompt: PromptLike) -> Answer:
            async with places:
                return await self._generate_one(prompt, options)

        tasks = [asyncio.create_task(one(prompt)) for prompt in prompts]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            # A cancelled task leaves its stream's block, which stops the generation.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
