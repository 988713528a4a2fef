"""From messages to values: sessions, turns, generations, media, models, servers. Pure functions."""

from ixc.v1 import (
    content_pb2,
    generation_pb2,
    media_pb2,
    model_pb2,
    session_pb2,
    token_service_pb2,
)
from ixc_client import _event_replies as event_replies
from ixc_client import _events as events
from ixc_client import _resources as resources
from ixc_client import _wire_values as values
from ixc_client._inputs import Role, System, SystemPreset
from ixc_client._media import ImageInfo, Media, MediaState, VideoInfo
from ixc_client._status import error_from_status


def session(message: session_pb2.Session) -> resources.SessionInfo:
    return resources.SessionInfo(
        name=message.name,
        model=message.model,
        weights_digest=message.weights_digest,
        system=_system(message),
        sampling=event_replies.sampling(message.default_sampling),
        turn_count=message.turn_count,
        busy=message.state == session_pb2.SESSION_STATE_GENERATING,
        active_generation=message.active_generation or None,
        context_tokens=message.context_tokens,
        context_limit=message.context_limit,
        labels=dict(message.labels),
        parent=message.parent or None,
        forked_at_turn=message.forked_at_turn,
        ttl=values.seconds(message.ttl),
        create_time=values.time(message, "create_time"),
        last_used_time=values.time(message, "last_used_time"),
        expire_time=values.time(message, "expire_time"),
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
        finish_reason=values.enum(events.FinishReason, message, "finish_reason"),
        usage=event_replies.usage(message.usage),
        timings=event_replies.timings(message.timings),
        generation=message.generation,
        create_time=values.time(message, "create_time"),
    )


def generation(message: generation_pb2.Generation) -> resources.GenerationInfo:
    return resources.GenerationInfo(
        name=message.name,
        session=message.session or None,
        turn_index=message.turn_index,
        request_id=message.request_id,
        model=message.model,
        adapter=message.adapter,
        state=values.enum(events.GenerationState, message, "state"),
        text=message.text,
        last_sequence=message.last_sequence,
        first_available_sequence=message.first_available_sequence,
        finish_reason=(
            values.enum(events.FinishReason, message, "finish_reason")
            if message.finish_reason
            else None
        ),
        usage=event_replies.usage(message.usage),
        timings=event_replies.timings(message.timings),
        error=error_from_status(message.error) if message.HasField("error") else None,
        sampling=event_replies.sampling(message.effective_sampling),
        labels=dict(message.labels),
        create_time=values.time(message, "create_time"),
        end_time=values.time(message, "end_time"),
        expire_time=values.time(message, "expire_time"),
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
        state=values.enum(MediaState, message, "state"),
        image=_image_info(message.image) if kind == "image" else None,
        video=_video_info(message.video) if kind == "video" else None,
        error=error_from_status(message.error) if message.HasField("error") else None,
        create_time=values.time(message, "create_time"),
        ttl=values.seconds(message.ttl),
        expire_time=values.time(message, "expire_time"),
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
        duration=values.seconds(message.duration),
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
        default_sampling=event_replies.sampling(message.default_sampling),
        adapters=tuple(message.adapters),
        image_input=_image_input(message.image_input) if message.HasField("image_input") else None,
        system_presets={
            values.word(item, "preset").upper(): item.text for item in message.system_presets
        },
        dtype=values.word(message, "dtype"),
        quantization=quantization(message.quantization)
        if message.HasField("quantization")
        else None,
        state=values.word(message, "state"),
        size_bytes=message.size_bytes,
        origin=message.origin.model,
        merged_adapter=message.origin.merged_adapter,
    )


def server(message: model_pb2.ServerInfo) -> resources.ServerInfo:
    return resources.ServerInfo(
        version=message.version,
        instance=message.instance,
        start_time=values.time(message, "start_time"),
        default_model=message.default_model,
        limits=values.figures(message.limits),
        plan=values.figures(message.plan),
        capabilities=frozenset(
            values.enum_word(model_pb2.Capability.DESCRIPTOR, number)
            for number in message.capabilities
        ),
    )


def load(message: model_pb2.Load) -> resources.Load:
    return resources.Load(
        state=values.word(message, "state"),
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


def quantization(message: model_pb2.Quantization) -> str:
    return f"{values.word(message, 'scheme')} {message.bits} bits, groups of {message.group_size}"


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
        start=values.seconds(part.start) if part.HasField("start") else None,
        end=values.seconds(part.end) if part.HasField("end") else None,
    )


def _system(message: session_pb2.Session) -> System:
    if message.WhichOneof("system") == "system_preset":
        return SystemPreset.META_INSTRUCTION_DEFAULT
    return message.system_instruction or None
