"""The values of an operation: what was asked for, where it stands, what happened. Plain data."""

from enum import StrEnum

import msgspec
from msgspec.structs import replace

from ixc_runtime.errors import RuntimeFault, fault_from_reason
from ixc_runtime.jobs import JobResult, JobSpec, Logged, Metric, Progress, QuantizeWork
from ixc_service.status import TABLE


class Kind(StrEnum):
    MERGE_LORA = "merge_lora"
    QUANTIZE = "quantize"
    LOAD_MODEL = "load_model"


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    FAILED = "failed"


DONE = frozenset({State.SUCCEEDED, State.CANCELLED, State.FAILED})


class JobOrder(msgspec.Struct, frozen=True, kw_only=True, tag="job"):
    """`required_bytes` is the disk that its output takes at the most."""

    spec: JobSpec
    required_bytes: int
    load_when_done: bool = False


class LoadOrder(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    model_id: str
    make_default: bool = False


Order = JobOrder | LoadOrder


class FaultRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A fault as it crosses borders, and restarts; see ixc_runtime.errors."""

    reason: str
    message: str
    metadata: dict[str, str]

    @classmethod
    def of(cls, fault: RuntimeFault) -> "FaultRecord":
        return cls(reason=fault.reason, message=fault.message, metadata=dict(fault.metadata))

    def fault(self) -> RuntimeFault:
        fault = fault_from_reason(self.reason, self.message, self.metadata)
        assert fault.reason in TABLE, "only presentable faults are written down"
        return fault


class JobOutcome(msgspec.Struct, frozen=True, kw_only=True, tag="job"):
    """`load_operation` is the id of the one that loads what was made, if that was asked for."""

    result: JobResult
    load_operation: str | None = None


class LoadOutcome(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    model_id: str


Outcome = JobOutcome | LoadOutcome


class OperationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`attempt` counts from 1. `last_sequence` is that of the newest event, `progress` the newest
    of this attempt: what lists show, without the log.
    """

    owner: str
    operation_id: str
    kind: Kind
    state: State
    order: Order
    request_id: str
    create_time: float
    start_time: float | None = None
    end_time: float | None = None
    attempt: int = 1
    is_cancel_requested: bool = False
    outcome: Outcome | None = None
    error: FaultRecord | None = None
    last_sequence: int = 1
    progress: Progress | None = None

    @property
    def is_done(self) -> bool:
        return self.state in DONE

    @property
    def model_id(self) -> str:
        """The model it reads, or loads."""
        return self.order.spec.source if isinstance(self.order, JobOrder) else self.order.model_id

    @property
    def output_id(self) -> str | None:
        return self.order.spec.output if isinstance(self.order, JobOrder) else None

    @property
    def claim(self) -> str:
        """The model that no other operation may make or load meanwhile."""
        return self.output_id or self.model_id

    def without_samples(self) -> "OperationRecord":
        """As it is told of and kept: samples may be megabytes, and only the work needs them."""
        match self.order:
            case JobOrder(spec=JobSpec(work=QuantizeWork(samples=samples))) if samples:
                work = replace(self.order.spec.work, samples=())
                order = replace(self.order, spec=replace(self.order.spec, work=work))
                return replace(self, order=order)
            case _:
                return self


# ---- what happens to it


class Accepted(msgspec.Struct, frozen=True, kw_only=True, tag="accepted"):
    """`record` as it was then."""

    record: OperationRecord
    queue_position: int


class Restarted(msgspec.Struct, frozen=True, kw_only=True, tag="restarted"):
    attempt: int
    kept_files: int
    kept_bytes: int


class Completed(msgspec.Struct, frozen=True, kw_only=True, tag="completed"):
    outcome: Outcome
    elapsed_seconds: float


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    error: FaultRecord


Update = Accepted | Progress | Metric | Logged | Restarted | Completed | Failed
Terminal = Completed | Failed


class Event(msgspec.Struct, frozen=True):
    sequence: int
    update: Update
