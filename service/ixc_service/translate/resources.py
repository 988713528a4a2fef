"""From the service's records to the contract's resources: sessions, turns, generations, server."""

import dataclasses
from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from ixc.v1 import (
    content_pb2,
    generation_pb2,
    model_pb2,
    session_pb2,
    token_service_pb2,
)
from ixc_runtime import (
    BASE_ADAPTER,
    MAX_VIDEO_FRAMES,
    EngineLoad,
    MemoryPlan,
    ModelInfo,
    PromptCount,
)
from ixc_service.event_log import Failed
from ixc_service.identifiers import generation_name, model_name, session_name, turn_name
from ixc_service.limits import MAX_ERROR_DETAILS_BYTES, Limits
from ixc_service.run import Run
from ixc_service.status import status_of
from ixc_service.store import SessionRecord, StoredPart, StoredText, StoredVideo, TurnRecord
from ixc_service.translate.events import (
    FINISH_REASONS,
    STATES,
    duration,
    sampling_message,
    timings_message,
    usage_message,
)
from ixc_service.translate.models import DTYPES

_CHUNK_FRAME_BYTES = 64  # what stands around a chunk's bytes in its message


def timestamp(moment: float) -> Timestamp:
    return Timestamp(seconds=int(moment), nanos=int(moment % 1 * 1e9))


# ---- sessions


def session_message(
    record: SessionRecord, model: ModelInfo | None, active: Run | None
) -> session_pb2.Session:
    """`model` None: the one it was made with is not served."""
    message = session_pb2.Session(
        name=session_name(record.session_id),
        model=model_name(record.model),
        weights_digest=record.weights_digest,
        default_sampling=sampling_message(record.default_sampling),
        turn_count=record.turn_count,
        state=session_pb2.SESSION_STATE_GENERATING if active else session_pb2.SESSION_STATE_IDLE,
        active_generation=generation_name(active.id) if active else "",
        context_tokens=record.context_tokens,
        context_limit=model.context_limit if model else 0,
        labels=record.labels,
        parent=record.parent or "",
        forked_at_turn=record.forked_at_turn or 0,
        create_time=timestamp(record.create_time),
        last_used_time=timestamp(record.last_used_time),
        ttl=duration(record.ttl_seconds),
        expire_time=timestamp(record.expire_time),
        etag=record.etag,
    )
    if record.system_preset:
        message.system_preset = content_pb2.SystemPreset.ValueType(record.system_preset)
    elif record.system_instruction:
        message.system_instruction = record.system_instruction
    return message


def turn_message(session_id: str, turn: TurnRecord, *, is_full: bool) -> session_pb2.Turn:
    return session_pb2.Turn(
        name=turn_name(session_id, turn.index),
        index=turn.index,
        request_id=turn.request_id,
        user=content_pb2.Content(role=content_pb2.ROLE_USER, parts=map(_part, turn.user)),
        assistant=content_pb2.Content(
            role=content_pb2.ROLE_ASSISTANT, parts=[content_pb2.Part(text=turn.assistant_text)]
        ),
        token_ids=turn.token_ids if is_full else (),
        adapter=turn.adapter,
        finish_reason=FINISH_REASONS[turn.finish_reason],
        usage=usage_message(turn.usage),
        timings=timings_message(turn.timings),
        generation=generation_name(turn.generation_id),
        create_time=timestamp(turn.create_time),
    )


def _part(part: StoredPart) -> content_pb2.Part:
    if isinstance(part, StoredText):
        return content_pb2.Part(text=part.text)
    if isinstance(part, StoredVideo):
        return content_pb2.Part(video=_video(part))
    return content_pb2.Part(
        image=content_pb2.ImagePart(
            mime_type=part.mime_type,
            hd_num=part.hd_num,
            label=part.label or "",
            sha256=part.digest,
        )
    )


def _video(part: StoredVideo) -> content_pb2.VideoPart:
    return content_pb2.VideoPart(
        mime_type=part.mime_type,
        max_frames=part.max_frames,
        fps=part.fps,
        start=None if part.start_seconds is None else duration(part.start_seconds),
        end=None if part.end_seconds is None else duration(part.end_seconds),
        label=part.label or "",
        sha256=part.digest,
    )


# ---- generations


def generation_message(run: Run, limits: Limits, *, with_text: bool) -> generation_pb2.Generation:
    done, terminal = run.completed, run.log.terminal
    message = generation_pb2.Generation(
        name=generation_name(run.id),
        session=session_name(run.spec.session_id) if run.spec.session_id else "",
        turn_index=run.turn_index,
        request_id=run.spec.request_id,
        model=model_name(run.spec.model.name),
        adapter=run.spec.adapter,
        state=STATES[run.state],
        text=run.log.text() if with_text else "",
        last_sequence=run.log.last_sequence,
        first_available_sequence=run.log.first_available_sequence,
        usage=usage_message(run.usage),
        effective_sampling=sampling_message(
            run.accepted.sampling if run.accepted else run.spec.sampling
        ),
        labels=run.spec.labels,
        create_time=timestamp(run.create_time),
    )
    if done:
        message.finish_reason = FINISH_REASONS[done.finish_reason]
        message.timings.CopyFrom(timings_message(done.timings))
    if isinstance(terminal, Failed):
        message.error.CopyFrom(status_of(terminal.fault))
    if run.end_time is not None:
        message.end_time.CopyFrom(timestamp(run.end_time))
        expiry = run.end_time + limits.generation_retention_seconds
        message.expire_time.CopyFrom(timestamp(expiry))
    return message


