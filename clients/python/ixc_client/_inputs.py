"""What a caller hands in: prompts, and how the answer is to be chosen and shown.

Pictures and clips are `_media`'s. Knows nothing of the wire; `_requests` writes these into
messages.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Final, TypedDict, TypeVar

from ixc_client._errors import UsageError
from ixc_client._media import Image, ImageLike, ShownLike, Video, VideoLike, as_shown


class Role(StrEnum):
    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"


class Message:
    """Texts, pictures and clips in order. `Message("Compare", Image("a.png"), Image("b.png"))`."""

    __slots__ = ("parts", "role")

    def __init__(self, *parts: str | Image | Video, role: Role = Role.USER) -> None:
        for part in parts:
            if not isinstance(part, str | Image | Video):
                raise UsageError(
                    f"a message is made of str, Image and Video, not {type(part).__name__}; "
                    "wrap a path or bytes in Image(…) or Video(…)"
                )
        self.parts = parts
        self.role = role

    @classmethod
    def assistant(cls, text: str) -> "Message":
        return cls(text, role=Role.ASSISTANT)

    def with_first(self, shown: Iterable[Image | Video]) -> "Message":
        return Message(*shown, *self.parts, role=self.role)

    def __repr__(self) -> str:
        return f"Message({', '.join(map(repr, self.parts))}, role={self.role.value!r})"


class Conversation:
    """Messages in order, the last one the user's: a chat whose history the caller keeps.

    A session is cheaper when the history only grows: the server keeps it, and nothing is sent or
    computed twice.
    """

    __slots__ = ("messages",)

    def __init__(self, *messages: Message) -> None:
        self.messages = messages

    def __repr__(self) -> str:
        return f"Conversation({', '.join(map(repr, self.messages))})"


class TokenPrompt:
    """A prompt as token ids, taken exactly as they are; nothing is added around them."""

    __slots__ = ("token_ids",)

    def __init__(self, token_ids: Sequence[int]) -> None:
        self.token_ids = tuple(token_ids)

    def __repr__(self) -> str:
        return f"TokenPrompt(<{len(self.token_ids)} ids>)"


# ("What is this?", "cat.jpg"), ("Compare them", ["a.png", "b.png"]) and
# ("What happens?", Video("clip.mp4")) are a text and what it is about.
TextWithShown = tuple[str, ShownLike | Sequence[ShownLike]]
MessageLike = str | TextWithShown | Message
PromptLike = MessageLike | Conversation | TokenPrompt
# For lists of prompts, which may be all of one kind.
PromptT = TypeVar("PromptT", bound=PromptLike)


def as_message(value: MessageLike, shown: Iterable[Image | Video] = ()) -> Message:
    """The message meant by `value`, `shown` standing before its text as the model was trained."""
    if isinstance(value, Message):
        return value.with_first(shown)
    if isinstance(value, str):
        return Message(*shown, value)
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        return Message(*shown, *as_shown(value[1]), value[0])
    raise UsageError(
        "a message is a str, a (text, pictures and clips) pair or a Message, "
        f"not {type(value).__name__}"
    )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Sampling:
    """How the next token is chosen. None everywhere: the session's or the model's default.

    >>> Sampling(temperature=0, max_output_tokens=64)
    Sampling(temperature=0, max_output_tokens=64)
    """

    temperature: float | None = None  # 0 is greedy: always the likeliest token
    top_p: float | None = None
    top_k: int | None = None  # 0 is off
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None  # 64 bits; the same seed gives the same answer
    max_output_tokens: int | None = None
    min_output_tokens: int | None = None
    ignore_eos: bool | None = None
    stop_sequences: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    bad_words: tuple[str, ...] = ()

    def __repr__(self) -> str:
        values = ((item.name, getattr(self, item.name)) for item in dataclasses.fields(self))
        given = [f"{name}={value!r}" for name, value in values if value not in (None, (), {})]
        return f"Sampling({', '.join(given)})"


# Those of its fields that tell unset from zero on the wire.
SAMPLING_SCALARS: Final = (
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What the events of an answer carry besides its text."""

    token_ids: bool = False
    top_logprobs: int | None = None  # None: no logprobs; 0: those of the sampled tokens alone
    include_stop: bool = False  # keep a matched stop sequence in the text
    flush_interval: float | None = None  # seconds between deltas; 0 sends each token by itself


class SystemPreset(Enum):
    """Texts that belong to the model, by name; `ModelInfo.system_presets` has their words."""

    META_INSTRUCTION_DEFAULT = "META_INSTRUCTION_DEFAULT"


# What stands above the conversation: a text, one of the model's own, or nothing.
System = str | SystemPreset | None


class OnDisconnect(StrEnum):
    """What the server does when nobody reads an answer any more."""

    CANCEL = "cancel"  # stop within a step
    GRACE = "grace"  # go on for `Run.resume_grace`, stop if nobody has come back
    CONTINUE = "continue"  # go on to the end


class OnBusy(StrEnum):
    """What a message to a session does while an earlier turn is under way."""

    REJECT = "reject"  # SessionBusy
    QUEUE = "queue"  # wait for it
    INTERRUPT = "interrupt"  # end it


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How long the work may take, and what happens to it while nobody reads. Times in seconds.

    `on_disconnect` None is GRACE where this client may resume a broken stream, else the server's
    default.
    """

    on_disconnect: OnDisconnect | None = None
    resume_grace: float | None = None
    generation_timeout: float | None = None
    queue_timeout: float | None = None


class GenerateOptions(TypedDict, total=False):
    """What `generate` and `stream` of a client take beside the prompt."""

    images: ImageLike | Sequence[ImageLike]  # put before the text of a single message
    videos: VideoLike | Sequence[VideoLike]  # likewise, after the images
    system: System
    adapter: str  # "base", or a name of ModelInfo.adapters such as "web" or "write"
    sampling: Sampling
    output: Output
    run: Run
    model: str  # of those the server serves, by its name; the server's default if left out
    labels: Mapping[str, str]
    request_id: str  # a random UUID if left out


class ChatOptions(TypedDict, total=False):
    """What `say` and `stream` of a session take beside the message."""

    images: ImageLike | Sequence[ImageLike]
    videos: VideoLike | Sequence[VideoLike]
    adapter: str
    sampling: Sampling  # field by field over the session's own
    output: Output
    run: Run
    on_busy: OnBusy
    keep_partial: bool  # commit an answer that is stopped, as far as it has come
    expected_turn: int  # TurnConflict unless the turn gets this index
    request_id: str
