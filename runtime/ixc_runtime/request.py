"""What goes into the runtime and what comes out: plain values, no arrays, no wire.

Knows nothing of protobuf, tokens' meaning, pages or tensors; every other module may import it.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """Encoded picture bytes in a file of ours: `digest` is the SHA-256 of those bytes, in hex."""

    digest: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSource:
    """An encoded clip in a file of ours, named as an `ImageSource`."""

    digest: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart:
    """A picture at its place among the parts.

    `hd_num` bounds its tiles (None: the model's default for one or for several pictures);
    `label` names it in the prompt (None: "Image1", "Image2", … in order).
    """

    source: ImageSource
    hd_num: int | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoPart:
    """A clip at its place among the parts, shown to the model as one strip of labelled frames.

    A frame a second (`fps`: others; the clip's own rate is the most) from `start_seconds` to
    `end_seconds`, evenly thinned out to `max_frames` (None: 32). The prompt says nothing about
    it but where the strip is; "Here are some frames of a video. Describe it." is how the
    reference's own examples put the question, and is for the caller to say.
    """

    source: VideoSource
    max_frames: int | None = None
    fps: float | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    label: str | None = None  # as an ImagePart's; clips and pictures are counted together


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensPart:
    """Text as the very token ids the model produced, so that history is never tokenised anew."""

    token_ids: tuple[int, ...]


Part = TextPart | ImagePart | VideoPart | TokensPart


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Messages in order, the last one the user's. `system_instruction` None or "" is none."""

    messages: tuple[Message, ...]
    system_instruction: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPrompt:
    """A prompt as token ids, taken as they are."""

    token_ids: tuple[int, ...]


Prompt = Conversation | TokenPrompt


# The base model without a task adapter; the other names are what the checkpoint carries.
BASE_ADAPTER = "base"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen. None everywhere: the model's default for that setting.

    Ranges are checked by `ixc_runtime.sampling.validate`; the effective values, with no None
    left but `seed`'s replacement filled in, are what `Accepted` reports.
    """

    temperature: float | None = None  # 0 is greedy
    top_p: float | None = None  # (0, 1]
    top_k: int | None = None  # 0 is off
    min_p: float | None = None  # [0, 1)
    repetition_penalty: float | None = None  # sees generated tokens only; 1 is off
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None  # 64 bits; None draws one
    max_output_tokens: int | None = None  # 0 is what fits
    min_output_tokens: int | None = None
    ignore_eos: bool | None = None
    stop_sequences: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    bad_words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    top_logprobs: int | None = None  # None: no logprobs; 0: the sampled token's alone
    include_stop: bool = False  # keep a matched stop sequence in the text


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One answer to be generated.

    `scope` separates tenants: cached pages are shared only among requests of equal scope.
    `queue_timeout_seconds` None waits as long as the queue's own bound allows. What is not expected
    to leave the queue within it, or within `start_within_seconds`, is refused at once.
    """

    prompt: Prompt
    adapter: str = BASE_ADAPTER
    sampling: SamplingParams = field(default_factory=SamplingParams)
    output: OutputOptions = field(default_factory=OutputOptions)
    scope: str = ""
    queue_timeout_seconds: float | None = None
    start_within_seconds: float | None = None
    generation_timeout_seconds: float | None = None


class FinishReason(StrEnum):
    STOP = "stop"  # the model ended its turn
    STOP_SEQUENCE = "stop_sequence"
    MAX_TOKENS = "max_tokens"
    CONTEXT_LIMIT = "context_limit"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptUsage:
    """Prompt tokens by kind. Those of pictures and of clips are part of `prompt_tokens`."""

    prompt_tokens: int
    image_tokens: int
    num_images: int
    video_tokens: int = 0
    num_videos: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    prompt_tokens: int
    image_tokens: int
    cached_tokens: int
    output_tokens: int
    video_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Seconds. Zero where the phase did not happen."""

    queue_seconds: float = 0.0
    media_seconds: float = 0.0
    vision_seconds: float = 0.0
    prefill_seconds: float = 0.0
    first_token_seconds: float = 0.0  # from submission
    decode_seconds: float = 0.0
    total_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """Natural log of the model's own probability, before temperature and every filter."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


# What a generation yields, in this order: Accepted, PromptProcessed, TextDelta …, Completed.


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    usage: PromptUsage
    queue_position: int
    sampling: SamplingParams  # effective: every setting filled in


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptProcessed:
    usage: PromptUsage
    cached_tokens: int
    encoded_tiles: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """Text whose bytes are complete characters and no possible start of a stop sequence.

    Ids run ahead of text while bytes are held back; at the end they agree.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    matched_stop_sequence: str | None = None
    matched_stop_token_id: int | None = None


GenerationUpdate = Accepted | PromptProcessed | TextDelta | Completed
