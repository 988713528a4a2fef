"""From what the caller hands in to request messages; shared by both clients. Pure but for reading
pictures and drawing request ids.

Every request that does something carries a request id, so that sending it twice does it once.
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
    sampling_pb2,
    session_pb2,
    session_service_pb2,
    token_service_pb2,
)
from ixc_client._errors import UsageError
from ixc_client._inputs import (
    SAMPLING_SCALARS,
    ChatOptions,
    Conversation,
    GenerateOptions,
    Image,
    ImageLike,
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
    as_images,
    as_message,
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
    prompt: PromptLike, *, whole: bool, resumable: bool, **options: Unpack[GenerateOptions]
) -> generation_service_pb2.GenerateRequest:
    """`whole`: the text is wanted at the end only. `resumable`: a broken stream is come back to."""
    return generation_service_pb2.GenerateRequest(
        request_id=options.get("request_id") or new_request_id(),
        model=options.get("model", ""),
        prompt=prompt_message(prompt, options.get("images", ())),
        **system_fields(options.get("system")),
        adapter=options.get("adapter", ""),
        sampling=sampling_message(options.get("sampling")),
        output=output_message(options.get("output"), whole=whole),
        run=run_message(options.get("run"), resumable=resumable),
        labels=options.get("labels"),
    )


def chat(
    session: str,
    message: MessageLike,
    *,
    whole: bool,
    resumable: bool,
    **options: Unpack[ChatOptions],
) -> chat_service_pb2.ChatRequest:
    return chat_service_pb2.ChatRequest(
        request_id=options.get("request_id") or new_request_id(),
        session=session,
        message=content(as_message(message, as_images(options.get("images", ())))),
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
    system: System,
    session: str,
    model: str,
) -> token_service_pb2.CountTokensRequest:
    return token_service_pb2.CountTokensRequest(
        model=model,
        prompt=prompt_message(prompt, images),
        **system_fields(system),
        session=session,
    )


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
            model=model,
            **system_fields(system),
            default_sampling=sampling_message(sampling),
            ttl=_duration(ttl),
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
        ttl=_duration(ttl),
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


def generation_name(name: str) -> str:
    return name if name.startswith("generations/") else f"generations/{name}"


def prompt_message(
    prompt: PromptLike, images: ImageLike | Sequence[ImageLike]
) -> content_pb2.Prompt:
    pictures = as_images(images)
    if isinstance(prompt, TokenPrompt):
        if pictures:
            raise UsageError("a prompt of token ids takes no pictures")
        return content_pb2.Prompt(tokens=content_pb2.TokenPrompt(token_ids=prompt.token_ids))
    if isinstance(prompt, Conversation):
        if pictures:
            raise UsageError("put the pictures of a conversation into its messages")
        messages: Iterable[Message] = prompt.messages
    else:
        messages = (as_message(prompt, pictures),)
    return content_pb2.Prompt(
        contents=content_pb2.ContentList(contents=[content(message) for message in messages])
    )


def content(message: Message) -> content_pb2.Content:
    return content_pb2.Content(
        role=_ROLES[message.role],
        parts=[
            content_pb2.Part(text=part)
            if isinstance(part, str)
            else content_pb2.Part(image=_image(part))
            for part in message.parts
        ],
    )


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
        flush_interval=_duration(wanted.flush_interval),
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
        resume_grace=_duration(wanted.resume_grace),
        generation_timeout=_duration(wanted.generation_timeout),
        queue_timeout=_duration(wanted.queue_timeout),
    )


def _image(image: Image) -> content_pb2.ImagePart:
    return content_pb2.ImagePart(
        inline_data=image.read(), hd_num=image.hd_num, label=image.label or ""
    )


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
