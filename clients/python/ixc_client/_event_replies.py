"""From messages to values: what streams carry. Pure functions."""

from typing import Any

from ixc.v1 import events_pb2, generation_pb2, sampling_pb2
from ixc_client import _events as events
from ixc_client import _wire_values as values
from ixc_client._inputs import SAMPLING_SCALARS, Sampling


def accepted(message: events_pb2.GenerationAccepted) -> events.Accepted:
    return events.Accepted(
        generation=message.generation,
        session=message.session,
        turn_index=message.turn_index,
        model=message.model,
        weights_digest=message.weights_digest,
        adapter=message.adapter,
        deduplicated=message.deduplicated,
        queue_position=message.queue_position,
        prompt_tokens=message.prompt_tokens,
        image_tokens=message.image_tokens,
        video_tokens=message.video_tokens,
        sampling=sampling(message.effective_sampling),
    )


def prompt_processed(message: events_pb2.PromptProcessed) -> events.PromptProcessed:
    return events.PromptProcessed(
        prompt_tokens=message.prompt_tokens,
        image_tokens=message.image_tokens,
        cached_tokens=message.cached_tokens,
        encoded_tiles=message.encoded_tiles,
        cache_hit=values.enum(events.CacheHit, message, "cache_hit"),
        video_tokens=message.video_tokens,
    )


def delta(message: events_pb2.Delta, sequence: int) -> events.Delta:
    return events.Delta(
        text=message.text,
        sequence=sequence,
        token_ids=tuple(message.token_ids),
        logprobs=tuple(token_logprob(item) for item in message.logprobs),
        token_count=message.token_count,
    )


def token_logprob(message: events_pb2.TokenLogprobs) -> events.TokenLogprob:
    return events.TokenLogprob(
        token_id=message.token_id,
        logprob=message.logprob,
        top=tuple((item.token_id, item.logprob) for item in message.top),
    )


def heartbeat(message: events_pb2.Heartbeat) -> events.Heartbeat:
    return events.Heartbeat(
        state=values.enum(events.GenerationState, message, "state"),
        output_tokens=message.output_tokens,
    )


def draining(message: events_pb2.Draining) -> events.Draining:
    return events.Draining(time_left=values.seconds(message.time_left))


def completed(message: events_pb2.GenerationCompleted) -> events.Completed:
    matched = message.WhichOneof("matched")
    return events.Completed(
        finish_reason=values.enum(events.FinishReason, message, "finish_reason"),
        usage=usage(message.usage),
        timings=timings(message.timings),
        matched_stop=getattr(message, matched) if matched else None,
        turn=message.turn,
        session_etag=message.session_etag,
    )


def usage(message: generation_pb2.Usage) -> events.Usage:
    return events.Usage(
        prompt_tokens=message.prompt_tokens,
        cached_tokens=message.cached_tokens,
        image_tokens=message.image_tokens,
        video_tokens=message.video_tokens,
        output_tokens=message.output_tokens,
    )


def timings(message: generation_pb2.Timings) -> events.Timings:
    return events.Timings(
        queue=values.seconds(message.queue),
        media=values.seconds(message.media),
        vision=values.seconds(message.vision),
        prefill=values.seconds(message.prefill),
        first_token=values.seconds(message.first_token),
        decode=values.seconds(message.decode),
        total=values.seconds(message.total),
    )


def sampling(message: sampling_pb2.SamplingParams) -> Sampling:
    given: Any = message  # HasField is typed for literal names only
    return Sampling(
        **{
            name: values.as_written(getattr(message, name))
            for name in SAMPLING_SCALARS
            if given.HasField(name)
        },
        stop_sequences=tuple(message.stop_sequences),
        stop_token_ids=tuple(message.stop_token_ids),
        logit_bias=dict(message.logit_bias),
        bad_words=tuple(message.bad_words),
    )
