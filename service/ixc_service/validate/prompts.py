"""Checks of what prompts and answers are made of: content, sampling, output, run policy."""

from collections.abc import Mapping, Sequence

from google.protobuf import message as protobuf
from google.protobuf.duration_pb2 import Duration

from ixc.v1 import content_pb2, sampling_pb2
from ixc_runtime import MAX_VIDEO_FRAMES, ModelInfo
from ixc_service.identifiers import digest_of
from ixc_service.limits import Limits
from ixc_service.media_store import Encoded, media_type, objection
from ixc_service.validate.findings import Bounds, Findings

_MAX_LABEL_KEY_BYTES = 63
_MAX_LABEL_VALUE_BYTES = 255
_MAX_IMAGE_LABEL_BYTES = 64
_MAX_FLUSH_SECONDS = 10.0
_MAX_UINT64 = 2.0**64
_MAX_FPS = 1000.0
_MAX_SECONDS = 315_576_000_000.0  # what a Duration holds
_MAY_HOLD_MEDIA = {content_pb2.ROLE_USER, content_pb2.ROLE_UNSPECIFIED}

# The scalars of SamplingParams, with what the contract allows.
SAMPLING_BOUNDS: Mapping[str, Bounds] = {
    "temperature": Bounds(0, 2),
    "top_p": Bounds(0, 1, low_open=True),
    "top_k": Bounds(0, 2**31 - 1),
    "min_p": Bounds(0, 1, high_open=True),
    "repetition_penalty": Bounds(0, 10, low_open=True),
    "presence_penalty": Bounds(-2, 2),
    "frequency_penalty": Bounds(-2, 2),
    "seed": Bounds(0, _MAX_UINT64),
}
_LOGIT_BIAS = Bounds(-100, 100)


def check_prompt(
    findings: Findings, prompt: content_pb2.Prompt, limits: Limits, model: ModelInfo
) -> None:
    if prompt.HasField("tokens"):
        if not prompt.tokens.token_ids:
            findings.prompt_empty("prompt.tokens")
        findings.token_ids("prompt.tokens.token_ids", prompt.tokens.token_ids, model.vocab_size)
    elif not prompt.HasField("contents") or not prompt.contents.contents:
        findings.prompt_empty("prompt")
    else:
        _check_contents(findings, prompt.contents.contents, limits, model)


def _check_contents(
    findings: Findings,
    contents: Sequence[content_pb2.Content],
    limits: Limits,
    model: ModelInfo,
) -> None:
    """USER and ASSISTANT in turn from USER to USER, a SYSTEM at the very front allowed."""
    has_system = contents[0].role == content_pb2.ROLE_SYSTEM
    expected = content_pb2.ROLE_USER
    for index, content in enumerate(contents):
        field = f"prompt.contents.contents[{index}]"
        findings.enum(f"{field}.role", content.role, content_pb2.Role.DESCRIPTOR)
        if index == 0 and has_system:
            continue
        if content.role != expected:
            wanted = content_pb2.Role.Name(expected)
            findings.add(f"{field}.role", "OUT_OF_ORDER", f"must be {wanted} here")
        expected = (
            content_pb2.ROLE_ASSISTANT
            if content.role == content_pb2.ROLE_USER
            else content_pb2.ROLE_USER
        )
    if contents[-1].role == content_pb2.ROLE_ASSISTANT or len(contents) == has_system:
        findings.add("prompt.contents.contents", "OUT_OF_ORDER", "must end with ROLE_USER")
    fields = [f"prompt.contents.contents[{index}]" for index in range(len(contents))]
    check_parts(findings, dict(zip(fields, contents, strict=True)), limits, model)


def check_parts(
    findings: Findings,
    contents: Mapping[str, content_pb2.Content],
    limits: Limits,
    model: ModelInfo,
) -> None:
    """The parts of all messages of a request, by their field; limits hold for them together."""
    num_media = num_bytes = 0
    last = tuple(contents)[-1]
    if not any(
        part.HasField("image") or part.HasField("video") or part.text
        for part in contents[last].parts
    ):
        findings.prompt_empty(last)
    most_tiles = min(limits.max_hd_num, model.hd_num_max)
    most_frames = min(limits.max_video_frames, MAX_VIDEO_FRAMES)
    for field, content in contents.items():
        for index, part in enumerate(content.parts):
            place = f"{field}.parts[{index}]"
            if part.HasField("image") or part.HasField("video"):
                num_media += 1
                if content.role not in _MAY_HOLD_MEDIA:
                    findings.add(place, "NOT_ALLOWED", "only ROLE_USER may send images and clips")
            if part.HasField("image"):
                num_bytes += len(part.image.inline_data)
                check_image(findings, f"{place}.image", part.image, Bounds(1, most_tiles))
            elif part.HasField("video"):
                num_bytes += len(part.video.inline_data)
                _check_video(findings, f"{place}.video", part.video, Bounds(1, most_frames))
            elif not part.HasField("text"):
                findings.add(place, "MISSING", "must hold text, an image or a clip")
    if num_media > limits.max_images:
        findings.add(
            last,
            "TOO_MANY",
            f"{num_media} images and clips, at most {limits.max_images} are allowed",
        )
    if num_bytes > limits.max_inline_image_bytes:
        findings.add(
            last,
            "TOO_LARGE",
            f"{num_bytes} bytes of images and clips, at most {limits.max_inline_image_bytes} "
            "are allowed inline",
        )


def check_image(
    findings: Findings, field: str, image: content_pb2.ImagePart, hd_num: Bounds
) -> None:
    if image.HasField("hd_num"):
        findings.number(f"{field}.hd_num", image.hd_num, hd_num)
    _check_source(findings, field, image, "image/")


