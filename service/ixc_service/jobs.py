"""What Generate and Chat do around the engine: a prompt before it, a committed turn after it.

    GenerateJob   media ready ─► generation
    ChatJob       seat ─► history ─► model, checks ─► media ready ─► generation … answer ─► commit

A job holds its model from before it asks the engine until after the answer is kept. Media are ready
when the inline ones are on disk and the named ones are known to be usable.

Knows the store and the seats; knows no protobuf and no streams.
"""

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from ixc_runtime import (
    BASE_ADAPTER,
    Completed,
    Conversation,
    FinishReason,
    GenerationRequest,
    ImagePart,
    Message,
    ModelInfo,
    OutputOptions,
    Part,
    Role,
    SamplingParams,
    TextPart,
    TokensPart,
    VideoPart,
    merged_sampling,
)
from ixc_service.engine_port import GenerationPort
from ixc_service.errors import NotFound, RequestInvalid, TurnConflict, Violation
from ixc_service.event_log import CommittedTurn
from ixc_service.identifiers import session_name
from ixc_service.limits import Limits
from ixc_service.media_library import Attachments, MediaLibrary
from ixc_service.media_store import MediaStore
from ixc_service.models import Models, ServedModel
from ixc_service.moments import Clock
from ixc_service.run import Run
from ixc_service.seats import BusyPolicy, Seats
from ixc_service.store import (
    MediaRecord,
    RequestKey,
    SessionRecord,
    SessionStore,
    StoredImage,
    StoredMedia,
    StoredPart,
    StoredText,
    StoredVideo,
    TurnRecord,
)

# Ends that mean the answer was cut short, so that the caller's on_cancel decides.
_CUT_SHORT = {FinishReason.CANCELLED, FinishReason.INTERRUPTED, FinishReason.TIMEOUT}


def within_limits(asked: SamplingParams, model: SamplingParams, limits: Limits) -> SamplingParams:
    """The settings with max_output_tokens never open: the server's bound stands in for "all"."""
    wanted = asked.max_output_tokens
    if wanted is None:
        wanted = model.max_output_tokens
    bound = min(wanted or limits.max_output_tokens, limits.max_output_tokens)
    return dataclasses.replace(asked, max_output_tokens=bound)


class GenerateJob:
    def __init__(
        self,
        owner: str,
        model: ServedModel,
        request: GenerationRequest,
        attachments: Attachments,
        desk: "Desk",
        *,
        start_by: float | None = None,
    ) -> None:
        """`start_by`, of the monotonic clock: it is of no use to anyone if it starts later."""
        self._owner = owner
        self._request = request
        self._attachments = attachments
        self._desk = desk
        self._start_by = start_by
        self._pins = contextlib.ExitStack()
        self._engine = self._pins.enter_context(model.held())

    async def prepare(self) -> GenerationPort:
        attachments, desk = self._attachments, self._desk
        self._pins.enter_context(desk.media.pinned(self._owner, attachments.digests))
        await desk.media_library.take(self._owner, attachments)
        return self._engine.generate(
            dataclasses.replace(
                self._request, start_within_seconds=_left(self._start_by, desk.clock)
            )
        )

    async def finish(self, completed: Completed) -> None:
        return None

    def release(self) -> None:
        self._pins.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOrder:
    """A Chat request in the service's own terms."""

    owner: str
    session_id: str
    request_id: str
    user: tuple[StoredPart, ...]
    attachments: Attachments
    expected_turn: int | None
    adapter: str = BASE_ADAPTER
    sampling: SamplingParams
    output: OutputOptions
    busy_policy: BusyPolicy
    keeps_partial: bool
    queue_timeout_seconds: float
    generation_timeout_seconds: float
    start_by: float | None = None  # of the monotonic clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What every chat needs of the server."""

    store: SessionStore
    media: MediaStore
    media_library: MediaLibrary
    seats: Seats
    clock: Clock
    limits: Limits
    models: Models

    async def facts(self, owner: str, session_id: str) -> ModelInfo:
        """What a request about a session is checked against: its model, or where that is not to be
        had the default; the job then says what it has to say.
        """
        try:
            session = await self.store.get(owner, session_id, self.clock.now())
        except NotFound:
            return self.models.default.info
        return (self.models.find_for(session) or self.models.default).info


