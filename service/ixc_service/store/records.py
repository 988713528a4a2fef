"""The values the store holds. Plain data; nothing here knows SQL or protobuf."""

from dataclasses import dataclass

import msgspec

from ixc_runtime import FinishReason, SamplingParams, Timings, Usage

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


StoredPart = StoredText | StoredImage


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
    def image_digests(self) -> tuple[str, ...]:
        return tuple(part.digest for part in self.user if isinstance(part, StoredImage))