def _check_video(
    findings: Findings, field: str, video: content_pb2.VideoPart, frames: Bounds
) -> None:
    if video.HasField("max_frames"):
        findings.number(f"{field}.max_frames", video.max_frames, frames)
    if video.HasField("fps"):
        findings.number(f"{field}.fps", video.fps, Bounds(0, _MAX_FPS, low_open=True))
    if video.HasField("start"):
        findings.duration(f"{field}.start", video.start, _MAX_SECONDS, zero_allowed=True)
    if video.HasField("end"):
        findings.duration(f"{field}.end", video.end, _MAX_SECONDS)
        if _seconds(video.end) <= _seconds(video.start):
            findings.add(f"{field}.end", "OUT_OF_RANGE", "must be after start")
    _check_source(findings, field, video, "video/")


def _check_source(
    findings: Findings,
    field: str,
    part: content_pb2.ImagePart | content_pb2.VideoPart,
    kind: str,
) -> None:
    """What pictures and clips have in common: a name or bytes of this `kind`, and a label."""
    findings.size(f"{field}.label", part.label, _MAX_IMAGE_LABEL_BYTES)
    if len(part.label.splitlines()) > 1:
        findings.add(f"{field}.label", "MALFORMED", "must be one line")
    if part.HasField("media"):
        if digest_of(part.media) is None:
            findings.add(f"{field}.media", "MALFORMED", "must be media/{sha256}")
        if part.mime_type:
            findings.add(f"{field}.mime_type", "NOT_ALLOWED", "only with inline_data")
        return
    if not part.inline_data:
        findings.add(f"{field}.inline_data", "MISSING", "must hold encoded bytes, or media a name")
        return
    found = media_type(part.inline_data)
    problem = objection(part.mime_type, found)
    if found is not None and not found.startswith(kind):
        problem = f"the bytes are {found}, which belongs into another kind of part"
    if problem is not None:
        findings.media_type(Encoded.of(part.inline_data).digest, problem)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def check_sampling(
    findings: Findings,
    field: str,
    sampling: sampling_pb2.SamplingParams,
    limits: Limits,
    model: ModelInfo,
) -> None:
    fields: protobuf.Message = sampling
    outputs = Bounds(0, limits.max_output_tokens)
    bounds = {**SAMPLING_BOUNDS, "max_output_tokens": outputs, "min_output_tokens": outputs}
    for name, allowed in bounds.items():
        if fields.HasField(name):
            findings.number(f"{field}.{name}", getattr(sampling, name), allowed)
    if 0 < sampling.max_output_tokens < sampling.min_output_tokens:
        findings.add(
            f"{field}.min_output_tokens",
            "OUT_OF_RANGE",
            f"is {sampling.min_output_tokens}, more than max_output_tokens, "
            f"{sampling.max_output_tokens}",
        )
    for name, limit in (
        ("stop_sequences", limits.max_stop_sequences),
        ("stop_token_ids", limits.max_stop_token_ids),
        ("logit_bias", limits.max_logit_bias),
        ("bad_words", limits.max_bad_words),
    ):
        findings.count(f"{field}.{name}", len(getattr(sampling, name)), limit)
    for name, texts in (
        ("stop_sequences", sampling.stop_sequences),
        ("bad_words", sampling.bad_words),
    ):
        for index, text in enumerate(texts):
            findings.size(
                f"{field}.{name}[{index}]", text, limits.max_stop_sequence_bytes, at_least=1
            )
    findings.token_ids(f"{field}.stop_token_ids", sampling.stop_token_ids, model.vocab_size)
    findings.token_ids(f"{field}.logit_bias", sampling.logit_bias, model.vocab_size)
    for token_id, bias in sampling.logit_bias.items():
        findings.number(f"{field}.logit_bias[{token_id}]", bias, _LOGIT_BIAS)


def check_output(findings: Findings, output: sampling_pb2.OutputOptions, limits: Limits) -> None:
    if output.HasField("top_logprobs"):
        bounds = Bounds(0, limits.max_top_logprobs)
        findings.number("output.top_logprobs", output.top_logprobs, bounds)
    if output.HasField("flush_interval"):
        check_flush_interval(findings, "output.flush_interval", output.flush_interval)
    findings.enum("output.delivery", output.delivery, sampling_pb2.Delivery.DESCRIPTOR)


def check_flush_interval(findings: Findings, field: str, interval: Duration) -> None:
    findings.duration(field, interval, _MAX_FLUSH_SECONDS, zero_allowed=True)


def check_run(findings: Findings, run: sampling_pb2.RunPolicy, limits: Limits) -> None:
    findings.enum("run.on_disconnect", run.on_disconnect, sampling_pb2.OnDisconnect.DESCRIPTOR)
    if run.HasField("resume_grace"):
        findings.duration(
            "run.resume_grace",
            run.resume_grace,
            limits.max_resume_grace_seconds,
            zero_allowed=True,
        )
    if run.HasField("generation_timeout"):
        findings.duration(
            "run.generation_timeout",
            run.generation_timeout,
            limits.max_generation_timeout_seconds,
        )
    if run.HasField("queue_timeout"):
        findings.duration("run.queue_timeout", run.queue_timeout, limits.max_queue_wait_seconds)


def check_labels(findings: Findings, field: str, labels: Mapping[str, str], limits: Limits) -> None:
    findings.count(field, len(labels), limits.max_labels)
    for key, value in labels.items():
        findings.size(f"{field} (a key)", key, _MAX_LABEL_KEY_BYTES, at_least=1)
        findings.size(f"{field} (a value)", value, _MAX_LABEL_VALUE_BYTES)
