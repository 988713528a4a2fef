"""What the server tells about its things: sessions, turns, generations, models, itself.

Plain values, made by `_replies`. Times are aware datetimes in UTC, durations seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ixc_client._errors import IxcError
from ixc_client._events import FinishReason, GenerationState, Timings, Usage
from ixc_client._inputs import Role, Sampling, System


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    name: str
    model: str
    weights_digest: str
    system: System
    sampling: Sampling  # for turns that do not give their own
    turn_count: int
    busy: bool
    active_generation: str | None
    context_tokens: int  # what the history occupies
    context_limit: int
    labels: Mapping[str, str]
    parent: str | None
    forked_at_turn: int
    ttl: float
    create_time: datetime | None
    last_used_time: datetime | None
    expire_time: datetime | None
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """A picture of a stored turn: named by its digest, without its bytes."""

    sha256: str
    mime_type: str
    label: str
    hd_num: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRef:
    """A clip of a stored turn: named by its digest, with the choice of frames that was asked."""

    sha256: str
    mime_type: str
    label: str
    max_frames: int | None
    fps: float | None
    start: float | None
    end: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    role: Role
    text: str
    images: tuple[ImageRef, ...] = ()
    videos: tuple[VideoRef, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One question and its answer. Committed whole, so there is never one without the other."""

    name: str
    index: int
    request_id: str
    user: StoredMessage
    assistant: StoredMessage
    token_ids: tuple[int, ...]  # empty unless asked for
    adapter: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    generation: str
    create_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationInfo:
    name: str
    session: str | None
    turn_index: int
    request_id: str
    model: str
    adapter: str
    state: GenerationState
    text: str
    last_sequence: int
    first_available_sequence: int
    finish_reason: FinishReason | None
    usage: Usage
    timings: Timings
    error: IxcError | None
    sampling: Sampling
    labels: Mapping[str, str]
    create_time: datetime | None
    end_time: datetime | None
    expire_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInput:
    """How a model takes pictures: in square tiles, at most so many."""

    tile_size: int
    hd_num_single: int
    hd_num_several: int
    hd_num_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    name: str
    display_name: str
    description: str
    weights_digest: str
    context_limit: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    default_sampling: Sampling
    adapters: tuple[str, ...]
    image_input: ImageInput | None  # None: it takes no pictures
    system_presets: Mapping[str, str]
    dtype: str
    quantization: str | None
    state: str = "loaded"  # "available": it lies in the models root and can be loaded
    size_bytes: int = 0  # 0 for one outside the models root
    origin: str = ""  # the model it was made from, if the service made it
    merged_adapter: str = ""  # what was merged into it then


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """`limits` and `plan` hold every figure under the contract's own field name."""

    version: str
    instance: str
    start_time: datetime | None
    default_model: str
    limits: Mapping[str, int | float]
    plan: Mapping[str, int | str]
    capabilities: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    state: str
    running_generations: int
    queued_generations: int
    detached_generations: int
    pages_used: int
    pages_cached: int
    pages_total: int
    sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCount:
    """What one picture of a prompt costs."""

    width: int
    height: int
    tiles_wide: int
    tiles_high: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoCount:
    """What one clip of a prompt costs; `frames` are those shown."""

    width: int
    height: int
    frames: int
    tiles_wide: int
    tiles_high: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCount:
    """`context_limit` bounds prompt and answer together; what is left for the answer follows."""

    total_tokens: int
    image_tokens: int
    context_limit: int
    images: tuple[ImageCount, ...] = ()
    video_tokens: int = 0
    videos: tuple[VideoCount, ...] = ()
