"""The fake server's RPCs: requests in, responses out, as the contract says, without a model."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ixc.v1 import (
    chat_service_pb2,
    content_pb2,
    events_pb2,
    generation_pb2,
    generation_service_pb2,
    media_service_pb2,
    model_pb2,
    model_service_pb2,
    sampling_pb2,
    session_service_pb2,
    token_service_pb2,
)
from ixc_client import _methods as methods
from ixc_client._fake_media import (
    CHUNK_BYTES,
    IMAGE_TOKENS,
    INLINE_BYTES,
    VIDEO_FRAMES,
    VIDEO_TOKENS,
    FakeMedia,
)
from ixc_client._fake_runs import FakeRun, Reply
from ixc_client._fake_sessions import CONTEXT_LIMIT, FakeSessions, Refusal, turn_of

MODEL = model_pb2.Model(
    name="models/fake",
    display_name="Fake",
    description="Answers as scripted.",
    weights_digest="fa" * 32,
    context_limit=CONTEXT_LIMIT,
    vocab_size=0x110000,
    eos_token_ids=[0],
    default_sampling=sampling_pb2.SamplingParams(temperature=1.0, top_p=0.8),
    adapters=["web", "write"],
    image_input=model_pb2.ImageInput(
        tile_size=560, hd_num_single=24, hd_num_several=6, hd_num_max=36
    ),
    system_presets=[
        model_pb2.SystemPresetText(
            preset=content_pb2.SYSTEM_PRESET_META_INSTRUCTION_DEFAULT, text="You are a fake."
        )
    ],
    dtype=model_pb2.DATA_TYPE_FLOAT32,
)
SERVER = model_pb2.ServerInfo(
    version="0",
    instance="fake",
    default_model=MODEL.name,
    limits=model_pb2.Limits(
        context_limit=CONTEXT_LIMIT,
        max_message_bytes=4 << 20,
        max_inline_image_bytes=INLINE_BYTES,
        max_upload_chunk_bytes=CHUNK_BYTES,
    ),
    plan=model_pb2.StartupPlan(backend=model_pb2.BACKEND_CPU, page_size=16, num_pages=4096),
    capabilities=[
        model_pb2.CAPABILITY_IMAGE_INPUT,
        model_pb2.CAPABILITY_VIDEO_INPUT,
        model_pb2.CAPABILITY_ADAPTERS,
    ],
)


class FakeService:
    """`next_reply` is asked for the answer to each question that begins a generation."""

    def __init__(self, next_reply: Callable[[str], Reply]) -> None:
        self._next_reply = next_reply
        self._sessions = FakeSessions()
        self.media = FakeMedia()
        self._runs: dict[str, FakeRun] = {}
        self._by_request_id: dict[str, FakeRun] = {}
        self._numbers = itertools.count(1)
        self.unary: Mapping[methods.Method[Any, Any], Callable[[Any], Any]] = {
            methods.GET_GENERATION: self._get_generation,
            methods.LIST_GENERATIONS: self._list_generations,
            methods.CANCEL_GENERATION: self._cancel_generation,
            methods.CREATE_SESSION: self._create_session,
            methods.GET_SESSION: self._get_session,
            methods.LIST_SESSIONS: self._list_sessions,
            methods.LIST_TURNS: self._list_turns,
            methods.UPDATE_SESSION: self._update_session,
            methods.FORK_SESSION: self._fork_session,
            methods.REWIND_SESSION: self._rewind_session,
            methods.DELETE_SESSION: self._delete_session,
            methods.GET_UPLOAD: lambda request: media_service_pb2.GetUploadResponse(
                upload=self.media.get_upload(request.upload_id)
            ),
            methods.GET_MEDIA: lambda request: media_service_pb2.GetMediaResponse(
                media=self.media.get(request.name)
            ),
            methods.LIST_MEDIA: self._list_media,
            methods.DELETE_MEDIA: self._delete_media,
            methods.COUNT_TOKENS: self._count_tokens,
            methods.TOKENIZE: lambda request: token_service_pb2.TokenizeResponse(
                token_ids=[ord(mark) for mark in request.text]
            ),
            methods.DETOKENIZE: lambda request: token_service_pb2.DetokenizeResponse(
                text="".join(map(chr, request.token_ids))
            ),
            methods.GET_MODEL: self._get_model,
            methods.LIST_MODELS: lambda _: model_service_pb2.ListModelsResponse(models=[MODEL]),
            methods.GET_SERVER_INFO: lambda _: model_service_pb2.GetServerInfoResponse(
                server=SERVER
            ),
            methods.GET_LOAD: lambda _: model_service_pb2.GetLoadResponse(
                load=model_pb2.Load(state=model_pb2.SERVER_STATE_SERVING, pages_total=4096)
            ),
        }
        self.streams: Mapping[methods.Method[Any, Any], Callable[[Any, Any], Iterator[Any]]] = {
            methods.GENERATE: self._generate,
            methods.CHAT: self._chat,
            methods.WATCH_GENERATION: self._watch,
        }

        self.upstreams: Mapping[methods.Method[Any, Any], Callable[[Any, Iterator[Any]], Any]] = {
            methods.UPLOAD_MEDIA: self.media.upload,
        }

    def release(self) -> None:
        for run in list(self._runs.values()):
            run.release()

    # --- generations

    def _generate(
        self, request: generation_service_pb2.GenerateRequest, context: Any
    ) -> Iterator[generation_service_pb2.GenerateResponse]:
        run = self._known(request.request_id)
        if run is None:
            contents = request.prompt.contents.contents
            self.media.check(contents)
            run = self._begin(request, contents[-1] if contents else None, self._cost(contents))
        for event in self._read(run, request, context, after=request.after_sequence):
            yield generation_service_pb2.GenerateResponse(event=event)

    def _chat(
        self, request: chat_service_pb2.ChatRequest, context: Any
    ) -> Iterator[chat_service_pb2.ChatResponse]:
        run = self._known(request.request_id)
        if run is None:
            self.media.check([request.message])
            session = self._sessions.get(request.session)
            cost = self._cost([request.message], history=session.context_tokens)
            run = self._begin(request, request.message, cost, session=session.name)
        for event in self._read(run, request, context, after=request.after_sequence):
            yield chat_service_pb2.ChatResponse(event=event)

    def _watch(
        self, request: generation_service_pb2.WatchGenerationRequest, context: Any
    ) -> Iterator[generation_service_pb2.WatchGenerationResponse]:
        run = self._run(request.name)
        whole = request.delivery == sampling_pb2.DELIVERY_FINAL_ONLY
        for event in run.events(context, request.after_sequence, whole=whole):
            yield generation_service_pb2.WatchGenerationResponse(event=event)

    def _known(self, request_id: str) -> FakeRun | None:
        run = self._by_request_id.get(request_id) if request_id else None
        if run is not None:
            run.deduplicated = True
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
                "NOT_FOUND", "GENERATION_NOT_FOUND", "no such generation", generation=name
            )
        return self._runs[name]

    def _get_generation(
        self, request: generation_service_pb2.GetGenerationRequest
    ) -> generation_service_pb2.GetGenerationResponse:
        return generation_service_pb2.GetGenerationResponse(
            generation=self._run(request.name).record()
        )

    def _list_generations(
        self, request: generation_service_pb2.ListGenerationsRequest
    ) -> generation_service_pb2.ListGenerationsResponse:
        runs = [
            run for run in reversed(self._runs.values()) if request.session in ("", run.session)
        ]
        return generation_service_pb2.ListGenerationsResponse(
            generations=[run.record() for run in runs]
        )

    def _cancel_generation(
        self, request: generation_service_pb2.CancelGenerationRequest
    ) -> generation_service_pb2.CancelGenerationResponse:
        run = self._run(request.name)
        run.cancel()
        return generation_service_pb2.CancelGenerationResponse(generation=run.record())

    # --- sessions

    def _create_session(
        self, request: session_service_pb2.CreateSessionRequest
    ) -> session_service_pb2.CreateSessionResponse:
        session = self._sessions.create(request.request_id, request.session_id, request.session)
        return session_service_pb2.CreateSessionResponse(session=session)

    def _get_session(
        self, request: session_service_pb2.GetSessionRequest
    ) -> session_service_pb2.GetSessionResponse:
        return session_service_pb2.GetSessionResponse(session=self._sessions.get(request.name))

    def _list_sessions(
        self, request: session_service_pb2.ListSessionsRequest
    ) -> session_service_pb2.ListSessionsResponse:
        page, token = _page(self._sessions.matching(request.labels), request)
        return session_service_pb2.ListSessionsResponse(sessions=page, next_page_token=token)

    def _list_turns(
        self, request: session_service_pb2.ListTurnsRequest
    ) -> session_service_pb2.ListTurnsResponse:
        page, token = _page(self._sessions.turns(request.parent), request)
        return session_service_pb2.ListTurnsResponse(turns=page, next_page_token=token)

    def _update_session(
        self, request: session_service_pb2.UpdateSessionRequest
    ) -> session_service_pb2.UpdateSessionResponse:
        session = self._sessions.update(request.session, list(request.update_mask.paths))
        return session_service_pb2.UpdateSessionResponse(session=session)

    def _fork_session(
        self, request: session_service_pb2.ForkSessionRequest
    ) -> session_service_pb2.ForkSessionResponse:
        at_turn = request.at_turn if request.HasField("at_turn") else None
        session = self._sessions.fork(request.name, at_turn, request.request_id, request.session_id)
        return session_service_pb2.ForkSessionResponse(session=session)

    def _rewind_session(
        self, request: session_service_pb2.RewindSessionRequest
    ) -> session_service_pb2.RewindSessionResponse:
        session = self._sessions.rewind(request.name, request.to_turn)
        return session_service_pb2.RewindSessionResponse(session=session)

    def _delete_session(
        self, request: session_service_pb2.DeleteSessionRequest
    ) -> session_service_pb2.DeleteSessionResponse:
        self._sessions.delete(request.name, allow_missing=request.allow_missing)
        return session_service_pb2.DeleteSessionResponse()

    # --- media

    def _list_media(
        self, request: media_service_pb2.ListMediaRequest
    ) -> media_service_pb2.ListMediaResponse:
        page, token = _page(self.media.matching(request.states), request)
        return media_service_pb2.ListMediaResponse(media=page, next_page_token=token)

    def _delete_media(
        self, request: media_service_pb2.DeleteMediaRequest
    ) -> media_service_pb2.DeleteMediaResponse:
        used_by = self._sessions.session_with(request.name.removeprefix("media/"))
        self.media.delete(request.name, used_by=used_by, allow_missing=request.allow_missing)
        return media_service_pb2.DeleteMediaResponse()

    # --- tokens and the model

    def _count_tokens(
        self, request: token_service_pb2.CountTokensRequest
    ) -> token_service_pb2.CountTokensResponse:
        history = self._sessions.get(request.session).context_tokens if request.session else 0
        contents = request.prompt.contents.contents
        self.media.check(contents)
        usage = self._cost(contents, history=history)
        return token_service_pb2.CountTokensResponse(
            total_tokens=usage.prompt_tokens + len(request.prompt.tokens.token_ids),
            image_tokens=usage.image_tokens,
            images=[
                token_service_pb2.ImageCount(
                    width=560, height=560, tiles_wide=1, tiles_high=1, tokens=IMAGE_TOKENS
                )
            ]
            * (usage.image_tokens // IMAGE_TOKENS),
            video_tokens=usage.video_tokens,
            videos=[
                token_service_pb2.VideoCount(
                    width=560,
                    height=280,
                    frames=VIDEO_FRAMES,
                    tiles_wide=1,
                    tiles_high=3,
                    tokens=VIDEO_TOKENS,
                )
            ]
            * (usage.video_tokens // VIDEO_TOKENS),
            context_limit=CONTEXT_LIMIT,
        )

    def _get_model(
        self, request: model_service_pb2.GetModelRequest
    ) -> model_service_pb2.GetModelResponse:
        if request.name not in ("", MODEL.name):
            raise Refusal("NOT_FOUND", "MODEL_NOT_FOUND", "no such model", model=request.name)
        return model_service_pb2.GetModelResponse(model=MODEL)

    @staticmethod
    def _cost(contents: Iterable[content_pb2.Content], history: int = 0) -> generation_pb2.Usage:
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


def _page(items: list[Any], request: Any) -> tuple[list[Any], str]:
    """One page of a list; page tokens are offsets."""
    start = int(request.page_token or 0)
    end = start + (request.page_size or 50)
    return items[start:end], str(end) if end < len(items) else ""
