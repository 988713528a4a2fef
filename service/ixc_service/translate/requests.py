"""From requests to the runtime's and the service's values."""

from collections.abc import Mapping

from google.protobuf import message as protobuf
from google.protobuf.duration_pb2 import Duration

from ixc.v1 import (
    chat_service_pb2,
    content_pb2,
    generation_service_pb2,
    sampling_pb2,
    session_pb2,
    token_service_pb2,
)
from ixc_runtime import (
    BASE_ADAPTER,
    META_INSTRUCTION,
    Conversation,
    GenerationRequest,
    ImagePart,
    Message,
    ModelInfo,
    OutputOptions,
    Part,
    Prompt,
    Role,
    SamplingParams,
    TextPart,
    TokenPrompt,
    VideoPart,
)
from ixc_service.delivery import View
from ixc_service.identifiers import digest_of
from ixc_service.jobs import ChatOrder, within_limits
from ixc_service.limits import Limits
from ixc_service.media_library import Attachments, NamedMedia
from ixc_service.media_store import Encoded, MediaStore, media_type
from ixc_service.run import OnDisconnect, RunSpec
from ixc_service.seats import BusyPolicy
from ixc_service.store import LOCAL_OWNER, StoredImage, StoredPart, StoredText, StoredVideo

_ROLES = {
    content_pb2.ROLE_UNSPECIFIED: Role.USER,
    content_pb2.ROLE_USER: Role.USER,
    content_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
    content_pb2.ROLE_SYSTEM: Role.SYSTEM,
}
_ON_DISCONNECT = {
    sampling_pb2.ON_DISCONNECT_CANCEL: OnDisconnect.CANCEL,
    sampling_pb2.ON_DISCONNECT_GRACE: OnDisconnect.GRACE,
    sampling_pb2.ON_DISCONNECT_CONTINUE: OnDisconnect.CONTINUE,
}
_BUSY = {
    chat_service_pb2.BUSY_POLICY_UNSPECIFIED: BusyPolicy.REJECT,
    chat_service_pb2.BUSY_POLICY_REJECT: BusyPolicy.REJECT,
    chat_service_pb2.BUSY_POLICY_QUEUE: BusyPolicy.QUEUE,
    chat_service_pb2.BUSY_POLICY_INTERRUPT: BusyPolicy.INTERRUPT,
}
SAMPLING_SCALARS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "max_output_tokens",
    "min_output_tokens",
    "ignore_eos",
)
_WithSystem = (
    generation_service_pb2.GenerateRequest
    | token_service_pb2.CountTokensRequest
    | session_pb2.Session
)


def seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def sampling_params(message: sampling_pb2.SamplingParams) -> SamplingParams:
    fields: protobuf.Message = message  # by name, which the generated type allows for literals only
    scalars = {
        name: getattr(fields, name) if fields.HasField(name) else None for name in SAMPLING_SCALARS
    }
    return SamplingParams(
        **scalars,
        stop_sequences=tuple(message.stop_sequences),
        stop_token_ids=tuple(message.stop_token_ids),
        logit_bias=tuple(sorted(message.logit_bias.items())),
        bad_words=tuple(message.bad_words),
    )


def output_options(message: sampling_pb2.OutputOptions) -> OutputOptions:
    has_logprobs = message.HasField("top_logprobs")
    return OutputOptions(
        top_logprobs=message.top_logprobs if has_logprobs else None,
        include_stop=message.include_stop,
    )


def view(
    message: sampling_pb2.OutputOptions | generation_service_pb2.WatchGenerationRequest,
    after_sequence: int,
    default_flush_seconds: float,
    *,
    allows_snapshot: bool = False,
) -> View:
    asked = message.HasField("flush_interval")
    return View(
        after_sequence=after_sequence,
        flush_interval_seconds=seconds(message.flush_interval) if asked else default_flush_seconds,
        is_final_only=message.delivery == sampling_pb2.DELIVERY_FINAL_ONLY,
        allows_snapshot=allows_snapshot,
    )


def system_text(request: _WithSystem, model: ModelInfo) -> str | None:
    """The instruction that stands above; None for none."""
    if request.HasField("system_preset"):
        return preset_text(model)
    return request.system_instruction or None


def preset_text(model: ModelInfo) -> str:
    return model.system_instruction or META_INSTRUCTION


# ---- content


def attachments(contents: Mapping[str, content_pb2.Content]) -> Attachments:
    """The pictures and clips of messages, which are given by their fields."""
    found = [
        (f"{field}.parts[{index}].{kind}", kind, part.video if kind == "video" else part.image)
        for field, content in contents.items()
        for index, part in enumerate(content.parts)
        if (kind := part.WhichOneof("kind")) in {"image", "video"}
    ]
    return Attachments(
        inline=tuple(
            Encoded.of(message.inline_data) for _, _, message in found if not message.media
        ),
        named=tuple(
            NamedMedia(
                digest=digest_of(message.media) or "",
                is_video=kind == "video",
                field=f"{field}.media",
            )
            for field, kind, message in found
            if message.media
        ),
    )


def contents_of(prompt: content_pb2.Prompt) -> dict[str, content_pb2.Content]:
    """A prompt's messages by their fields."""
    return {
        f"prompt.contents.contents[{index}]": content
        for index, content in enumerate(prompt.contents.contents)
    }


def _digest(message: content_pb2.ImagePart | content_pb2.VideoPart) -> str:
    return digest_of(message.media) or Encoded.of(message.inline_data).digest


