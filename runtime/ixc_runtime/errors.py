"""Everything that can go wrong in the runtime, as one tree.

RuntimeFault
├── InvalidRequest            the caller's request can never work as it stands
│   ├── FieldInvalid          a field is out of its range
│   ├── PromptEmpty           nothing to answer
│   ├── TokenIdOutOfVocab     a token id is beyond the vocabulary
│   ├── MediaUndecodable      a broken picture or clip, or one beyond a limit
│   └── MediaTypeUnsupported  of a format or a codec that we do not take
├── DoesNotFit                the request is sound but larger than a limit
│   ├── ContextOverflow       longer than the model's context
│   └── KvCacheFull           at start: the memory given holds no useful context
├── NotOffered                this model or build does not have it
│   └── AdapterUnavailable    neither the checkpoint's nor a loaded adapter has that name
├── AdapterIdTaken            another adapter is loaded under that name
├── Overloaded                sound and small enough, but not now
│   ├── QueueFull
│   └── MemoryLow             no room for another model, adapter or job beside what is there
├── Lost                      the work was under way and is gone; it may be sent again
│   ├── EngineLost            the engine process ended
│   ├── ServerDraining        the process is about to stop
│   └── QueueTimeout          it waited longer than the caller allowed
├── JobFault                  long work on weights that comes to nothing
│   ├── ModelIdTaken          the models root has something of that name
│   ├── AlreadyQuantized      the source's weights are integers
│   ├── DiskSpaceLow          the output would not fit
│   ├── DiskFault             the disk refused
│   ├── QualityTooLow         beyond a threshold of the caller's
│   ├── WorkerLost            the process that did the work died, again
│   └── JobCancelled          somebody stopped it
├── EngineFault               our own bug, met while serving one request
└── CheckpointError           a model folder that cannot be served
    ├── CheckpointMissing     no such folder, or no such file in it
    │   └── AdapterMissing    no such user's adapter
    ├── CheckpointInvalid     a file breaks its format's rules, or ours
    │   └── AdapterInvalid    a user's adapter does not fit the model it is for
    └── CheckpointUnsupported another architecture, dtype or quantisation

Every fault carries a `reason` (the contract's ErrorReason without its prefix) and `metadata`
(numbers and names, never prompt text or paths of the server), so that it crosses process and wire
boundaries without its class.
"""

from collections.abc import Mapping
from typing import ClassVar


class RuntimeFault(Exception):
    """Base of all of them. `reason` is stable; the message is for developers."""

    reason: ClassVar[str] = "ENGINE_FAULT"

    def __init__(self, message: str, **metadata: object) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: Mapping[str, str] = {key: str(value) for key, value in metadata.items()}


class InvalidRequest(RuntimeFault):
    reason = "FIELD_INVALID"


class FieldInvalid(InvalidRequest):
    """`field` is the path of the offending field, as the contract spells it."""

    reason = "FIELD_INVALID"

    def __init__(self, field: str, message: str, **metadata: object) -> None:
        super().__init__(message, field=field, **metadata)

    @property
    def field(self) -> str:
        return self.metadata["field"]


class PromptEmpty(InvalidRequest):
    reason = "PROMPT_EMPTY"


class TokenIdOutOfVocab(InvalidRequest):
    reason = "TOKEN_ID_OUT_OF_VOCAB"


class MediaUndecodable(InvalidRequest):
    reason = "MEDIA_UNDECODABLE"


class MediaTypeUnsupported(InvalidRequest):
    reason = "MEDIA_TYPE_UNSUPPORTED"


class DoesNotFit(RuntimeFault):
    reason = "CONTEXT_OVERFLOW"


class ContextOverflow(DoesNotFit):
    reason = "CONTEXT_OVERFLOW"


class KvCacheFull(DoesNotFit):
    reason = "KV_CACHE_FULL"


class NotOffered(RuntimeFault):
    reason = "FEATURE_DISABLED"


class AdapterUnavailable(NotOffered):
    reason = "ADAPTER_UNAVAILABLE"


class AdapterIdTaken(RuntimeFault):
    reason = "ADAPTER_ID_TAKEN"


class Overloaded(RuntimeFault):
    reason = "QUEUE_FULL"


class QueueFull(Overloaded):
    """`retry_after_seconds` is when it may go better, where that can be told."""

    reason = "QUEUE_FULL"

    def __init__(
        self, message: str, *, retry_after_seconds: float | None = None, **metadata: object
    ) -> None:
        super().__init__(message, **metadata)
        self.retry_after_seconds = retry_after_seconds


class MemoryLow(Overloaded):
    reason = "MEMORY_LOW"


class Lost(RuntimeFault):
    reason = "ENGINE_LOST"


class EngineLost(Lost):
    reason = "ENGINE_LOST"


class ServerDraining(Lost):
    reason = "SERVER_DRAINING"


class QueueTimeout(Lost):
    reason = "QUEUE_TIMEOUT"


class JobFault(RuntimeFault):
    reason = "WORKER_LOST"


class ModelIdTaken(JobFault):
    reason = "MODEL_ID_TAKEN"


class AlreadyQuantized(JobFault):
    reason = "ALREADY_QUANTIZED"


class DiskSpaceLow(JobFault):
    reason = "DISK_SPACE_LOW"


class DiskFault(JobFault):
    reason = "STORE_UNAVAILABLE"


class QualityTooLow(JobFault):
    reason = "QUALITY_TOO_LOW"


class WorkerLost(JobFault):
    reason = "WORKER_LOST"


class JobCancelled(JobFault):
    reason = "OPERATION_CANCELLED"


class EngineFault(RuntimeFault):
    reason = "ENGINE_FAULT"


class CheckpointError(RuntimeFault):
    reason = "WEIGHTS_CORRUPT"


class CheckpointMissing(CheckpointError):
    reason = "MODEL_NOT_FOUND"


class AdapterMissing(CheckpointMissing):
    reason = "ADAPTER_NOT_FOUND"


class CheckpointInvalid(CheckpointError):
    reason = "WEIGHTS_CORRUPT"


class AdapterInvalid(CheckpointInvalid):
    reason = "ADAPTER_INVALID"


class CheckpointUnsupported(CheckpointError):
    reason = "SCHEME_UNSUPPORTED"


def _tree(root: type[RuntimeFault]) -> list[type[RuntimeFault]]:
    return [root, *(fault for child in root.__subclasses__() for fault in _tree(child))]


def fault_from_reason(
    reason: str, message: str, metadata: Mapping[str, str] | None = None
) -> RuntimeFault:
    """The fault that another process met, rebuilt from what crossed the boundary.

    The most specific class with that reason; EngineFault for a reason that is not ours.
    """
    fault_class = next(
        (fault for fault in reversed(_BY_DEPTH) if fault.reason == reason), EngineFault
    )
    fault = fault_class.__new__(fault_class)
    RuntimeFault.__init__(fault, message, **(metadata or {}))
    return fault


_BY_DEPTH = sorted(_tree(RuntimeFault), key=lambda fault: len(fault.__mro__))
