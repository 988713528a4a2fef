"""What the front end and the engine say to each other, one msgpack value a message.

The front end sends Start, then any of Submit, Cancel, Pixels, PixelsFailed, Ask and Shutdown.
The engine says Loading while it starts, then Ready or StartFailed; then it sends one Frame a step,
with everything that the step brought, and an Answer to each Ask. Decoding checks every field's
type; nothing is executed.
"""

from enum import StrEnum

import msgspec

from ixc_runtime.model_info import AdapterInfo, EngineLoad, MemoryPlan, ModelInfo
from ixc_runtime.request import FinishReason, SamplingParams, TokenLogprob


class AdapterSource(msgspec.Struct, frozen=True, kw_only=True):
    """A user's adapter: what it is called, and its folder in PEFT layout.

    `digest` None takes what is there; given, it must still be that.
    """

    name: str
    folder: str
    digest: str | None = None


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How to run a model; everything the engine process is told at start.

    None means that the engine chooses by device and model, and says in its MemoryPlan what it
    chose.
    """

    model: str  # folder of the checkpoint
    name: str | None = None
    device: str = "cpu"
    dtype: str | None = None
    max_context: int | None = None  # tokens
    max_batch: int | None = None  # sequences in one step
    max_step_tokens: int | None = None  # rows in one step: decode rows and prefill chunks
    tiles_per_step: int | None = None
    page_size: int | None = None  # slots
    kv_bytes: int | None = None
    # Encoded images kept for others to find, and as much of such whose prompts wait their turn.
    feature_bytes: int = 256 * 2**20
    queue_limit: int | None = None  # requests waiting beyond max_batch; None: four times that
    reuse_prefixes: bool = True
    adapter_bytes: int | None = None  # for users' adapters, beside the checkpoint's
    threads: int | None = None  # CPU threads of the engine; None: all cores
    adapters: tuple[AdapterSource, ...] = ()  # to be there from the start


# ---- front end to engine


class Start(msgspec.Struct, frozen=True, tag=True):
    config: EngineConfig


class ImageSlots(msgspec.Struct, frozen=True, kw_only=True):
    """An image's place in the prompt: `num_tokens` slots from `start`. Equal `key`: same pixels."""

    key: bytes
    start: int
    num_tokens: int
    tiles_wide: int
    tiles_high: int


class Submit(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """One sequence to be answered. `token_ids` hold IMAGE_TOKEN at image slots.

    `sampling` has nothing left open; strings in it are the front end's business.
    """

    sequence_id: str
    token_ids: list[int]
    images: list[ImageSlots]
    adapter: str
    scope: str
    sampling: SamplingParams
    stop_token_ids: list[int]
    bad_word_ids: list[list[int]]
    top_logprobs: int | None


class Cancel(msgspec.Struct, frozen=True, tag=True):
    sequence_id: str
    reason: FinishReason


class Pixels(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """RGB rows, 8 bits each, in a file that the engine deletes after reading."""

    key: bytes
    path: str
    width: int
    height: int


class PixelsFailed(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The picture could not be rendered: sequences that wait for it are given up."""

    key: bytes
    reason: str
    message: str
    metadata: dict[str, str] = {}


class TakeAdapter(msgspec.Struct, frozen=True, tag=True):
    """Read it beside the steps; once answered, sequences may ask for it."""

    source: AdapterSource


class DropAdapter(msgspec.Struct, frozen=True, tag=True):
    """No sequence asks for it any more."""

    name: str


class Query(StrEnum):
    LOAD = "load"
    INTEGRITY = "integrity"


Question = Query | TakeAdapter | DropAdapter


class Ask(msgspec.Struct, frozen=True, tag=True):
    question_id: int
    question: Question


class Shutdown(msgspec.Struct, frozen=True, tag=True):
    pass


ToEngine = Start | Submit | Cancel | Pixels | PixelsFailed | Ask | Shutdown


# ---- engine to front end


class LoadingStage(StrEnum):
    """In this order. On a CPU there are no kernels, and the first stage passes at once."""

    KERNELS = "kernels"  # they are compiled, or found compiled
    CHECKPOINT = "checkpoint"  # its files are looked at
    WEIGHTS = "weights"  # they are read: `done` of `total` bytes
    CACHE = "cache"  # memory is divided, and taken


class Loading(msgspec.Struct, frozen=True, tag=True):
    """How far the start is. Without figures where a stage has none."""

    stage: LoadingStage
    done: int = 0
    total: int = 0


class Ready(msgspec.Struct, frozen=True, tag=True):
    info: ModelInfo
    plan: MemoryPlan


class StartFailed(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    reason: str
    message: str
    metadata: dict[str, str] = {}


class Started(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The sequence left the queue and holds its pages."""

    sequence_id: str
    queue_seconds: float
    cached_tokens: int


class PixelsNeeded(msgspec.Struct, frozen=True, tag=True):
    """No cache covers the image with this key; every sequence that wants it waits for Pixels."""

    key: bytes


class PromptDone(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    sequence_id: str
    encoded_tiles: int
    media_seconds: float
    vision_seconds: float
    prefill_seconds: float


class Token(msgspec.Struct, frozen=True, tag=True, gc=False):
    """`gc=False`: never in a cycle, and thousands a second would keep the collector running."""

    sequence_id: str
    token_id: int
    logprob: TokenLogprob | None = None


class Finished(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The last word about a sequence; its pages are free. A stop token is not among its tokens."""

    sequence_id: str
    reason: FinishReason
    stop_token_id: int | None = None


class Failed(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The last word about a sequence that met a fault; its neighbours go on."""

    sequence_id: str
    reason: str
    message: str
    metadata: dict[str, str] = {}


Update = Started | PixelsNeeded | PromptDone | Token | Finished | Failed


class Frame(msgspec.Struct, frozen=True, tag=True):
    """Everything one step brought, in order."""

    updates: list[Update]
    load: EngineLoad


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A fault, as it crosses between processes."""

    reason: str
    message: str
    metadata: dict[str, str] = {}


class Answer(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """`adapter` is what TakeAdapter brought; `refusal` why it brought nothing."""

    question_id: int
    load: EngineLoad
    violations: list[str] = []
    adapter: AdapterInfo | None = None
    refusal: Refusal | None = None


FromEngine = Loading | Ready | StartFailed | Frame | Answer