def prompt(message: content_pb2.Prompt, system: str | None, media: MediaStore) -> Prompt:
    if message.HasField("tokens"):
        return TokenPrompt(token_ids=tuple(message.tokens.token_ids))
    contents = list(message.contents.contents)
    if contents and contents[0].role == content_pb2.ROLE_SYSTEM:
        system = "".join(part.text for part in contents.pop(0).parts) or None
    return Conversation(
        messages=tuple(
            Message(role=_ROLES[content.role], parts=_parts(content, media)) for content in contents
        ),
        system_instruction=system,
    )


def _parts(content: content_pb2.Content, media: MediaStore) -> tuple[Part, ...]:
    return tuple(
        _image(part.image, media)
        if part.HasField("image")
        else _video(part.video, media)
        if part.HasField("video")
        else TextPart(text=part.text)
        for part in content.parts
    )


def _image(message: content_pb2.ImagePart, media: MediaStore) -> ImagePart:
    return ImagePart(
        source=media.source(_digest(message)),
        hd_num=message.hd_num if message.HasField("hd_num") else None,
        label=message.label or None,
    )


def _video(message: content_pb2.VideoPart, media: MediaStore) -> VideoPart:
    return VideoPart(
        source=media.video_source(_digest(message)),
        max_frames=message.max_frames if message.HasField("max_frames") else None,
        fps=message.fps if message.HasField("fps") else None,
        start_seconds=seconds(message.start) if message.HasField("start") else None,
        end_seconds=seconds(message.end) if message.HasField("end") else None,
        label=message.label or None,
    )


def stored_parts(content: content_pb2.Content) -> tuple[StoredPart, ...]:
    """Of what is named, type and size are not known here, and left empty."""
    return tuple(
        _stored_image(part.image)
        if part.HasField("image")
        else _stored_video(part.video)
        if part.HasField("video")
        else StoredText(part.text)
        for part in content.parts
    )


def _stored_image(message: content_pb2.ImagePart) -> StoredImage:
    return StoredImage(
        digest=_digest(message),
        mime_type=media_type(message.inline_data) or "",
        size_bytes=len(message.inline_data),
        hd_num=message.hd_num if message.HasField("hd_num") else None,
        label=message.label or None,
    )


def _stored_video(message: content_pb2.VideoPart) -> StoredVideo:
    return StoredVideo(
        digest=_digest(message),
        mime_type=media_type(message.inline_data) or "",
        size_bytes=len(message.inline_data),
        max_frames=message.max_frames if message.HasField("max_frames") else None,
        fps=message.fps if message.HasField("fps") else None,
        start_seconds=seconds(message.start) if message.HasField("start") else None,
        end_seconds=seconds(message.end) if message.HasField("end") else None,
        label=message.label or None,
    )


# ---- whole requests


def run_spec(
    request: generation_service_pb2.GenerateRequest | chat_service_pb2.ChatRequest,
    default: OnDisconnect,
    limits: Limits,
    *,
    model: ModelInfo,
    session_id: str | None = None,
    labels: dict[str, str] | None = None,
) -> RunSpec:
    run = request.run
    grace = limits.default_resume_grace_seconds
    return RunSpec(
        owner=LOCAL_OWNER,
        model=model,
        request_id=request.request_id,
        adapter=request.adapter or BASE_ADAPTER,
        labels=labels or {},
        session_id=session_id,
        on_disconnect=_ON_DISCONNECT.get(run.on_disconnect, default),
        resume_grace_seconds=seconds(run.resume_grace) if run.HasField("resume_grace") else grace,
        sampling=sampling_params(request.sampling),
        sends_token_ids=request.output.token_ids,
    )


def generation_request(
    request: generation_service_pb2.GenerateRequest,
    model: ModelInfo,
    limits: Limits,
    media: MediaStore,
) -> GenerationRequest:
    asked = sampling_params(request.sampling)
    return GenerationRequest(
        prompt=prompt(request.prompt, system_text(request, model), media),
        adapter=request.adapter or BASE_ADAPTER,
        sampling=within_limits(asked, model.default_sampling, limits),
        output=output_options(request.output),
        scope=LOCAL_OWNER,
        queue_timeout_seconds=queue_timeout(request.run, limits),
        generation_timeout_seconds=generation_timeout(request.run, limits),
    )


def chat_order(
    request: chat_service_pb2.ChatRequest,
    session_id: str,
    limits: Limits,
    *,
    start_by: float | None,
) -> ChatOrder:
    return ChatOrder(
        owner=LOCAL_OWNER,
        session_id=session_id,
        request_id=request.request_id,
        user=stored_parts(request.message),
        attachments=attachments({"message": request.message}),
        expected_turn=request.expected_turn if request.HasField("expected_turn") else None,
        adapter=request.adapter or BASE_ADAPTER,
        sampling=sampling_params(request.sampling),
        output=output_options(request.output),
        busy_policy=_BUSY[request.busy_policy],
        keeps_partial=request.on_cancel == chat_service_pb2.PARTIAL_POLICY_KEEP_PARTIAL,
        queue_timeout_seconds=queue_timeout(request.run, limits),
        generation_timeout_seconds=generation_timeout(request.run, limits),
        start_by=start_by,
    )


def queue_timeout(run: sampling_pb2.RunPolicy, limits: Limits) -> float:
    asked = run.HasField("queue_timeout")
    return seconds(run.queue_timeout) if asked else limits.max_queue_wait_seconds


def generation_timeout(run: sampling_pb2.RunPolicy, limits: Limits) -> float:
    asked = run.HasField("generation_timeout")
    return seconds(run.generation_timeout) if asked else limits.max_generation_timeout_seconds
