# ruff: noqa: N802 - the contract names these methods
"""SessionService: conversations, kept durably; their creation, forks, rewinds and end."""

import dataclasses

from ixc.v1 import session_pb2
from ixc.v1 import session_service_pb2 as pb
from ixc.v1.session_service_pb2_grpc import SessionServiceServicer
from ixc_runtime import ModelInfo
from ixc_service.errors import SessionBusy
from ixc_service.generations import Generations
from ixc_service.identifiers import generation_name, id_of, new_id, session_name
from ixc_service.jobs import Desk
from ixc_service.paging import decode_token, encode_token, page_size
from ixc_service.run import Run
from ixc_service.store import LOCAL_OWNER, SessionRecord
from ixc_service.streams import Context, request_key
from ixc_service.translate import requests, resources
from ixc_service.validate import requests as checks

_MESSAGE_SLACK_BYTES = 64 * 1024


class SessionServicer(SessionServiceServicer):
    def __init__(self, desk: Desk, generations: Generations) -> None:
        self._desk = desk
        self._generations = generations

    async def CreateSession(
        self, request: pb.CreateSessionRequest, context: Context
    ) -> pb.CreateSessionResponse:
        models, name = self._desk.models, request.session.model
        checks.check_create_session(request, self._desk.limits, models.facts(name))
        model = (await models.get(name)).info
        session = await self._desk.store.create(
            self._new_record(request, model), request_key("CreateSession", request)
        )
        return pb.CreateSessionResponse(session=self._message(session))

    async def GetSession(
        self, request: pb.GetSessionRequest, context: Context
    ) -> pb.GetSessionResponse:
        checks.check_name(request.name, "sessions")
        session = await self._desk.store.get(LOCAL_OWNER, _id(request.name), self._now())
        return pb.GetSessionResponse(session=self._message(session))

    async def ListSessions(
        self, request: pb.ListSessionsRequest, context: Context
    ) -> pb.ListSessionsResponse:
        checks.check_list_sessions(request, self._desk.limits)
        identity = ("sessions", tuple(sorted(request.labels.items())))
        before = decode_token(request.page_token, tuple[float, str], *identity)
        size = page_size(request.page_size, self._desk.limits.max_page_size)
        page = await self._desk.store.page(LOCAL_OWNER, before, size, self._now())
        wanted = request.labels.items()
        last = page[-1] if len(page) == size else None
        return pb.ListSessionsResponse(
            sessions=[self._message(each) for each in page if wanted <= each.labels.items()],
            next_page_token=encode_token((last.create_time, last.session_id), *identity)
            if last
            else "",
        )

    async def ListTurns(
        self, request: pb.ListTurnsRequest, context: Context
    ) -> pb.ListTurnsResponse:
        checks.check_list_turns(request)
        identity = ("turns", request.parent)
        after = decode_token(request.page_token, int, *identity) or 0
        size = page_size(request.page_size, self._desk.limits.max_page_size)
        session_id = _id(request.parent)
        session, turns = await self._desk.store.turns(
            LOCAL_OWNER, session_id, self._now(), after=after, count=size
        )
        is_full = request.view == session_pb2.TURN_VIEW_FULL
        messages = [resources.turn_message(session_id, each, is_full=is_full) for each in turns]
        page = _that_fit(messages, self._desk.limits.max_message_bytes)
        more = bool(page) and page[-1].index < session.turn_count
        return pb.ListTurnsResponse(
            turns=page, next_page_token=encode_token(page[-1].index, *identity) if more else ""
        )

    async def UpdateSession(
        self, request: pb.UpdateSessionRequest, context: Context
    ) -> pb.UpdateSessionResponse:
        model = await self._desk.facts(LOCAL_OWNER, _id(request.session.name))
        checks.check_update_session(request, self._desk.limits, model)
        session = await self._desk.store.update(
            LOCAL_OWNER,
            _id(request.session.name),
            request.session.etag,
            self._now(),
            lambda current: self._changed(current, request),
        )
        return pb.UpdateSessionResponse(session=self._message(session))

    async def ForkSession(
        self, request: pb.ForkSessionRequest, context: Context
    ) -> pb.ForkSessionResponse:
        checks.check_fork_session(request, self._desk.limits)
        session = await self._desk.store.fork(
            LOCAL_OWNER,
            _id(request.name),
            at_turn=request.at_turn if request.HasField("at_turn") else None,
            key=request_key("ForkSession", request),
            now=self._now(),
            make=lambda source: self._forked(source, request),
        )
        return pb.ForkSessionResponse(session=self._message(session))

    async def RewindSession(
        self, request: pb.RewindSessionRequest, context: Context
    ) -> pb.RewindSessionResponse:
        checks.check_rewind_session(request)
        self._check_idle(_id(request.name))
        session = await self._desk.store.rewind(
            LOCAL_OWNER, _id(request.name), request.to_turn, request.etag, self._now()
        )
        return pb.RewindSessionResponse(session=self._message(session))

    async def DeleteSession(
        self, request: pb.DeleteSessionRequest, context: Context
    ) -> pb.DeleteSessionResponse:
        checks.check_name(request.name, "sessions")
        session_id = _id(request.name)
        await self._desk.store.delete(
            LOCAL_OWNER,
            session_id,
            request.etag,
            self._now(),
            allow_missing=request.allow_missing,
        )
        if run := self._active(session_id):
            run.discard()
            await self._generations.ended(run)
        return pb.DeleteSessionResponse()

    # ---- records

    def _new_record(self, request: pb.CreateSessionRequest, model: ModelInfo) -> SessionRecord:
        now, session = self._now(), request.session
        ttl = self._desk.limits.default_session_ttl_seconds
        return SessionRecord(
            owner=LOCAL_OWNER,
            session_id=request.session_id or new_id(now),
            incarnation=new_id(now),
            model=model.name,
            weights_digest=model.digest,
            system_instruction=requests.system_text(session, model),
            system_preset=session.system_preset,
            default_sampling=requests.sampling_params(session.default_sampling),
            labels=dict(session.labels),
            parent=None,
            forked_at_turn=None,
            ttl_seconds=requests.seconds(session.ttl) if session.HasField("ttl") else ttl,
            create_time=now,
            last_used_time=now,
        )

    def _forked(self, source: SessionRecord, request: pb.ForkSessionRequest) -> SessionRecord:
        now = self._now()
        has_ttl = request.HasField("ttl")
        return dataclasses.replace(
            source,
            session_id=request.session_id or new_id(now),
            incarnation=new_id(now),
            parent=session_name(source.session_id),
            ttl_seconds=requests.seconds(request.ttl) if has_ttl else source.ttl_seconds,
            create_time=now,
            last_used_time=now,
            revision=0,
        )

    def _changed(self, current: SessionRecord, request: pb.UpdateSessionRequest) -> SessionRecord:
        session, paths = request.session, set(request.update_mask.paths)
        default_ttl = self._desk.limits.default_session_ttl_seconds
        ttl = requests.seconds(session.ttl) if session.HasField("ttl") else default_ttl
        sampling = requests.sampling_params(session.default_sampling)
        return dataclasses.replace(
            current,
            ttl_seconds=ttl if "ttl" in paths else current.ttl_seconds,
            labels=dict(session.labels) if "labels" in paths else current.labels,
            default_sampling=sampling if "default_sampling" in paths else current.default_sampling,
            last_used_time=self._now(),
        )

    def _message(self, session: SessionRecord) -> session_pb2.Session:
        active = self._active(session.session_id)
        served = self._desk.models.find_for(session)
        return resources.session_message(session, served.info if served else None, active)

    # ---- rules

    def _active(self, session_id: str) -> Run | None:
        return self._desk.seats.holder((LOCAL_OWNER, session_id))

    def _check_idle(self, session_id: str) -> None:
        if run := self._active(session_id):
            raise SessionBusy(
                "a turn of this session is under way",
                session=session_name(session_id),
                generation=generation_name(run.id),
            )

    def _now(self) -> float:
        return self._desk.clock.now()


def _id(name: str) -> str:
    """The id in a name that was checked."""
    return id_of(name, "sessions") or ""


def _that_fit(turns: list[session_pb2.Turn], limit: int) -> list[session_pb2.Turn]:
    """As many turns as go into one message, and at least one."""
    left = limit - _MESSAGE_SLACK_BYTES
    for count, turn in enumerate(turns):
        left -= turn.ByteSize() + 8
        if left < 0:
            return turns[: max(1, count)]
    return turns
