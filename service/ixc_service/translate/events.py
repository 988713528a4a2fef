"""From a run's events to the contract's, for one reader."""

from google.protobuf.duration_pb2 import Duration

from ixc.v1 import events_pb2, generation_pb2, sampling_pb2
from ixc_runtime import (
    Accepted,
    Completed,
    FinishReason,
    PromptProcessed,
    SamplingParams,
    TextDelta,
    Timings,
    TokenLogprob,
    Usage,
)
from ixc_service.delivery import Draining, Heartbeat, Notice, View
from ixc_service.event_log import CommittedTurn, Event, Failed, Finished, Snapshot
from ixc_service.identifiers import generation_name, model_name, session_name, turn_name
from ixc_service.run import Run, RunState
from ixc_service.status import status_of
from ixc_service.store import SessionRecord, TurnRecord
from ixc_service.translate.requests import SAMPLING_SCALARS

FINISH_REASONS = {
    FinishReason.STOP: generation_pb2.FINISH_REASON_STOP,
    FinishReason.STOP_SEQUENCE: generation_pb2.FINISH_REASON_STOP_SEQUENCE,
    FinishReason.MAX_TOKENS: generation_pb2.FINISH_REASON_MAX_TOKENS,
    FinishReason.CONTEXT_LIMIT: generation_pb2.FINISH_REASON_CONTEXT_LIMIT,
    FinishReason.CANCELLED: generation_pb2.FINISH_REASON_CANCELLED,
    FinishReason.TIMEOUT: generation_pb2.FINISH_REASON_TIMEOUT,
    FinishReason.INTERRUPTED: generation_pb2.FINISH_REASON_INTERRUPTED,
}
STATES = {
    RunState.PENDING: generation_pb2.GENERATION_STATE_PENDING,
    RunState.DECODING: generation_pb2.GENERATION_STATE_DECODING,
    RunState.COMPLETED: generation_pb2.GENERATION_STATE_COMPLETED,
    RunState.CANCELLED: generation_pb2.GENERATION_STATE_CANCELLED,
    RunState.FAILED: generation_pb2.GENERATION_STATE_FAILED,
}


def event_message(
    item: Event | Notice, sequence: int, run: Run, view: View
) -> events_pb2.GenerationEvent:
    """`sequence` is the reader's cursor, which notices repeat."""
    if isinstance(item, Event):
        message = _logged(item, run, view)
        message.sequence = item.sequence
        return message
    message = events_pb2.GenerationEvent(sequence=sequence)
    match item:
        case Heartbeat():
            message.heartbeat.state = STATES[run.state]
            message.heartbeat.output_tokens = run.num_output_tokens
        case Draining(time_left_seconds=left):
            message.draining.time_left.CopyFrom(duration(left))
    return message


def _logged(event: Event, run: Run, view: View) -> events_pb2.GenerationEvent:
    shows_ids = run.spec.sends_token_ids
    match event.update:
        case TextDelta() as update:
            return _delta_event(update, shows_ids=shows_ids)
        case Accepted() as update:
            return events_pb2.GenerationEvent(accepted=_accepted(update, run, view))
        case PromptProcessed() as update:
            return events_pb2.GenerationEvent(prompt_processed=_processed(update, run))
        case Snapshot() as update:
            assert run.accepted, "a run with text was admitted"
            return events_pb2.GenerationEvent(
                snapshot=events_pb2.Snapshot(
                    text=update.text,
                    token_ids=update.token_ids if shows_ids else (),
                    token_count=len(update.token_ids),
                    accepted=_accepted(run.accepted, run, view),
                )
            )
        case Finished() as update:
            message = completed(update.completed, update.turn)
            if view.is_final_only:
                message.text = run.log.text()
                message.token_ids.extend(run.log.token_ids() if shows_ids else ())
                message.logprobs.extend(
                    _logprobs(entry) for _, part in run.log.deltas() for entry in part.logprobs
                )
            return events_pb2.GenerationEvent(completed=message)
        case Failed(fault=fault):
            failed = events_pb2.GenerationFailed(status=status_of(fault))
            return events_pb2.GenerationEvent(failed=failed)


def _accepted(update: Accepted, run: Run, view: View) -> events_pb2.GenerationAccepted:
    session, model = run.spec.session_id, run.spec.model
    return events_pb2.GenerationAccepted(
        generation=generation_name(run.id),
        session=session_name(session) if session else "",
        turn_index=run.turn_index,
        model=model_name(model.name),
        weights_digest=model.digest,
        adapter=run.spec.adapter,
        deduplicated=view.is_deduplicated,
        queue_position=update.queue_position,
        effective_sampling=sampling_message(update.sampling),
        prompt_tokens=update.usage.prompt_tokens,
        image_tokens=update.usage.image_tokens,
        video_tokens=update.usage.video_tokens,
    )


