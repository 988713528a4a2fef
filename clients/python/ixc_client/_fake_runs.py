"""Scripted answers of the fake server: what a reply says, and the event log it turns into.

Follows the contract's rules for streams, so that a program tested here meets what it will meet:
`accepted` first, one terminal event last, replay from any cursor, cancel as a normal end.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from google.rpc import status_pb2

from ixc.v1 import events_pb2, generation_pb2, sampling_pb2
from ixc_client._events import FinishReason
from ixc_client._fake_sessions import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One scripted answer.

    `pieces` are its deltas. `hold` stops before the end until the generation is cancelled or the
    server's `release()` is called. `break_after` cuts the first stream after so many events as a
    lost connection would, `truncate_after` as a proxy that ends it without a word; the generation
    itself goes on either way. `failure` ends the answer with a `failed` event.
    """

    pieces: tuple[str, ...]
    finish_reason: FinishReason = FinishReason.STOP
    hold: bool = False
    break_after: int | None = None
    truncate_after: int | None = None
    failure: status_pb2.Status | None = None


@dataclass(slots=True, kw_only=True)
class FakeRun:
    """A generation: its events are all known from the start, but let out one reader at a time."""

    name: str
    reply: Reply
    request_id: str
    session: str
    turn_index: int
    adapter: str
    sampling: sampling_pb2.SamplingParams
    usage: generation_pb2.Usage
    sends_token_ids: bool
    commit: Callable[[str], str] = lambda text: ""  # of a chat: stores the turn, returns its name
    stop: Callable[[str], str] = lambda text: ""  # the same, of an answer that is cut short
    discard: Callable[[], object] = lambda: None  # of a chat that fails: it leaves no trace
    changed: threading.Condition = field(default_factory=threading.Condition)
    released: bool = False
    cancelled: bool = False
    cut: bool = False  # break_after and truncate_after work once
    deduplicated: bool = False
    turn: str = ""
    lost: bool = False

    @property
    def text(self) -> str:
        return "".join(self.reply.pieces)

    def cancel(self) -> None:
        with self.changed:
            if not self.released and not self.cancelled:
                self.cancelled = True
                self.turn = self.stop(self.text)
            self.changed.notify_all()

    def release(self) -> None:
        with self.changed:
            self.released = True
            self.changed.notify_all()

    def lose(self) -> None:
        """As when its server is killed: its readers' connections break."""
        with self.changed:
            self.lost = True
            if not self.turn:
                self.discard()
            self.changed.notify_all()

    def events(
        self, context: Any, after: int, *, whole: bool
    ) -> Iterator[events_pb2.GenerationEvent]:
        """Events from a cursor on. Ends early when the reader's call ends."""
        context.add_callback(self._wake)
        sequence = 0
        for make in (self._accepted, self._prompt_processed):
            sequence += 1
            if sequence > after:
                yield make(sequence)
        if not whole:
            for piece in self.reply.pieces:
                sequence += 1
                if sequence > after:
                    delta = events_pb2.Delta(
                        text=piece, token_ids=self._ids(piece), token_count=len(piece)
                    )
                    yield events_pb2.GenerationEvent(sequence=sequence, delta=delta)
        if self._wait_for_end(context):
            yield self._end(len(self.reply.pieces) + 3, whole=whole)

    def record(self) -> generation_pb2.Generation:
        state = generation_pb2.GENERATION_STATE_DECODING
        reason = generation_pb2.FINISH_REASON_UNSPECIFIED
        if self.cancelled:
            state = generation_pb2.GENERATION_STATE_CANCELLED
            reason = generation_pb2.FINISH_REASON_CANCELLED
        elif self.released:
            state, reason = generation_pb2.GENERATION_STATE_COMPLETED, self._finish_reason()
        return generation_pb2.Generation(
            name=self.name,
            session=self.session,
            turn_index=self.turn_index,
            request_id=self.request_id,
            model="models/fake",
            adapter=self.adapter,
            state=state,
            text=self.text,
            last_sequence=len(self.reply.pieces) + 2,
            first_available_sequence=1,
            finish_reason=reason,
            usage=self.usage,
        )

    def _wake(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def _wait_for_end(self, context: Any) -> bool:
        with self.changed:
            if not self.reply.hold and not self.cancelled:
                self.released = True
            self.changed.wait_for(
                lambda: self.released or self.cancelled or self.lost or not context.is_active()
            )
            if self.lost:
                raise Refusal("UNAVAILABLE", "", "Socket closed")
            return self.released or self.cancelled

    def _accepted(self, sequence: int) -> events_pb2.GenerationEvent:
        accepted = events_pb2.GenerationAccepted(
            generation=self.name,
            session=self.session,
            turn_index=self.turn_index,
            model="models/fake",
            weights_digest="fa" * 32,
            adapter=self.adapter,
            deduplicated=self.deduplicated,
            effective_sampling=self.sampling,
            prompt_tokens=self.usage.prompt_tokens,
            image_tokens=self.usage.image_tokens,
            video_tokens=self.usage.video_tokens,
        )
        return events_pb2.GenerationEvent(sequence=sequence, accepted=accepted)

    def _prompt_processed(self, sequence: int) -> events_pb2.GenerationEvent:
        cached = self.usage.cached_tokens
        processed = events_pb2.PromptProcessed(
            prompt_tokens=self.usage.prompt_tokens,
            image_tokens=self.usage.image_tokens,
            video_tokens=self.usage.video_tokens,
            cached_tokens=cached,
            cache_hit=events_pb2.CACHE_HIT_RESIDENT if cached else events_pb2.CACHE_HIT_NONE,
        )
        return events_pb2.GenerationEvent(sequence=sequence, prompt_processed=processed)

    def _end(self, sequence: int, *, whole: bool) -> events_pb2.GenerationEvent:
        if self.reply.failure is not None and not self.cancelled:
            self.discard()
            failed = events_pb2.GenerationFailed(status=self.reply.failure)
            return events_pb2.GenerationEvent(sequence=sequence, failed=failed)
        if not self.cancelled and not self.turn:
            self.turn = self.commit(self.text)
        completed = events_pb2.GenerationCompleted(
            finish_reason=(
                generation_pb2.FINISH_REASON_CANCELLED if self.cancelled else self._finish_reason()
            ),
            usage=self.usage,
            turn=self.turn,
            text=self.text if whole else "",
            token_ids=self._ids(self.text) if whole else [],
        )
        return events_pb2.GenerationEvent(sequence=sequence, completed=completed)

    def _ids(self, text: str) -> list[int]:
        return [ord(mark) for mark in text] if self.sends_token_ids else []

    def _finish_reason(self) -> generation_pb2.FinishReason.ValueType:
        return generation_pb2.FinishReason.Value(
            f"FINISH_REASON_{self.reply.finish_reason.upper()}"
        )
