"""From what the caller hands in to request messages; shared by both clients. Pure but for reading
small pictures and drawing request ids.

Every request that does something carries a request id, so that sending it twice does it once. What
is too large to be read here is left in the request's `Enclosures`, and comes in before it is sent.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from ixc.v1 import (
    chat_service_pb2,
    content_pb2,
    generation_service_pb2,
    media_pb2,
    sampling_pb2,
    session_pb2,
    session_service_pb2,
    token_service_pb2,
)
from ixc_client._enclosures import Enclosures
from ixc_client._errors import UsageError
from ixc_client._inputs import (
    SAMPLING_SCALARS,
    ChatOptions,
    Conversation,
    GenerateOptions,
    Message,
    MessageLike,
    OnBusy,
    OnDisconnect,
    Output,
    PromptLike,
    Role,
    Run,
    Sampling,
    System,
    SystemPreset,
    TokenPrompt,
    as_message,
)
from ixc_client._media import (
    Image,
    ImageLike,
    Media,
    MediaState,
    Video,
    VideoLike,
    as_images,
    as_videos,
)
from ixc_client._settings import NOT_GIVEN, NotGiven

_ROLES = {
    Role.USER: content_pb2.ROLE_USER,
    Role.ASSISTANT: content_pb2.ROLE_ASSISTANT,
    Role.SYSTEM: content_pb2.ROLE_SYSTEM,
}
_ON_DISCONNECT = {
    OnDisconnect.CANCEL: sampling_pb2.ON_DISCONNECT_CANCEL,
    OnDisconnect.GRACE: sampling_pb2.ON_DISCONNECT_GRACE,
    OnDisconnect.CONTINUE: sampling_pb2.ON_DISCONNECT_CONTINUE,
}
_ON_BUSY = {
    OnBusy.REJECT: chat_service_pb2.BUSY_POLICY_REJECT,
    OnBusy.QUEUE: chat_service_pb2.BUSY_POLICY_QUEUE,
    OnBusy.INTERRUPT: chat_service_pb2.BUSY_POLICY_INTERRUPT,
}


def generate(
    prompt: PromptLike,
    *,
    whole: bool,
    resumable: bool,
    enclosures: Enclosures,
    **options: Unpack[GenerateOptions],
) -> generation_service_pb2.GenerateRequest:
    """`whole`: the text is wanted at the end only. `resumable`: a broken stream is come back to."""
    request = generation_service_pb2.GenerateRequest(
        request_id=options.get("request_id") or new_request_id(),
        model=model_name(options.get("model", "")),
        **system_fields(options.get("system")),
        adapter=options.get("adapter", ""),
        sampling=sampling_message(options.get("sampling")),
        output=output_message(options.get("output"), whole=whole),
        run=run_message(options.get("run"), resumable=resumable),
        labels=options.get("labels"),
    )
    write_prompt(request.prompt, prompt, _shown(options), enclosures)
    return request


def chat(
    session: str,
    message: MessageLike,
    *,
    whole: bool,
    resumable: bool,
    enclosures: Enclosures,
    **options: Unpack[ChatOptions],
) -> chat_service_pb2.ChatRequest:
    request = chat_service_pb2.ChatRequest(
        request_id=options.get("request_id") or new_request_id(),
        session=session,
        expected_turn=options.get("expected_turn"),
        adapter=options.get("adapter", ""),
        sampling=sampling_message(options.get("sampling")),
        output=output_message(options.get("output"), whole=whole),
        run=run_message(options.get("run"), resumable=resumable),
        busy_policy=_ON_BUSY[options.get("on_busy", OnBusy.REJECT)],
        on_cancel=(
            chat_service_pb2.PARTIAL_POLICY_KEEP_PARTIAL
            if options.get("keep_partial")
            else chat_service_pb2.PARTIAL_POLICY_DISCARD
        ),
    )
    write_message(request.message, as_message(message, _shown(options)), enclosures)
    enclosures.put_small_ones_inside()
    return request


def watch(
    generation: str, after_sequence: int, output: sampling_pb2.OutputOptions | None = None
) -> generation_service_pb2.WatchGenerationRequest:
    """`output` is that of the request which is taken up again; it goes on as it was asked for."""
    request = generation_service_pb2.WatchGenerationRequest(
        name=generation_name(generation), after_sequence=after_sequence, allow_snapshot=True
    )
    if output is not None:
        request.delivery = output.delivery
        if output.HasField("flush_interval"):
            request.flush_interval.CopyFrom(output.flush_interval)
    return request


def cancel(generation: str) -> generation_service_pb2.CancelGenerationRequest:
    return generation_service_pb2.CancelGenerationRequest(name=generation_name(generation))


def count(
    prompt: PromptLike,
    *,
    images: ImageLike | Sequence[ImageLike],
    videos: VideoLike | Sequence[VideoLike],
    system: System,
    session: str,
    model: str,
    enclosures: Enclosures,
) -> token_service_pb2.CountTokensRequest:
    request = token_service_pb2.CountTokensRequest(
        model=model_name(model), **system_fields(system), session=session
    )
    shown: tuple[Image | Video, ...] = (*as_images(images), *as_videos(videos))
    write_prompt(request.prompt, prompt, shown, enclosures)
    return request


def create_session(
    *,
    system: System,
    sampling: Sampling | None,
    ttl: float | None,
    labels: Mapping[str, str] | None,
    session_id: str,
    model: str,
) -> session_service_pb2.CreateSessionRequest:
    return session_service_pb2.CreateSessionRequest(
        request_id=new_request_id(),
        session_id=session_id,
        session=session_pb2.Session(
            model=model_name(model),
            **system_fields(system),
            default_sampling=sampling_message(sampling),
            ttl=duration(ttl),
            labels=labels,
        ),
    )


def update_session(
    name: str,
    *,
    ttl: float | NotGiven | None,
    labels: Mapping[str, str] | NotGiven | None,
    sampling: Sampling | NotGiven | None,
    etag: str,
) -> session_service_pb2.UpdateSessionRequest:
    """What is not given stays; None goes back to the default."""
    session = session_pb2.Session(name=name, etag=etag)
    paths: list[str] = []
    if ttl is not NOT_GIVEN:
        paths.append("ttl")
        if ttl is not None:
            session.ttl.FromNanoseconds(round(ttl * 1e9))
    if labels is not NOT_GIVEN:
        paths.append("labels")
        session.labels.update(labels or {})
    if sampling is not NOT_GIVEN:
        paths.append("default_sampling")
        if sampling is not None:
            session.default_sampling.CopyFrom(sampling_message(sampling))
    if not paths:
        raise UsageError("nothing to update: give ttl, labels or sampling")
    return session_service_pb2.UpdateSessionRequest(
        session=session, update_mask=FieldMask(paths=paths)
    )


def fork_session(
    name: str, *, at_turn: int | None, session_id: str, ttl: float | None
) -> session_service_pb2.ForkSessionRequest:
    return session_service_pb2.ForkSessionRequest(
        request_id=new_request_id(),
        name=name,
        at_turn=at_turn,
        session_id=session_id,
        ttl=duration(ttl),
    )


def check_batch(prompts: Sequence[PromptLike], options: GenerateOptions) -> None:
    """A list of prompts shares its options, but not what can only belong to one of them."""
    if options.get("request_id"):
        raise UsageError(f"one request_id cannot serve {len(prompts)} prompts; leave it out")


def new_request_id() -> str:
    return str(uuid.uuid4())


def session_name(name: str) -> str:
    """The full name: "abc" is "sessions/abc"."""
    return name if name.startswith("sessions/") else f"sessions/{name}"


def model_name(name: str) -> str:
    """The full name: "demo" is "models/demo"; "" stays, and is the server's default."""
    return name if not name or name.startswith("models/") else f"models/{name}"