class ChatJob:
    def __init__(self, order: ChatOrder, key: RequestKey | None, run: Run, desk: Desk) -> None:
        self._order = order
        self._key = key
        self._run = run
        self._desk = desk
        self._session: SessionRecord | None = None
        self._user = order.user
        self._pins = contextlib.ExitStack()

    async def prepare(self) -> GenerationPort:
        order, desk = self._order, self._desk
        await desk.store.get(order.owner, order.session_id, desk.clock.now())
        await desk.seats.take(
            (order.owner, order.session_id),
            self._run,
            order.busy_policy,
            order.queue_timeout_seconds,
        )
        session, turns = await desk.store.turns(order.owner, order.session_id, desk.clock.now())
        self._session = session
        self._run.turn_index = session.turn_count + 1
        model = await desk.models.get_for(session)
        engine = self._pins.enter_context(model.held())
        self._check_turn(session)
        self._check_media(turns)
        self._pins.enter_context(desk.media.pinned(order.owner, order.attachments.digests))
        records = await desk.media_library.take(order.owner, order.attachments)
        self._user = described(order.user, records)
        asked = merged_sampling(order.sampling, session.default_sampling)
        request = GenerationRequest(
            prompt=conversation(session, turns, self._user, desk.media),
            adapter=order.adapter,
            sampling=within_limits(asked, model.info.default_sampling, desk.limits),
            output=order.output,
            scope=order.owner,
            queue_timeout_seconds=order.queue_timeout_seconds,
            start_within_seconds=_left(order.start_by, desk.clock),
            generation_timeout_seconds=order.generation_timeout_seconds,
        )
        return engine.generate(request)

    async def finish(self, completed: Completed) -> CommittedTurn | None:
        if not self._is_kept(completed):
            return None
        assert self._session and self._run.accepted, "a run completes after it was admitted"
        order, run, log = self._order, self._run, self._run.log
        now = self._desk.clock.now()
        turn = TurnRecord(
            index=run.turn_index,
            request_id=order.request_id,
            generation_id=run.id,
            user=self._user,
            assistant_text=log.text(),
            token_ids=log.token_ids(),
            adapter=order.adapter,
            sampling=self._run.accepted.sampling,
            finish_reason=completed.finish_reason,
            usage=completed.usage,
            timings=completed.timings,
            create_time=now,
            last_sequence=log.last_sequence + 1,
            matched_stop_sequence=completed.matched_stop_sequence,
            matched_stop_token_id=completed.matched_stop_token_id,
        )
        session = await self._desk.store.commit_turn(self._session, turn, self._key, now)
        return CommittedTurn(session_id=session.session_id, index=turn.index, etag=session.etag)

    def release(self) -> None:
        self._pins.close()
        self._desk.seats.leave((self._order.owner, self._order.session_id), self._run)

    def _is_kept(self, completed: Completed) -> bool:
        if self._run.is_discarded:
            return False
        if completed.finish_reason in _CUT_SHORT:
            return self._order.keeps_partial and completed.usage.output_tokens > 0
        return True

    def _check_turn(self, session: SessionRecord) -> None:
        expected, actual = self._order.expected_turn, session.turn_count + 1
        if expected is not None and expected != actual:
            raise TurnConflict(
                f"turn {expected} was expected, this would be turn {actual}",
                session=session_name(session.session_id),
                expected=expected,
                actual=actual,
            )

    def _check_media(self, turns: list[TurnRecord]) -> None:
        earlier = [digest for turn in turns for digest in turn.media_digests]
        self._desk.media.require(earlier)
        count = len(earlier) + len(self._order.attachments.digests)
        if count > self._desk.limits.max_images:
            raise RequestInvalid(
                (
                    Violation(
                        field="message.parts",
                        rule="TOO_MANY",
                        description=f"the session would hold {count} images and clips, "
                        f"the limit is {self._desk.limits.max_images}",
                    ),
                )
            )


def _left(moment: float | None, clock: Clock) -> float | None:
    return None if moment is None else max(0.0, moment - clock.monotonic())


def described(
    parts: tuple[StoredPart, ...], records: Mapping[str, MediaRecord]
) -> tuple[StoredPart, ...]:
    """The parts with type and size of what was named, which the request does not tell."""
    return tuple(
        msgspec.structs.replace(
            part,
            mime_type=records[part.digest].mime_type,
            size_bytes=records[part.digest].size_bytes,
        )
        if isinstance(part, StoredMedia) and part.digest in records
        else part
        for part in parts
    )


def conversation(
    session: SessionRecord,
    turns: list[TurnRecord],
    user: tuple[StoredPart, ...],
    media: MediaStore,
) -> Conversation:
    """A session's history and its next question; answers as the very ids that were generated."""
    messages: list[Message] = []
    for turn in turns:
        messages.append(Message(role=Role.USER, parts=_parts(turn.user, media)))
        answer = TokensPart(token_ids=turn.token_ids)
        messages.append(Message(role=Role.ASSISTANT, parts=(answer,)))
    messages.append(Message(role=Role.USER, parts=_parts(user, media)))
    return Conversation(messages=tuple(messages), system_instruction=session.system_instruction)


def _parts(stored: tuple[StoredPart, ...], media: MediaStore) -> tuple[Part, ...]:
    return tuple(_part(part, media) for part in stored)


def _part(part: StoredPart, media: MediaStore) -> Part:
    match part:
        case StoredText(text=text):
            return TextPart(text=text)
        case StoredImage():
            return ImagePart(source=media.source(part.digest), hd_num=part.hd_num, label=part.label)
        case StoredVideo():
            return VideoPart(
                source=media.video_source(part.digest),
                max_frames=part.max_frames,
                fps=part.fps,
                start_seconds=part.start_seconds,
                end_seconds=part.end_seconds,
                label=part.label,
            )
