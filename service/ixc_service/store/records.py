"""The values the store holds. Plain data; nothing here knows SQL or protobuf."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from ixc_runtime import FinishReason, ImageInfo, SamplingParams, Timings, Usage, VideoInfo

# The owner of everything while no identity is asked for.
LOCAL_OWNER = "local"


class StoredText(msgspec.Struct, frozen=True, tag="text"):
    text: str


class StoredImage(msgspec.Struct, frozen=True, tag="image"):
    """A picture by the SHA-256 of its bytes, which lie in the media store."""

    digest: str
    mime_type: str
    size_bytes: int
    hd_num: int | None = None
    label: str | None = None


class StoredVideo(msgspec.Struct, frozen=True, tag="video"):
    """A clip by the SHA-256 of its bytes, and which of its frames were asked for."""

    digest: str
    mime_type: str
    size_bytes: int
    max_frames: int | None = None
    fps: float | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    label: str | None = None


StoredMedia = StoredImage | StoredVideo
StoredPart = StoredText | StoredImage | StoredVideo


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """Whose request this is, by the caller's own id. `digest` covers the request's content."""

    owner: str
    method: str
    request_id: str
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """`revision` grows with every change; together with `incarnation` it makes the etag."""

    owner: str
    session_id: str
    incarnation: str  # tells a session from a deleted one of the same id
    model: str
    weights_digest: str
    system_instruction: str | None
    system_preset: int  # the contract's number; 0 when none was named
    default_sampling: SamplingParams
    labels: dict[str, str]
    parent: str | None
    forked_at_turn: int | None
    ttl_seconds: float
    create_time: float
    last_used_time: float
    turn_count: int = 0
    context_tokens: int = 0
    revision: int = 0

    @property
    def expire_time(self) -> float:
        return self.last_used_time + self.ttl_seconds

    @property
    def etag(self) -> str:
        return f"{self.incarnation}-{self.revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecord:
    """One question and its answer, committed together. `index` counts from 1.

    `last_sequence` is the number of the event that announced the commit, for readers whose cursor
    outlives the generation's log.
    """

    index: int
    request_id: str
    generation_id: str
    user: tuple[StoredPart, ...]
    assistant_text: str
    token_ids: tuple[int, ...]
    adapter: str
    sampling: SamplingParams  # effective, seed included
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    create_time: float
    last_sequence: int
    matched_stop_sequence: str | None = None
    matched_stop_token_id: int | None = None

    @property
    def media_digests(self) -> tuple[str, ...]:
        """Of its pictures and clips, each as often as it occurs."""
        return tuple(part.digest for part in self.user if isinstance(part, StoredMedia))


class MediaState(StrEnum):
    PROCESSING = "processing"  # whole, but not looked at yet
    ACTIVE = "active"
    FAILED = "failed"  # it cannot be used, and its bytes are not kept for it


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFailure:
    """Why an object cannot be used: a fault as it crosses borders, see ixc_runtime.errors."""

    reason: str
    message: str
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRecord:
    """An owner's uploaded object. Its bytes are a file of the media store, shared with others.

    `facts` are what was found in it, a MediaFailure when FAILED, None while PROCESSING.
    """

    owner: str
    digest: str
    mime_type: str
    size_bytes: int
    state: MediaState
    facts: ImageInfo | VideoInfo | MediaFailure | None
    ttl_seconds: float
    create_time: float
    expire_time: float

    @property
    def is_video(self) -> bool:
        return self.mime_type.startswith("video/")


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRecord:
    """A transfer, begun or finished. `staging` is the name of the file its bytes gather in."""

    owner: str
    upload_id: str
    digest: str
    mime_type: str  # as the caller says; may be empty
    size_bytes: int
    ttl_seconds: float
    staging: str
    is_finished: bool
    expire_time: float
