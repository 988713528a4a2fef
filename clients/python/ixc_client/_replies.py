"""From messages to values: events, sampling, sessions, turns, models, servers. Pure functions.

Enum values newer than this client become UNKNOWN, as the contract asks of clients; unset times
become None.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.timestamp_pb2 import Timestamp

from ixc.v1 import (
    content_pb2,
    events_pb2,
    generation_pb2,
    media_pb2,
    model_pb2,
    sampling_pb2,
    session_pb2,
    token_service_pb2,
)
from ixc_client import _events as events
from ixc_client import _resources as resources
from ixc_client._inputs import SAMPLING_SCALARS, Role, Sampling, System, SystemPreset
from ixc_client._media import ImageInfo, Media, MediaState, VideoInfo
from ixc_client._status import error_from_status

EnumT = TypeVar("EnumT", bound=StrEnum)


# --- what streams carry


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
        cache_hit=_enum(events.CacheHit, message, "cache_hit"),
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
        state=_enum(events.GenerationState, message, "state"),
        output_tokens=message.output_tokens,
    )


def draining(message: events_pb2.Draining) -> events.Draining:
    return events.Draining(time_left=_seconds(message.time_left))


def completed(message: events_pb2.GenerationCompleted) -> events.Completed:
    matched = message.WhichOneof("matched")
    return events.Completed(
        finish_reason=_enum(events.FinishReason, message, "finish_reason"),
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
        queue=_seconds(message.queue),
        media=_seconds(message.media),
        vision=_seconds(message.vision),
        prefill=_seconds(message.prefill),
        first_token=_seconds(message.first_token),
        decode=_seconds(message.decode),
        total=_seconds(message.total),
    )


def sampling(message: sampling_pb2.SamplingParams) -> Sampling:
    given: Any = message  # HasField is typed for literal names only
    return Sampling(
        **{
            name: _as_written(getattr(message, name))
            for name in SAMPLING_SCALARS
            if given.HasField(name)
        },
        stop_sequences=tuple(message.stop_sequences),
        stop_token_ids=tuple(message.stop_token_ids),
        logit_bias=dict(message.logit_bias),
        bad_words=tuple(message.bad_words),
    )


# --- what the server keeps


def session(message: session_pb2.Session) -> resources.SessionInfo:
    return resources.SessionInfo(
        name=message.name,
        model=message.model,
        weights_digest=message.weights_digest,
        system=_system(message),
        sampling=sampling(message.default_sampling),
        turn_count=message.turn_count,
        busy=message.state == session_pb2.SESSION_STATE_GENERATING,
        active_generation=message.active_generation or None,
        context_tokens=message.context_tokens,
        context_limit=message.context_limit,
        labels=dict(message.labels),
        parent=message.parent or None,
        forked_at_turn=message.forked_at_turn,
        ttl=_seconds(message.ttl),
        create_time=_time(message, "create_time"),
        last_used_time=_time(message, "last_used_time"),
        expire_time=_time(message, "expire_time"),
        etag=message.etag,
    )


def turn(message: session_pb2.Turn) -> resources.Turn:
    return resources.Turn(
        name=message.name,
        index=message.index,
        request_id=message.request_id,
        user=_stored_message(message.user, Role.USER),
        assistant=_stored_message(message.assistant, Role.ASSISTANT),
        token_ids=tuple(message.token_ids),
        adapter=message.adapter,
        finish_reason=_enum(events.FinishReason, message, "finish_reason"),
        usage=usage(message.usage),
        timings=timings(message.timings),
        generation=message.generation,
        create_time=_time(message, "create_time"),
    )


def generation(message: generation_pb2.Generation) -> resources.GenerationInfo:
    return resources.GenerationInfo(
        name=message.name,
        session=message.session or None,
        turn_index=message.turn_index,
        request_id=message.request_id,
        model=message.model,
        adapter=message.adapter,
        state=_enum(events.GenerationState, message, "state"),
        text=message.text,
        last_sequence=message.last_sequence,
        first_available_sequence=message.first_available_sequence,
        finish_reason=(
            _enum(events.FinishReason, message, "finish_reason") if message.finish_reason else None
        ),
        usage=usage(message.usage),
        timings=timings(message.timings),
        error=error_from_status(message.error) if message.HasField("error") else None,
        sampling=sampling(message.effective_sampling),
        labels=dict(message.labels),
        create_time=_time(message, "create_time"),
        end_time=_time(message, "end_time"),
        expire_time=_time(message, "expire_time"),
    )


def token_count(message: token_service_pb2.CountTokensResponse) -> resources.TokenCount:
    return resources.TokenCount(
        total_tokens=message.total_tokens,
        image_tokens=message.image_tokens,
        context_limit=message.context_limit,
        images=tuple(
            resources.ImageCount(
                width=image.width,
                height=image.height,
                tiles_wide=image.tiles_wide,
                tiles_high=image.tiles_high,
                tokens=image.tokens,
            )
            for image in message.images
        ),
        video_tokens=message.video_tokens,
        videos=tuple(
            resources.VideoCount(
                width=video.width,
                height=video.height,
                frames=video.frames,
                tiles_wide=video.tiles_wide,
                tiles_high=video.tiles_high,
                tokens=video.tokens,
            )
            for video in message.videos
        ),
    )


def media(message: media_pb2.Media) -> Media:
    kind = message.WhichOneof("info")
    return Media(
        name=message.name,
        mime_type=message.mime_type,
        size_bytes=message.size_bytes,
        state=_enum(MediaState, message, "state"),
        image=_image_info(message.image) if kind == "image" else None,
        video=_video_info(message.video) if kind == "video" else None,
        error=error_from_status(message.error) if message.HasField("error") else None,
        create_time=_time(message, "create_time"),
        ttl=_seconds(message.ttl),
        expire_time=_time(message, "expire_time"),
    )


def usable(message: media_pb2.Media) -> Media:
    """Raises what was found wrong with the bytes."""
    made = media(message)
    if made.error is not None:
        raise made.error
    return made


def _image_info(message: media_pb2.ImageInfo) -> ImageInfo:
    return ImageInfo(
        width=message.width,
        height=message.height,
        tiles_wide=message.tiles_wide,
        tiles_high=message.tiles_high,
        tokens=message.tokens,
    )


def _video_info(message: media_pb2.VideoInfo) -> VideoInfo:
    return VideoInfo(
        width=message.width,
        height=message.height,
        duration=_seconds(message.duration),
        fps=message.fps,
        frames=message.frames,
        codec=message.codec,
        shown_frames=message.shown_frames,
        tiles_wide=message.tiles_wide,
        tiles_high=message.tiles_high,
        tokens=message.tokens,
    )


# --- what the server is


def model(message: model_pb2.Model) -> resources.ModelInfo:
    return resources.ModelInfo(
        name=message.name,
        display_name=message.display_name,
        description=message.description,
        weights_digest=message.weights_digest,
        context_limit=message.context_limit,
        vocab_size=message.vocab_size,
        eos_token_ids=tuple(message.eos_token_ids),
        default_sampling=sampling(message.default_sampling),
        adapters=tuple(message.adapters),
        image_input=_image_input(message.image_input) if message.HasField("image_input") else None,
        system_presets={
            _word(item, "preset").upper(): item.text for item in message.system_presets
        },
        dtype=_word(message, "dtype"),
        quantization=_quantization(message.quantization)
        if message.HasField("quantization")
        else None,
    )


def server(message: model_pb2.ServerInfo) -> resources.ServerInfo:
    return resources.ServerInfo(
        version=message.version,
        instance=message.instance,
        start_time=_time(message, "start_time"),
        default_model=message.default_model,
        limits=_figures(message.limits),
        plan=_figures(message.plan),
        capabilities=frozenset(
            _enum_word(model_pb2.Capability.DESCRIPTOR, number) for number in message.capabilities
        ),
    )


def load(message: model_pb2.Load) -> resources.Load:
    return resources.Load(
        state=_word(message, "state"),
        running_generations=message.running_generations,
        queued_generations=message.queued_generations,
        detached_generations=message.detached_generations,
        pages_used=message.pages_used,
        pages_cached=message.pages_cached,
        pages_total=message.pages_total,
        sessions=message.sessions,
    )


def _image_input(message: model_pb2.ImageInput) -> resources.ImageInput:
    return resources.ImageInput(
        tile_size=message.tile_size,
        hd_num_single=message.hd_num_single,
        hd_num_several=message.hd_num_several,
        hd_num_max=message.hd_num_max,
    )


def _quantization(message: model_pb2.Quantization) -> str:
    return f"{_word(message, 'scheme')} {message.bits} bits, groups of {message.group_size}"


def _stored_message(message: content_pb2.Content, role: Role) -> resources.StoredMessage:
    return resources.StoredMessage(
        role=role,
        text="".join(part.text for part in message.parts if part.WhichOneof("kind") == "text"),
        images=tuple(
            resources.ImageRef(
                sha256=part.image.sha256,
                mime_type=part.image.mime_type,
                label=part.image.label,
                hd_num=part.image.hd_num if part.image.HasField("hd_num") else None,
            )
            for part in message.parts
            if part.WhichOneof("kind") == "image"
        ),
        videos=tuple(
            _video_ref(part.video) for part in message.parts if part.WhichOneof("kind") == "video"
        ),
    )


def _video_ref(part: content_pb2.VideoPart) -> resources.VideoRef:
    return resources.VideoRef(
        sha256=part.sha256,
        mime_type=part.mime_type,
        label=part.label,
        max_frames=part.max_frames if part.HasField("max_frames") else None,
        fps=part.fps if part.HasField("fps") else None,
        start=_seconds(part.start) if part.HasField("start") else None,
        end=_seconds(part.end) if part.HasField("end") else None,
    )


def _system(message: session_pb2.Session) -> System:
    if message.WhichOneof("system") == "system_preset":
        return SystemPreset.META_INSTRUCTION_DEFAULT
    return message.system_instruction or None


def _figures(message: ProtoMessage) -> dict[str, Any]:
    """Every field by its name: numbers as they are, durations in seconds, enums as words."""
    result: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if isinstance(value, Duration):
            result[field.name] = _seconds(value)
        else:
            result[field.name] = value if field.enum_type is None else _word(message, field.name)
    return result


def _enum(kind: type[EnumT], message: ProtoMessage, field: str) -> EnumT:
    try:
        return kind(_word(message, field))
    except ValueError:
        return kind("unknown")


def _word(message: ProtoMessage, field: str) -> str:
    """FINISH_REASON_MAX_TOKENS of the enum FinishReason is "max_tokens"."""
    enum_type = message.DESCRIPTOR.fields_by_name[field].enum_type
    assert enum_type is not None
    return _enum_word(enum_type, getattr(message, field))


def _enum_word(enum_type: Any, number: int) -> str:
    value = enum_type.values_by_number.get(number)
    zero = enum_type.values_by_number[0].name
    if value is None:
        return "unknown"
    name: str = value.name
    return name.removeprefix(zero.removesuffix("UNSPECIFIED")).lower()


def _as_written(value: Any) -> Any:
    """Floats travel in 32 bits; 0.8 comes back as 0.8 and not as 0.800000011920929."""
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e9


def _time(message: ProtoMessage, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    timestamp: Timestamp = getattr(message, field)
    return timestamp.ToDatetime(tzinfo=UTC)
