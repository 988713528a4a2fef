"""The fake server's sessions: a dictionary that follows the contract's rules."""

import hashlib
import itertools
from collections.abc import Mapping
from typing import NoReturn

from google.protobuf.duration_pb2 import Duration

from ixc.v1 import content_pb2, generation_pb2, session_pb2

CONTEXT_LIMIT = 24_576


class Refusal(Exception):
    """Becomes the status of the call under way."""

    def __init__(self, code: str, reason: str, message: str, **metadata: object) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.metadata = {key: str(value) for key, value in metadata.items()}


class FakeSessions:
    def __init__(self) -> None:
        self._sessions: dict[str, session_pb2.Session] = {}
        self._turns: dict[str, list[session_pb2.Turn]] = {}
        self._by_request_id: dict[str, str] = {}
        self._numbers = itertools.count(1)

    def create(
        self, request_id: str, session_id: str, template: session_pb2.Session
    ) -> session_pb2.Session:
        if request_id in self._by_request_id:
            return self.get(self._by_request_id[request_id])
        name = f"sessions/{session_id or f'fake-{next(self._numbers)}'}"
        if name in self._sessions:
            raise Refusal("ALREADY_EXISTS", "SESSION_ID_TAKEN", "that id is taken", session=name)
        session = session_pb2.Session()
        session.CopyFrom(template)
        session.name = name
        session.model = template.model or "models/fake"
        session.state = session_pb2.SESSION_STATE_IDLE
        session.context_limit = CONTEXT_LIMIT
        if not session.HasField("ttl"):
            session.ttl.CopyFrom(Duration(seconds=3600))
        session.create_time.GetCurrentTime()
        session.last_used_time.CopyFrom(session.create_time)
        session.expire_time.FromNanoseconds(
            session.create_time.ToNanoseconds() + session.ttl.ToNanoseconds()
        )
        self._sessions[name] = session
        self._turns[name] = []
        if request_id:
            self._by_request_id[request_id] = name
        return self._touched(session)

    def get(self, name: str) -> session_pb2.Session:
        if name not in self._sessions:
            _not_found(name)
        return self._sessions[name]

    def matching(self, labels: Mapping[str, str]) -> list[session_pb2.Session]:
        return [
            session
            for session in reversed(self._sessions.values())
            if all(session.labels.get(key) == value for key, value in labels.items())
        ]

    def turns(self, name: str) -> list[session_pb2.Turn]:
        self.get(name)
        return self._turns[name]

    def update(self, wanted: session_pb2.Session, paths: list[str]) -> session_pb2.Session:
        session = self.get(wanted.name)
        if wanted.etag and wanted.etag != session.etag:
            raise Refusal(
                "ABORTED", "ETAG_MISMATCH", "the session has changed", session=session.name
            )
        if "labels" in paths:
            session.ClearField("labels")
            session.labels.update(wanted.labels)
        if "default_sampling" in paths:
            session.default_sampling.CopyFrom(wanted.default_sampling)
        if "ttl" in paths:
            session.ClearField("ttl")
            if wanted.HasField("ttl"):
                session.ttl.CopyFrom(wanted.ttl)
        if not session.HasField("ttl"):
            session.ttl.CopyFrom(Duration(seconds=3600))
        return self._touched(session)

    def fork(
        self, name: str, at_turn: int | None, request_id: str, session_id: str
    ) -> session_pb2.Session:
        parent, turns = self.get(name), self.turns(name)
        taken = len(turns) if at_turn is None else at_turn
        self._check_turn(name, taken)
        fork = self.create(request_id, session_id, parent)
        if not self._turns[fork.name]:
            self._turns[fork.name] = [self._renamed(turn, fork.name) for turn in turns[:taken]]
            fork.parent, fork.forked_at_turn = name, taken
        return self._touched(fork)

    def rewind(self, name: str, to_turn: int) -> session_pb2.Session:
        session = self.get(name)
        self._check_turn(name, to_turn)
        del self._turns[name][to_turn:]
        return self._touched(session)

    def delete(self, name: str, *, allow_missing: bool) -> None:
        if name not in self._sessions and not allow_missing:
            _not_found(name)
        self._sessions.pop(name, None)
        self._turns.pop(name, None)

    def session_with(self, sha256: str) -> str:
        """A session one of whose turns refers to these bytes; "" if there is none."""
        for name, turns in self._turns.items():
            for turn in turns:
                if any(
                    sha256 in (part.image.sha256, part.video.sha256) for part in turn.user.parts
                ):
                    return name
        return ""

    def begin_turn(self, name: str, generation: str, expected: int | None) -> int:
        session = self.get(name)
        index = len(self._turns[name]) + 1
        if session.active_generation:
            raise Refusal(
                "ABORTED",
                "SESSION_BUSY",
                "a turn is under way",
                session=name,
                generation=session.active_generation,
            )
        if expected is not None and expected != index:
            raise Refusal(
                "ABORTED",
                "TURN_CONFLICT",
                f"the turn would get index {index}, not {expected}",
                session=name,
                expected=expected,
                actual=index,
            )
        session.active_generation = generation
        session.state = session_pb2.SESSION_STATE_GENERATING
        return index

    def end_turn(self, name: str, turn: session_pb2.Turn | None) -> str:
        """Commits `turn`, or nothing; returns its name."""
        session = self._sessions.get(name)
        if session is None:
            return ""
        session.active_generation = ""
        session.state = session_pb2.SESSION_STATE_IDLE
        if turn is None:
            return ""
        turn.index = len(self._turns[name]) + 1
        turn.create_time.GetCurrentTime()
        turn = self._renamed(turn, name)
        self._turns[name].append(turn)
        self._touched(session)
        return turn.name

    def _check_turn(self, name: str, turn: int) -> None:
        if turn > len(self._turns[name]):
            raise Refusal(
                "NOT_FOUND",
                "TURN_NOT_FOUND",
                f"the session has {len(self._turns[name])} turns, not {turn}",
                session=name,
                turn=turn,
                turnCount=len(self._turns[name]),
            )

    def _touched(self, session: session_pb2.Session) -> session_pb2.Session:
        turns = self._turns[session.name]
        session.turn_count = len(turns)
        session.context_tokens = (
            turns[-1].usage.prompt_tokens + turns[-1].usage.output_tokens if turns else 0
        )
        session.etag = f"etag-{next(self._numbers)}"
        return session

    @staticmethod
    def _renamed(turn: session_pb2.Turn, session: str) -> session_pb2.Turn:
        copy = session_pb2.Turn()
        copy.CopyFrom(turn)
        copy.name = f"{session}/turns/{turn.index}"
        return copy


def turn_of(
    user: content_pb2.Content, text: str, request_id: str, usage: generation_pb2.Usage, adapter: str
) -> session_pb2.Turn:
    """A finished turn; pictures and clips are kept by digest, as a real server does."""
    turn = session_pb2.Turn(
        request_id=request_id,
        user=user,
        assistant=content_pb2.Content(
            role=content_pb2.ROLE_ASSISTANT, parts=[content_pb2.Part(text=text)]
        ),
        token_ids=[ord(mark) for mark in text],
        adapter=adapter,
        finish_reason=generation_pb2.FINISH_REASON_STOP,
        usage=usage,
    )
    for part in turn.user.parts:
        match part.WhichOneof("kind"):
            case "image":
                _by_digest(part.image)
            case "video":
                _by_digest(part.video)
    return turn


def _by_digest(part: content_pb2.ImagePart | content_pb2.VideoPart) -> None:
    digest = part.media.removeprefix("media/") or hashlib.sha256(part.inline_data).hexdigest()
    part.sha256 = digest
    part.ClearField("inline_data")
    part.ClearField("media")


def _not_found(name: str) -> NoReturn:
    raise Refusal("NOT_FOUND", "SESSION_NOT_FOUND", f"no such session: {name}", session=name)
