"""The fake server's RPCs: requests in, responses out, as the contract says, without a model."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ixc.v1 import (
    media_service_pb2,
    model_pb2,
    model_service_pb2,
    session_service_pb2,
    token_service_pb2,
)
from ixc_client import _methods as methods
from ixc_client._fake_generations import FakeGenerations, cost_of
from ixc_client._fake_media import IMAGE_TOKENS, VIDEO_FRAMES, VIDEO_TOKENS, FakeMedia
from ixc_client._fake_model import MODEL, SERVER
from ixc_client._fake_runs import Reply
from ixc_client._fake_sessions import CONTEXT_LIMIT, FakeSessions, Refusal


class FakeService:
    """`next_reply` is asked for the answer to each question that begins a generation."""

    def __init__(self, next_reply: Callable[[str], Reply]) -> None:
        self._sessions = FakeSessions()
        self.media = FakeMedia()
        self.generations = FakeGenerations(next_reply, self._sessions, self.media)
        self.unary: Mapping[methods.Method[Any, Any], Callable[[Any], Any]] = {
            methods.GET_GENERATION: self.generations.get,
            methods.LIST_GENERATIONS: self.generations.matching,
            methods.CANCEL_GENERATION: self.generations.cancel,
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
            methods.GENERATE: self.generations.generate,
            methods.CHAT: self.generations.chat,
            methods.WATCH_GENERATION: self.generations.watch,
        }

        self.upstreams: Mapping[methods.Method[Any, Any], Callable[[Any, Iterator[Any]], Any]] = {
            methods.UPLOAD_MEDIA: self.media.upload,
        }

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
        usage = cost_of(contents, history=history)
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
            name = request.name
            raise Refusal("NOT_FOUND", "MODEL_NOT_FOUND", f"no such model: {name}", model=name)
        return model_service_pb2.GetModelResponse(model=MODEL)


def _page(items: list[Any], request: Any) -> tuple[list[Any], str]:
    """One page of a list; page tokens are offsets."""
    start = int(request.page_token or 0)
    end = start + (request.page_size or 50)
    return items[start:end], str(end) if end < len(items) else ""