def _processed(update: PromptProcessed, run: Run) -> events_pb2.PromptProcessed:
    if update.cached_tokens:
        hit = events_pb2.CACHE_HIT_RESIDENT
    elif run.turn_index > 1:
        hit = events_pb2.CACHE_HIT_REPREFILLED
    else:
        hit = events_pb2.CACHE_HIT_NONE
    return events_pb2.PromptProcessed(
        prompt_tokens=update.usage.prompt_tokens,
        image_tokens=update.usage.image_tokens,
        video_tokens=update.usage.video_tokens,
        cached_tokens=update.cached_tokens,
        encoded_tiles=update.encoded_tiles,
        cache_hit=hit,
    )


def _delta_event(update: TextDelta, *, shows_ids: bool) -> events_pb2.GenerationEvent:
    # Filled in place: a message made apart and handed over would be copied, once a token.
    message = events_pb2.GenerationEvent()
    delta = message.delta
    delta.text = update.text
    delta.token_count = len(update.token_ids)
    if shows_ids:
        delta.token_ids.extend(update.token_ids)
    if update.logprobs:
        delta.logprobs.extend(map(_logprobs, update.logprobs))
    return message


def _logprobs(entry: TokenLogprob) -> events_pb2.TokenLogprobs:
    return events_pb2.TokenLogprobs(
        token_id=entry.token_id,
        logprob=entry.logprob,
        top=[
            events_pb2.TopLogprob(token_id=token_id, logprob=logprob)
            for token_id, logprob in entry.top
        ],
    )


def completed(done: Completed, turn: CommittedTurn | None) -> events_pb2.GenerationCompleted:
    message = events_pb2.GenerationCompleted(
        finish_reason=FINISH_REASONS[done.finish_reason],
        usage=usage_message(done.usage),
        timings=timings_message(done.timings),
        turn=turn_name(turn.session_id, turn.index) if turn else "",
        session_etag=turn.etag if turn else "",
    )
    if done.matched_stop_sequence is not None:
        message.stop_sequence = done.matched_stop_sequence
    elif done.matched_stop_token_id is not None:
        message.stop_token_id = done.matched_stop_token_id
    return message


# ---- a committed turn whose generation is forgotten


def replayed_turn(
    session: SessionRecord, turn: TurnRecord, *, after: int, shows_ids: bool
) -> list[events_pb2.GenerationEvent]:
    """`accepted`, unless the reader is past it, and `completed` with the whole text."""
    accepted = events_pb2.GenerationAccepted(
        generation=generation_name(turn.generation_id),
        session=session_name(session.session_id),
        turn_index=turn.index,
        model=model_name(session.model),
        weights_digest=session.weights_digest,
        adapter=turn.adapter,
        deduplicated=True,
        effective_sampling=sampling_message(turn.sampling),
        prompt_tokens=turn.usage.prompt_tokens,
        image_tokens=turn.usage.image_tokens,
        video_tokens=turn.usage.video_tokens,
    )
    done = Completed(
        finish_reason=turn.finish_reason,
        usage=turn.usage,
        timings=turn.timings,
        matched_stop_sequence=turn.matched_stop_sequence,
        matched_stop_token_id=turn.matched_stop_token_id,
    )
    place = CommittedTurn(session_id=session.session_id, index=turn.index, etag=session.etag)
    end = completed(done, place)
    end.text = turn.assistant_text
    end.token_ids.extend(turn.token_ids if shows_ids else ())
    events = [
        events_pb2.GenerationEvent(sequence=1, accepted=accepted),
        events_pb2.GenerationEvent(sequence=turn.last_sequence, completed=end),
    ]
    return events if after < 1 else events[1:]


# ---- shared pieces


def usage_message(usage: Usage) -> generation_pb2.Usage:
    return generation_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        image_tokens=usage.image_tokens,
        video_tokens=usage.video_tokens,
        output_tokens=usage.output_tokens,
    )


def timings_message(timings: Timings) -> generation_pb2.Timings:
    return generation_pb2.Timings(
        queue=duration(timings.queue_seconds),
        media=duration(timings.media_seconds),
        vision=duration(timings.vision_seconds),
        prefill=duration(timings.prefill_seconds),
        first_token=duration(timings.first_token_seconds),
        decode=duration(timings.decode_seconds),
        total=duration(timings.total_seconds),
    )


def sampling_message(sampling: SamplingParams) -> sampling_pb2.SamplingParams:
    message = sampling_pb2.SamplingParams(
        stop_sequences=sampling.stop_sequences,
        stop_token_ids=sampling.stop_token_ids,
        logit_bias=dict(sampling.logit_bias),
        bad_words=sampling.bad_words,
    )
    for name in SAMPLING_SCALARS:
        value = getattr(sampling, name)
        if value is not None:
            setattr(message, name, value)
    return message


def duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