def generation_name(name: str) -> str:
    return name if name.startswith("generations/") else f"generations/{name}"


def media_name(media: Media | str) -> str:
    """The full name: "9f86…" is "media/9f86…"."""
    name = media.name if isinstance(media, Media) else media
    return name if name.startswith("media/") else f"media/{name}"


def media_states(states: Sequence[MediaState]) -> list[media_pb2.MediaState.ValueType]:
    return [media_pb2.MediaState.Value(f"MEDIA_STATE_{state.name}") for state in states]


# A message put into another is a copy; prompts are written in place, so that what waits in
# `Enclosures` is a part of the request itself.


def write_prompt(
    target: content_pb2.Prompt,
    prompt: PromptLike,
    shown: Sequence[Image | Video],
    enclosures: Enclosures,
) -> None:
    if isinstance(prompt, TokenPrompt):
        if shown:
            raise UsageError("a prompt of token ids takes no pictures and no clips")
        target.tokens.CopyFrom(content_pb2.TokenPrompt(token_ids=prompt.token_ids))
        return
    if isinstance(prompt, Conversation):
        if shown:
            raise UsageError("put the pictures and clips of a conversation into its messages")
        messages: Iterable[Message] = prompt.messages
    else:
        messages = (as_message(prompt, shown),)
    target.contents.SetInParent()
    for message in messages:
        write_message(target.contents.contents.add(), message, enclosures)
    enclosures.put_small_ones_inside()