# ---- server


def limits_message(limits: Limits, model: ModelInfo, plan: MemoryPlan) -> model_pb2.Limits:
    """The table as it is: names agree, so that a limit cannot be applied and not told."""
    message = model_pb2.Limits(
        max_error_details_bytes=MAX_ERROR_DETAILS_BYTES,
        context_limit=model.context_limit,
        max_queued_generations=plan.queue_limit,
    )
    for item in dataclasses.fields(limits):
        value = getattr(limits, item.name)
        if item.name.endswith("_seconds"):
            getattr(message, item.name.removesuffix("_seconds")).CopyFrom(duration(value))
        else:
            setattr(message, item.name, value)
    message.max_hd_num = min(limits.max_hd_num, model.hd_num_max)
    message.max_video_frames = min(limits.max_video_frames, MAX_VIDEO_FRAMES)
    message.max_upload_chunk_bytes = min(
        limits.max_upload_chunk_bytes, limits.max_message_bytes - _CHUNK_FRAME_BYTES
    )
    return message


def plan_message(plan: MemoryPlan, model: ModelInfo) -> model_pb2.StartupPlan:
    return model_pb2.StartupPlan(
        backend=model_pb2.BACKEND_CPU,
        backend_description=f"{plan.device}: {plan.backend}",
        dtype=DTYPES.get(model.dtype, model_pb2.DATA_TYPE_UNSPECIFIED),
        kv_dtype=DTYPES.get(plan.kv_dtype, model_pb2.DATA_TYPE_UNSPECIFIED),
        weights_bytes=plan.weights_bytes,
        adapters_bytes=plan.adapters_bytes,
        page_size=plan.page_size,
        num_pages=plan.num_pages,
        kv_bytes=plan.kv_bytes,
        kv_bytes_per_token=plan.bytes_per_token,
        tokens_capacity=plan.capacity_tokens,
        images_capacity=images_capacity(plan, model),
        max_batch_size=plan.max_batch,
        max_step_tokens=plan.max_step_tokens,
    )


def images_capacity(plan: MemoryPlan, model: ModelInfo) -> int:
    """How many pictures of the dearest shape fit in the cache."""
    return plan.capacity_tokens // model.max_image_tokens if model.max_image_tokens else 0


def capabilities(
    model: ModelInfo, *, reuses_prefixes: bool, has_models_root: bool, has_adapters_root: bool
) -> list[model_pb2.Capability.ValueType]:
    found = [model_pb2.CAPABILITY_TOKEN_PROMPTS, model_pb2.CAPABILITY_LOGPROBS]
    if model.tile_size is not None:
        found += [model_pb2.CAPABILITY_IMAGE_INPUT, model_pb2.CAPABILITY_VIDEO_INPUT]
    if set(model.adapters) != {BASE_ADAPTER}:
        found.append(model_pb2.CAPABILITY_ADAPTERS)
    if reuses_prefixes:
        found.append(model_pb2.CAPABILITY_PREFIX_CACHE)
    if has_models_root:
        found.append(model_pb2.CAPABILITY_WEIGHTS)
    if has_adapters_root:
        found.append(model_pb2.CAPABILITY_USER_ADAPTERS)
    return sorted(found)


def load_message(
    loads: Sequence[EngineLoad],
    *,
    state: model_pb2.ServerState.ValueType,
    num_detached: int,
    num_sessions: int,
) -> model_pb2.Load:
    """Of all models together."""
    return model_pb2.Load(
        state=state,
        running_generations=sum(load.running for load in loads),
        queued_generations=sum(load.waiting for load in loads),
        detached_generations=num_detached,
        pages_used=sum(load.pages_used for load in loads),
        pages_cached=sum(load.pages_indexed for load in loads),
        pages_total=sum(load.pages_total for load in loads),
        sessions=num_sessions,
    )


def server_info(
    *,
    version: str,
    instance: str,
    start_time: float,
    limits: Limits,
    model: ModelInfo,
    plan: MemoryPlan,
    features: Sequence[model_pb2.Capability.ValueType],
) -> model_pb2.ServerInfo:
    return model_pb2.ServerInfo(
        version=version,
        instance=instance,
        start_time=timestamp(start_time),
        default_model=model_name(model.name),
        limits=limits_message(limits, model, plan),
        plan=plan_message(plan, model),
        capabilities=features,
    )


def count_message(count: PromptCount, *, num_new: int) -> token_service_pb2.CountTokensResponse:
    """`num_new` pictures and clips at the end of the prompt are the request's own."""
    new = count.images[len(count.images) - num_new :]
    return token_service_pb2.CountTokensResponse(
        total_tokens=count.usage.prompt_tokens,
        image_tokens=count.usage.image_tokens,
        video_tokens=count.usage.video_tokens,
        images=[
            token_service_pb2.ImageCount(
                width=image.width,
                height=image.height,
                tiles_wide=image.tiles_wide,
                tiles_high=image.tiles_high,
                tokens=image.num_tokens,
            )
            for image in new
            if not image.is_video
        ],
        videos=[
            token_service_pb2.VideoCount(
                width=video.width,
                height=video.height,
                frames=len(video.frames),
                tiles_wide=video.tiles_wide,
                tiles_high=video.tiles_high,
                tokens=video.num_tokens,
            )
            for video in new
            if video.is_video
        ],
        context_limit=count.context_limit,
    )
