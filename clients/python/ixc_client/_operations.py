"""Long work as the caller sees it: what it is, how far it is, what came of it. Plain values.

In a stream, in this order: OperationAccepted; OperationProgress, OperationMetric, OperationLog and
OperationRestarted in any number; OperationCompleted. OperationHeartbeat and Draining may stand
anywhere between.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ixc_client._errors import IxcError
from ixc_client._events import Draining
from ixc_client._media import MediaSource
from ixc_client._resources import ModelInfo


class OperationKind(StrEnum):
    UNKNOWN = "unknown"  # newer than this client
    MERGE_LORA = "merge_lora"
    QUANTIZE = "quantize"
    LOAD_MODEL = "load_model"


class OperationState(StrEnum):
    UNKNOWN = "unknown"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Rounding(StrEnum):
    """How weights become integers."""

    UNKNOWN = "unknown"
    AWQ = "awq"  # activation-aware: scales and clipping found on samples
    NEAREST = "nearest"  # each to the nearest level; quick, a baseline


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationProgress:
    """How far it is. `stage_index` counts from 1; `eta` is None until a rate has shown itself."""

    stage: str
    stage_index: int
    stage_count: int
    fraction: float  # of the whole work, 0 to 1
    items_done: int  # of this stage, in its own unit
    items_total: int
    item: str
    elapsed: float
    eta: float | None
    bytes_written: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedModel:
    model: str
    manifest_digest: str
    files: int
    size_bytes: int
    elapsed: float
    replaced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitAgreement:
    """Of two models' logits over the same positions."""

    positions: int
    relative_difference: float
    top1_agreement: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionDrift:
    """Of a candidate's predictions from its source's, over the same positions. KL in nats."""

    positions: int
    source_perplexity: float
    candidate_perplexity: float
    mean_kl: float
    max_kl: float
    top1_agreement: float

    @property
    def perplexity_ratio(self) -> float:
        return self.candidate_perplexity / self.source_perplexity


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeLoraResult:
    """`image` is None for a model that takes no pictures."""

    published: PublishedModel
    adapter: str
    dtype: str
    tensors: int
    merged_tensors: int
    text: LogitAgreement
    image: LogitAgreement | None
    load_operation: str  # "" unless it was to be loaded

    @property
    def model(self) -> str:
        return self.published.model


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeResult:
    """`image` is None for a model that takes no pictures."""

    published: PublishedModel
    quantization: str
    rounding: Rounding
    source_bytes: int
    relative_error: float | None
    text: PredictionDrift
    image: PredictionDrift | None
    load_operation: str

    @property
    def model(self) -> str:
        return self.published.model


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadModelResult:
    info: ModelInfo

    @property
    def model(self) -> str:
        return self.info.name


OperationResult = MergeLoraResult | QuantizeResult | LoadModelResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """The record of one piece of long work. `error` is set if it failed or was cancelled."""

    name: str
    kind: OperationKind
    state: OperationState
    done: bool
    progress: OperationProgress | None
    result: OperationResult | None
    error: IxcError | None
    cancel_requested: bool
    request_id: str
    model: str
    output_model: str
    last_sequence: int
    attempt: int
    create_time: datetime | None
    start_time: datetime | None
    end_time: datetime | None
    expire_time: datetime | None


# ---- what a stream brings


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationAccepted:
    operation: Operation
    deduplicated: bool
    queue_position: int
    required_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationMetric:
    """A figure of one layer."""

    layer: str
    metric: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationLog:
    severity: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRestarted:
    """It was interrupted; `resumed`: what had been finished is taken over."""

    attempt: int
    resumed: bool
    kept_files: int
    kept_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationHeartbeat:
    state: OperationState
    queue_position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationCompleted:
    """`result` is None if the request was to be validated only."""

    result: OperationResult | None


OperationEvent = (
    OperationAccepted
    | OperationProgress
    | OperationMetric
    | OperationLog
    | OperationRestarted
    | OperationHeartbeat
    | Draining
    | OperationCompleted
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a model is shown while it is quantised: a text, or a question with its answer, which
    may be about a picture (a file, or an uploaded one's name).
    """

    text: str
    answer: str = ""
    image: MediaSource | None = None
    adapter: str = ""


SampleLike = str | Sample
