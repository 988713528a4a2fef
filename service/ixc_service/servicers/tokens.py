# ruff: noqa: N802 - the contract names these methods
"""TokenService: what prompts cost, and text to ids and back. Nothing is generated."""

import asyncio

from ixc.v1 import token_service_pb2 as pb
from ixc.v1.token_service_pb2_grpc import TokenServiceServicer
from ixc_runtime import PromptCount
from ixc_service.identifiers import id_of
from ixc_service.jobs import Desk, conversation
from ixc_service.store import LOCAL_OWNER
from ixc_service.streams import Context
from ixc_service.translate import requests, resources
from ixc_service.validate.requests import check_count_tokens, check_detokenize


class TokenServicer(TokenServiceServicer):
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def CountTokens(
        self, request: pb.CountTokensRequest, context: Context
    ) -> pb.CountTokensResponse:
        desk, session_id = self._desk, id_of(request.session, "sessions")
        facts = (
            await desk.facts(LOCAL_OWNER, session_id)
            if session_id
            else desk.models.facts(request.model)
        )
        check_count_tokens(request, desk.limits, facts)
        attachments = requests.attachments(requests.contents_of(request.prompt))
        with desk.media.pinned(LOCAL_OWNER, attachments.digests):
            await desk.media_library.take(LOCAL_OWNER, attachments)
            if session_id:
                count = await self._count_turn(request, session_id)
            else:
                count = await self._count_prompt(request)
        return resources.count_message(count, num_new=len(attachments.digests))

    async def Tokenize(self, request: pb.TokenizeRequest, context: Context) -> pb.TokenizeResponse:
        with (await self._desk.models.get(request.model)).held() as engine:
            token_ids = await asyncio.to_thread(engine.tokenize, request.text)
        return pb.TokenizeResponse(token_ids=token_ids)

    async def Detokenize(
        self, request: pb.DetokenizeRequest, context: Context
    ) -> pb.DetokenizeResponse:
        check_detokenize(request, self._desk.models.facts(request.model))
        with (await self._desk.models.get(request.model)).held() as engine:
            text = await asyncio.to_thread(engine.detokenize, list(request.token_ids))
        return pb.DetokenizeResponse(text=text)

    async def _count_prompt(self, request: pb.CountTokensRequest) -> PromptCount:
        """The prompt by itself."""
        model = await self._desk.models.get(request.model)
        system = requests.system_text(request, model.info)
        with model.held() as engine:
            return await engine.count(requests.prompt(request.prompt, system, self._desk.media))

    async def _count_turn(self, request: pb.CountTokensRequest, session_id: str) -> PromptCount:
        """The prompt as its session's next turn."""
        desk = self._desk
        session, turns = await desk.store.turns(LOCAL_OWNER, session_id, desk.clock.now())
        user = requests.stored_parts(request.prompt.contents.contents[0])
        with (await desk.models.get_for(session)).held() as engine:
            return await engine.count(conversation(session, turns, user, desk.media))
