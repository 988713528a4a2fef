# ruff: noqa: N802 - the contract names these methods
"""ChatService: one turn of a session, streamed and committed exactly once."""

from ixc.v1 import chat_service_pb2 as pb
from ixc.v1.chat_service_pb2_grpc import ChatServiceServicer
from ixc.v1.events_pb2 import GenerationEvent
from ixc_service.identifiers import id_of
from ixc_service.jobs import ChatJob, Desk
from ixc_service.run import OnDisconnect
from ixc_service.store import LOCAL_OWNER, RequestKey
from ixc_service.streams import Context, Streams, request_key, start_by
from ixc_service.translate import requests
from ixc_service.translate.events import replayed_turn
from ixc_service.validate.requests import check_chat


class ChatServicer(ChatServiceServicer):
    def __init__(self, desk: Desk, streams: Streams, *, flush_seconds: float) -> None:
        self._desk = desk
        self._streams = streams
        self._flush_seconds = flush_seconds

    async def Chat(self, request: pb.ChatRequest, context: Context) -> None:  # type: ignore[override]
        session_id = id_of(request.session, "sessions") or ""
        model = await self._desk.facts(LOCAL_OWNER, session_id)
        check_chat(request, self._desk.limits, model)
        key = request_key("Chat", request)
        if key and await self._replay(key, request, context):
            return
        spec = requests.run_spec(
            request, OnDisconnect.GRACE, self._desk.limits, model=model, session_id=session_id
        )
        order = requests.chat_order(
            request,
            session_id,
            self._desk.limits,
            start_by=start_by(context, spec, self._desk.clock),
        )
        run, view = self._streams.begin(
            key,
            spec,
            requests.view(request.output, request.after_sequence, self._flush_seconds),
            lambda run: ChatJob(order, key, run, self._desk),
        )
        await self._streams.send(run, view, context, _response)

    async def _replay(self, key: RequestKey, request: pb.ChatRequest, context: Context) -> bool:
        """Tells a committed turn once more if its generation is forgotten; False if none is."""
        if self._streams.knows(key):
            return False
        made = await self._desk.store.turn_made_by(key)
        if made is None or self._streams.knows(key):
            return False
        session, turn = made
        events = replayed_turn(
            session,
            turn,
            after=request.after_sequence,
            shows_ids=request.output.token_ids,
        )
        await self._streams.send_all(
            events,
            context,
            _response,
            generation_id=turn.generation_id,
            session_id=session.session_id,
        )
        return True


def _response(event: GenerationEvent) -> pb.ChatResponse:
    return pb.ChatResponse(event=event)
