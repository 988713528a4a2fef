# ruff: noqa: N802 - the contract names these methods
"""TokenService: what prompts cost, and text to ids and back. Nothing is generated."""

import asyncio

from ixc.v1 import token_service_pb2 as pb
from ixc.v1.token_service_pb2_grpc import TokenServiceServicer
from ixc_runtime import Conversation, Prompt
from ixc_service.engine_port import EnginePort
from ixc_service.identifiers import id_of
from ixc_service.jobs import Desk, check_weights, conversation
from ixc_service.store import LOCAL_OWNER
from ixc_service.streams import Context
from ixc_service.translate import requests, resources
from ixc_service.validate.requests import check_count_tokens, check_detokenize, check_model


class TokenServicer(TokenServiceServicer):
    def __init__(self, engine: EnginePort, desk: Desk) -> None:
        self._engine = engine
        self._desk = desk

    async def CountTokens(
        self, request: pb.CountTokensRequest, context: Context
    ) -> pb.CountTokensResponse:
        check_count_tokens(request, self._desk.limits, self._desk.model)
        attachments = requests.attachments(requests.contents_of(request.prompt))
        with self._desk.media.pinned(LOCAL_OWNER, attachments.digests):
            await self._desk.media_library.take(LOCAL_OWNER, attachments)
            count = await self._engine.count(await self._prompt(request))
        return resources.count_message(count, num_new=len(attachments.digests))

    async def Tokenize(self, request: pb.TokenizeRequest, context: Context) -> pb.TokenizeResponse:
        check_model(request.model, self._desk.model)
        token_ids = await asyncio.to_thread(self._engine.tokenize, request.text)
        return pb.TokenizeResponse(token_ids=token_ids)

    async def Detokenize(
        self, request: pb.DetokenizeRequest, context: Context
    ) -> pb.DetokenizeResponse:
        check_detokenize(request, self._desk.model)
        text = await asyncio.to_thread(self._engine.detokenize, list(request.token_ids))
        return pb.DetokenizeResponse(text=text)

    async def _prompt(self, request: pb.CountTokensRequest) -> Prompt:
        """The prompt by itself, or as its session's next turn."""
        desk = self._desk
        if not request.session:
            system = requests.system_text(request, desk.model)
            return requests.prompt(request.prompt, system, desk.media)
        session, turns = await desk.store.turns(
            LOCAL_OWNER, id_of(request.session, "sessions") or "", desk.clock.now()
        )
        check_weights(session, desk.model)
        user = requests.stored_parts(request.prompt.contents.contents[0])
        whole: Conversation = conversation(session, turns, user, desk.media)
        return whole
