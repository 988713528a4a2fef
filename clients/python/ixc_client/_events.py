"""What a stream yields, and the answer it adds up to.

Plain values; `_answer` makes them from messages. In this order: Accepted, PromptProcessed,
Delta …, Completed. Heartbeat and Draining may stand anywhere between.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from ixc_client._inputs import Sampling


class FinishReason(StrEnum):
    UNKNOWN = "unknown"  # a reason newer than this client
    STOP = "stop"  # the model ended its turn
    STOP_SEQUENCE = "stop_sequence"
    MAX_TOKENS = "max_tokens"
    CONTEXT_LIMIT = "context_limit"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens by kind. Those of images and videos, and cached ones, are among the prompt's."""

    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt, read from the server's cache instead of computed
    image_tokens: int = 0
    video_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Seconds by phase. Zero where the phase did not happen."""

    queue: float = 0.0
    media: float = 0.0
    vision: float = 0.0
    prefill: float = 0.0
    first_token: float = 0.0  # from submission
    decode: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    token_id: int
    logprob: float  # natural log, before temperature and filters
    top: tuple[tuple[int, float], ...] = ()  # the likeliest tokens at that place


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The server took the request. `sampling` is what is in force, with the seed drawn."""

    generation: str
    session: str = ""
    turn_index: int = 0
    model: str = ""
    weights_digest: str = ""
    adapter: str = ""
    deduplicated: bool = False  # attached to an earlier run of the same request id
    queue_position: int = 0
    prompt_tokens: int = 0
    image_tokens: int = 0
    video_tokens: int = 0
    sampling: Sampling = field(default_factory=Sampling)


class CacheHit(StrEnum):
    UNKNOWN = "unknown"
    NONE = "none"  # nothing was cached, nor could have been
    RESIDENT = "resident"  # at least a part was in the cache
    REPREFILLED = "reprefilled"  # earlier turns had left the cache and were computed again


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptProcessed:
    prompt_tokens: int
    image_tokens: int
    cached_tokens: int
    encoded_tiles: int  # tiles of pictures and clips that went through the vision tower
    cache_hit: CacheHit
    video_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """The next piece of text: whole characters, never the possible start of a stop sequence."""

    text: str
    sequence: int
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    token_count: int = 0


class GenerationState(StrEnum):
    UNKNOWN = "unknown"
    PENDING = "pending"  # in the queue, or its prompt is being read
    DECODING = "decoding"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Nothing new, but alive."""

    state: GenerationState
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """The server will stop within so many seconds; new calls should go to another."""

    time_left: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    matched_stop: str | int | None = None  # the stop sequence, or the id of the stop token
    turn: str = ""
    session_etag: str = ""


Event = Accepted | PromptProcessed | Delta | Heartbeat | Draining | Completed


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer, whole. `str(answer)` is its text."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    generation: str
    request_id: str
    session: str = ""
    turn: str = ""
    turn_index: int = 0
    model: str = ""
    weights_digest: str = ""
    adapter: str = ""
    matched_stop: str | int | None = None
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    deduplicated: bool = False

    def __str__(self) -> str:
        return self.text
