"""The client, the blocking way. The asyncio twin is `_async_client`: same names, same meaning.

What is sent is built in `_requests`, what comes back is read in `_replies` and `_answer`; here is
only which call answers which wish.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from types import TracebackType
from typing import Self, Unpack, overload

from ixc_client import _methods as methods
from ixc_client import _requests as requests
from ixc_client import _resource_replies as replies
from ixc_client._answer import StreamState
from ixc_client._blob import Source, open_blob
from ixc_client._calls import Calls
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
from ixc_client._session import Session
from ixc_client._settings import Retries, Timeouts, Tls
from ixc_client._stream import AnswerStream
from ixc_client._upload import Progress
from ixc_client._uploader import Uploader
from ixc_client._weights import Operations, Weights


class Client:
    """A connection to a server. Threads may share it; close it, or use it as a context manager.

    >>> with Client("localhost:50051") as ixc:  # doctest: +SKIP
    ...     print(ixc.generate("What is this?", images="cat.jpg"))

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
        self._calls = Calls(
            address,
            timeouts=timeouts or Timeouts(),
            retries=retries or Retries(),
            tls=tls,
            headers=headers or {},
        )
        self._uploader = Uploader(self._calls)
        self.weights = Weights(self._calls, self._uploader)
        self.operations = Operations(self._calls)

    @property
    def address(self) -> str:
        return self._calls.address

    def close(self) -> None:
        """Ends every call under way and the connection. A closed client stays closed."""
        self._calls.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = " closed" if self._calls.closed else ""
        return f"<{type(self).__name__} {self.address}{state}>"

    # --- answers

    @overload
    def generate(
        self, prompt: PromptLike, /, *, concurrency: int = ..., **options: Unpack[GenerateOptions]
    ) -> Answer: ...
    @overload
    def generate(
        self,
        prompt: list[PromptT],
        /,
        *,
        concurrency: int = ...,
        **options: Unpack[GenerateOptions],
    ) -> list[Answer]: ...
    def generate(
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
            return self._generate_one(prompt, options)
        requests.check_batch(prompt, options)
        return self._generate_all(prompt, concurrency, options)

    def stream(self, prompt: PromptLike, /, **options: Unpack[GenerateOptions]) -> AnswerStream:
        """The answer to a prompt, as it comes. Nothing is sent until it is read."""
        return self._generation(prompt, whole=False, options=options)

    def watch(self, generation: str, *, after_sequence: int = 0) -> AnswerStream:
        """Follows a generation, running or just ended, from a point of its log.

        Leaving the stream early does not stop it, as this reader did not begin it.
        """
        return AnswerStream(
            self._calls,
            StreamState(
                None,
                retries=self._calls.retries,
                generation=requests.generation_name(generation),
                after_sequence=after_sequence,
            ),
        )

    def cancel(self, generation: str) -> GenerationInfo:
        """Stops a generation, and returns it stopped. One that has ended is returned as it is."""
        request = requests.cancel(generation)
        reply = self._calls.unary(methods.CANCEL_GENERATION, request)
        return replies.generation(reply.generation)

    def get_generation(self, generation: str) -> GenerationInfo:
        request = methods.GET_GENERATION.request(name=requests.generation_name(generation))
        reply = self._calls.unary(methods.GET_GENERATION, request)
        return replies.generation(reply.generation)

    def list_generations(self, *, session: str = "") -> Iterator[GenerationInfo]:
        """Those that run or have just ended, newest first, without their texts."""
        request = methods.LIST_GENERATIONS.request(
            session=requests.session_name(session) if session else ""
        )
        while True:
            page = self._calls.unary(methods.LIST_GENERATIONS, request)
            yield from map(replies.generation, page.generations)
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
    ) -> Session:
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
        return Session(self._calls, self._uploader, create=request, keep=keep)

    def open_session(self, name: str) -> Session:
        """A conversation that exists, by its name. Leaving its `with` block leaves it there."""
        name = requests.session_name(name)
        return Session(self._calls, self._uploader, name=name, keep=True)

    def get_session(self, name: str) -> SessionInfo:
        return self.open_session(name).info()

    def list_sessions(self, *, labels: Mapping[str, str] | None = None) -> Iterator[SessionInfo]:
        """Newest first; with `labels`, those that carry all of them."""
        request = methods.LIST_SESSIONS.request(labels=labels)
        while True:
            page = self._calls.unary(methods.LIST_SESSIONS, request)
            yield from map(replies.session, page.sessions)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def delete_session(self, name: str) -> None:
        """Deletes it with its turns, for good. One that is not there is no error."""
        self.open_session(name).delete()

    # --- media

    def upload(
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
        blob = open_blob(source)
        return self._uploader.upload(blob, mime_type=mime_type, ttl=ttl, progress=progress)

    def media(self, name: str) -> Media:
        """What is known of an uploaded picture or clip: its size, its tokens, its time."""
        request = methods.GET_MEDIA.request(name=requests.media_name(name))
        reply = self._calls.unary(methods.GET_MEDIA, request)
        return replies.media(reply.media)

    def list_media(self, *, states: Sequence[MediaState] = ()) -> Iterator[Media]:
        """Newest first; with `states`, those in one of them."""
        request = methods.LIST_MEDIA.request(states=requests.media_states(states))
        while True:
            page = self._calls.unary(methods.LIST_MEDIA, request)
            yield from map(replies.media, page.media)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def delete_media(self, media: Media | str) -> None:
        """Deletes it for good. One that is not there is no error, one in use is MediaInUse."""
        name = requests.media_name(media)
        request = methods.DELETE_MEDIA.request(name=name, allow_missing=True)
        self._calls.unary(methods.DELETE_MEDIA, request)

    # --- tokens

    def count(
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
        self._uploader.enclose(enclosures)
        reply = self._calls.unary(methods.COUNT_TOKENS, request)
        return replies.token_count(reply)

    def tokenize(self, text: str, *, model: str = "") -> list[int]:
        request = methods.TOKENIZE.request(text=text, model=requests.model_name(model))
        reply = self._calls.unary(methods.TOKENIZE, request)
        return list(reply.token_ids)

    def detokenize(self, token_ids: Sequence[int], *, model: str = "") -> str:
        request = methods.DETOKENIZE.request(token_ids=token_ids, model=requests.model_name(model))
        reply = self._calls.unary(methods.DETOKENIZE, request)
        return reply.text

    # --- the server

    def model(self, name: str = "") -> ModelInfo:
        """A model by name; the server's default one without."""
        request = methods.GET_MODEL.request(name=requests.model_name(name))
        reply = self._calls.unary(methods.GET_MODEL, request)
        return replies.model(reply.model)

    def list_models(self) -> Iterator[ModelInfo]:
        request = methods.LIST_MODELS.request()
        while True:
            page = self._calls.unary(methods.LIST_MODELS, request)
            yield from map(replies.model, page.models)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def server_info(self) -> ServerInfo:
        """Which server this is, its limits, and how it divided its memory."""
        request = methods.GET_SERVER_INFO.request()
        reply = self._calls.unary(methods.GET_SERVER_INFO, request)
        return replies.server(reply.server)

    def load(self) -> Load:
        request = methods.GET_LOAD.request()
        reply = self._calls.unary(methods.GET_LOAD, request)
        return replies.load(reply.load)

    def is_ready(self) -> bool:
        """Whether the server takes work now, by the standard health service."""
        try:
            status = self._calls.health("readiness")
        except (ConnectionFailed, ServerError):
            return False
        return status is Health.SERVING

    # --- how it is done

    def _generation(
        self, prompt: PromptLike, *, whole: bool, options: GenerateOptions
    ) -> AnswerStream:
        enclosures = Enclosures()
        request = requests.generate(
            prompt,
            whole=whole,
            resumable=self._calls.retries.attempts > 1,
            enclosures=enclosures,
            **options,
        )
        state = StreamState((methods.GENERATE, request), retries=self._calls.retries)
        return AnswerStream(self._calls, state, partial(self._uploader.enclose, enclosures))

    def _generate_one(self, prompt: PromptLike, options: GenerateOptions) -> Answer:
        with self._generation(prompt, whole=True, options=options) as stream:
            return stream.read()

    def _generate_all(
        self, prompts: Sequence[PromptLike], concurrency: int, options: GenerateOptions
    ) -> list[Answer]:
        running: set[AnswerStream] = set()
        stopping = threading.Event()

        def one(prompt: PromptLike) -> Answer:
            # Read here and not before: a long list's pictures are never all in memory.
            with self._generation(prompt, whole=True, options=options) as stream:
                running.add(stream)
                if stopping.is_set():
                    stream.cancel()
                try:
                    return stream.read()
                finally:
                    running.discard(stream)

        with ThreadPoolExecutor(max(1, min(concurrency, len(prompts)))) as pool:
            answers = [pool.submit(one, prompt) for prompt in prompts]
            try:
                for done in wait(answers, return_when=FIRST_EXCEPTION).done:
                    done.result()
                return [answer.result() for answer in answers]
            finally:  # nothing is left to stop unless one of them failed
                stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                for stream in list(running):
                    with contextlib.suppress(ConnectionFailed, ServerError):
                        stream.cancel()
