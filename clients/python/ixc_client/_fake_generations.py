"""The fake server's generations: scripted answers, told as often as anyone asks, and what they
cost.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ixc.v1 import (
    chat_service_pb2,
    content_pb2,
    events_pb2,
    generation_pb2,
    generation_service_pb2,
    sampling_pb2,
)
from ixc_client._fake_media import IMAGE_TOKENS, VIDEO_TOKENS, FakeMedia
from ixc_client._fake_model import MODEL
from ixc_client._fake_runs import FakeRun, Reply
from ixc_client._fake_sessions import FakeSessions, Refusal, turn_of


class FakeGenerations:
    """`next_reply` is asked for the answer to each question that begins a generation."""

    def __init__(
        self, next_reply: Callable[[str], Reply], sessions: FakeSessions, media: FakeMedia
    ) -> None:
        self._next_reply = next_reply
        self._sessions = sessions
        self._media = media
        self._runs: dict[str, FakeRun] = {}
        self._by_request_id: dict[str, FakeRun] = {}
        self._numbers = itertools.count(1)

    def release(self) -> None:
        for run in list(self._runs.values()):
            run.release()

    def restart(self) -> None:
        """Only what a turn was committed of is still known, by the id of its request."""
        runs, self._runs = self._runs, {}
        self._by_request_id = {run.request_id: run for run in runs.values() if run.turn}
        for run in runs.values():
            run.lose()

    def generate(
        self, request: generation_service_pb2.GenerateRequest, context: Any
    ) -> Iterator[generation_service_pb2.GenerateResponse]:
        run = self._known(request.request_id)
        if run is None:
            contents = request.prompt.contents.contents
            self._media.check(contents)
            run = self._begin(request, contents[-1] if contents else None, cost_of(contents))
        for event in self._read(run, request, context, after=request.after_sequence):
            yield generation_service_pb2.GenerateResponse(event=event)

    def chat(
        self, request: chat_service_pb2.ChatRequest, context: Any
    ) -> Iterator[chat_service_pb2.ChatResponse]:
        run = self._known(request.request_id)
        if run is None:
            self._media.check([request.message])
            session = self._sessions.get(request.session)
            cost = cost_of([request.message], history=session.context_tokens)
            run = self._begin(request, request.message, cost, session=session.name)
        for event in self._read(run, request, context, after=request.after_sequence):
            yield chat_service_pb2.ChatResponse(event=event)

    def watch(
        self, request: generation_service_pb2.WatchGenerationRequest, context: Any
    ) -> Iterator[generation_service_pb2.WatchGenerationResponse]:
        run = self._run(request.name)
        whole = request.delivery == sampling_pb2.DELIVERY_FINAL_ONLY
        for event in run.events(context, request.after_sequence, whole=whole):
            yield generation_service_pb2.WatchGenerationResponse(event=event)

    def _known(self, request_id: str) -> FakeRun | None:
        run = self._by_request_id.get(request_id) if request_id else None
        if run is not None:
            run.deduplicated, run.lost = True, False
        return run

    def _begin(
        self,
        request: Any,
        message: content_pb2.Content | None,
        usage: generation_pb2.Usage,
        session: str = "",
    ) -> FakeRun:
        """A new run of the next scripted reply; `request` is a GenerateRequest or a ChatRequest."""
        question = _text(message)
        if message is not None and not message.parts:
            raise Refusal("INVALID_ARGUMENT", "PROMPT_EMPTY", "there is nothing to answer")
        if request.adapter not in ("", "base", *MODEL.adapters):
            raise Refusal(
                "FAILED_PRECONDITION",
                "ADAPTER_UNAVAILABLE",
                f"the checkpoint carries no adapter {request.adapter!r}",
                adapter=request.adapter,
                available="base,web,write",
            )
        name = f"generations/fake-{next(self._numbers)}"
        index = 0
        if session:
            expected = request.expected_turn if request.HasField("expected_turn") else None
            index = self._sessions.begin_turn(session, name, expected)
        reply = self._next_reply(question)
        usage.output_tokens = sum(map(len, reply.pieces))
        run = FakeRun(
            name=name,
            reply=reply,
            request_id=request.request_id,
            session=session,
            turn_index=index,
            adapter=request.adapter or "base",
            sampling=request.sampling,
            usage=usage,
            sends_token_ids=request.output.token_ids,
        )
        if not run.sampling.HasField("seed"):
            run.sampling.seed = 1
        if session:
            self._tie_to_session(run, request)
        self._runs[name] = run
        if request.request_id:
            self._by_request_id[request.request_id] = run
        return run

    def _tie_to_session(self, run: FakeRun, request: chat_service_pb2.ChatRequest) -> None:
        """What becomes of the session when the run ends."""

        def commit(text: str) -> str:
            turn = turn_of(request.message, text, request.request_id, run.usage, run.adapter)
            return self._sessions.end_turn(run.session, turn)

        def discard(_: str = "") -> str:
            return self._sessions.end_turn(run.session, None)

        keep = request.on_cancel == chat_service_pb2.PARTIAL_POLICY_KEEP_PARTIAL
        run.commit = commit
        run.stop = commit if keep else discard
        run.discard = discard

    def _read(
        self, run: FakeRun, request: Any, context: Any, *, after: int
    ) -> Iterator[events_pb2.GenerationEvent]:
        """The stream of the call that began the run, broken where the script wants it."""
        whole = request.output.delivery == sampling_pb2.DELIVERY_FINAL_ONLY
        for count, event in enumerate(run.events(context, after, whole=whole)):
            if not run.cut and count == run.reply.truncate_after:
                run.cut = True
                return
            if not run.cut and count == run.reply.break_after:
                run.cut = True
                raise Refusal("UNAVAILABLE", "", "Socket closed")
            yield event

    def _run(self, name: str) -> FakeRun:
        if name not in self._runs:
            raise Refusal(
                "NOT_FOUND",
                "GENERATION_NOT_FOUND",
                f"no such generation: {name}",
                generation=name,
            )
        return self._runs[name]

    def get(
        self, request: generation_service_pb2.GetGenerationRequest
    ) -> generation_service_pb2.GetGenerationResponse:
        return generation_service_pb2.GetGenerationResponse(
            generation=self._run(request.name).record()
        )

    def matching(
        self, request: generation_service_pb2.ListGenerationsRequest
    ) -> generation_service_pb2.ListGenerationsResponse:
        runs = [
            run for run in reversed(self._runs.values()) if request.session in ("", run.session)
        ]
        return generation_service_pb2.ListGenerationsResponse(
            generations=[run.record() for run in runs]
        )

    def cancel(
        self, request: generation_service_pb2.CancelGenerationRequest
    ) -> generation_service_pb2.CancelGenerationResponse:
        run = self._run(request.name)
        run.cancel()
        return generation_service_pb2.CancelGenerationResponse(generation=run.record())


def cost_of(contents: Iterable[content_pb2.Content], history: int = 0) -> generation_pb2.Usage:
    """A token is a character, a picture a hundred, a clip three; history is cached."""
    text = images = videos = 0
    for content in contents:
        text += len(_text(content))
        kinds = [part.WhichOneof("kind") for part in content.parts]
        images += kinds.count("image") * IMAGE_TOKENS
        videos += kinds.count("video") * VIDEO_TOKENS
    return generation_pb2.Usage(
        prompt_tokens=history + text + images + videos,
        cached_tokens=history,
        image_tokens=images,
        video_tokens=videos,
    )


def _text(content: content_pb2.Content | None) -> str:
    return "".join(part.text for part in content.parts) if content is not None else ""