def write_message(target: content_pb2.Content, message: Message, enclosures: Enclosures) -> None:
    target.role = _ROLES[message.role]
    for part in message.parts:
        made: content_pb2.ImagePart | content_pb2.VideoPart
        if isinstance(part, str):
            target.parts.add(text=part)
            continue
        if isinstance(part, Image):
            made = target.parts.add(image=_image(part)).image
        else:
            made = target.parts.add(video=_video(part)).video
        if part.media:
            made.media = part.media
        else:
            enclosures.add(made, part.open())


def system_fields(system: System) -> dict[str, Any]:
    """The member of a `system` oneof, as keyword arguments of its message."""
    if system is None:
        return {}
    if isinstance(system, SystemPreset):
        return {"system_preset": content_pb2.SYSTEM_PRESET_META_INSTRUCTION_DEFAULT}
    return {"system_instruction": system}


def sampling_message(sampling: Sampling | None) -> sampling_pb2.SamplingParams:
    given = sampling or Sampling()
    return sampling_pb2.SamplingParams(
        **{name: getattr(given, name) for name in SAMPLING_SCALARS},
        stop_sequences=given.stop_sequences,
        stop_token_ids=given.stop_token_ids,
        logit_bias=dict(given.logit_bias),
        bad_words=given.bad_words,
    )


def output_message(output: Output | None, *, whole: bool) -> sampling_pb2.OutputOptions:
    wanted = output or Output()
    return sampling_pb2.OutputOptions(
        token_ids=wanted.token_ids,
        top_logprobs=wanted.top_logprobs,
        include_stop=wanted.include_stop,
        flush_interval=duration(wanted.flush_interval),
        delivery=sampling_pb2.DELIVERY_FINAL_ONLY if whole else sampling_pb2.DELIVERY_DELTAS,
    )


def run_message(run: Run | None, *, resumable: bool) -> sampling_pb2.RunPolicy:
    wanted = run or Run()
    on_disconnect = sampling_pb2.ON_DISCONNECT_UNSPECIFIED
    if wanted.on_disconnect is not None:
        on_disconnect = _ON_DISCONNECT[wanted.on_disconnect]
    elif resumable:
        on_disconnect = sampling_pb2.ON_DISCONNECT_GRACE
    return sampling_pb2.RunPolicy(
        on_disconnect=on_disconnect,
        resume_grace=duration(wanted.resume_grace),
        generation_timeout=duration(wanted.generation_timeout),
        queue_timeout=duration(wanted.queue_timeout),
    )


def _shown(options: GenerateOptions | ChatOptions) -> tuple[Image | Video, ...]:
    return (*as_images(options.get("images", ())), *as_videos(options.get("videos", ())))


def _image(image: Image) -> content_pb2.ImagePart:
    return content_pb2.ImagePart(hd_num=image.hd_num, label=image.label or "")


def _video(video: Video) -> content_pb2.VideoPart:
    return content_pb2.VideoPart(
        max_frames=video.max_frames,
        fps=video.fps,
        start=duration(video.start),
        end=duration(video.end),
        label=video.label or "",
    )


def duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    made = Duration()
    made.FromNanoseconds(round(seconds * 1e9))
    return made
