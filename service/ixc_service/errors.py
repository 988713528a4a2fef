"""What can go wrong in the service itself, beside the runtime's own faults.

RuntimeFault (ixc_runtime.errors)
└── ServiceFault
    ├── RequestInvalid        one or more fields break a rule; carries every violation
    ├── NotFound              SessionNotFound, SessionExpired, TurnNotFound, GenerationNotFound,
    │                         ModelNotFound, MediaNotFound, UploadNotFound, AdapterNotFound,
    │                         OperationNotFound
    ├── AlreadyExists         SessionIdTaken, RequestIdReused, UploadIdReused
    ├── SessionWeightsChanged the session was begun with other weights
    ├── ModelNotLoaded        the model is there, but not served
    ├── ModelInUse            the default model was to go, or a served one to be replaced
    ├── MediaNotReady         an uploaded object is still being looked at
    ├── MediaInUse            a session refers to the object that was to go
    ├── Conflict              SessionBusy, TurnConflict, EtagMismatch, UploadConflict,
    │                         OperationConflict
    ├── UploadOffsetMismatch  a chunk does not begin where its upload stands
    ├── UploadDigestMismatch  what arrived is not what was announced
    ├── SlowConsumer          a reader took nothing for too long
    ├── EventLogCompacted     the cursor is older than what the log still holds
    ├── SessionQuota          as many sessions as may be exist
    ├── MediaQuota            the caller has as many media as may be, or as large ones
    ├── OperationRunning      an operation that is not done was to be deleted
    └── StoreUnavailable      the disk or the database refuses

`status.py` alone knows their status codes.
"""

from dataclasses import dataclass
from typing import ClassVar

from ixc_runtime.errors import RuntimeFault


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """`field` is the path as the contract spells it, `rule` a stable UPPER_CASE word."""

    field: str
    rule: str
    description: str


class ServiceFault(RuntimeFault):
    pass


class RequestInvalid(ServiceFault):
    reason = "FIELD_INVALID"

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        first = violations[0]
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        super().__init__(f"{first.field}: {first.description}{more}", field=first.field)
        self.violations = violations


class NotFound(ServiceFault):
    """`resource` is the name that was asked for, of type `kind`."""

    kind: ClassVar[str]

    def __init__(self, resource: str, **metadata: object) -> None:
        super().__init__(self.message_text(resource), **{self.kind: resource}, **metadata)
        self.resource = resource

    def message_text(self, resource: str) -> str:
        return f"no such {self.kind}: {resource}"


class SessionNotFound(NotFound):
    reason = "SESSION_NOT_FOUND"
    kind = "session"


class SessionExpired(NotFound):
    reason = "SESSION_EXPIRED"
    kind = "session"

    def message_text(self, resource: str) -> str:
        return f"the session has expired: {resource}"


class TurnNotFound(NotFound):
    reason = "TURN_NOT_FOUND"
    kind = "turn"


class GenerationNotFound(NotFound):
    reason = "GENERATION_NOT_FOUND"
    kind = "generation"


class ModelNotFound(NotFound):
    reason = "MODEL_NOT_FOUND"
    kind = "model"


class MediaNotFound(NotFound):
    reason = "MEDIA_NOT_FOUND"
    kind = "media"


class UploadNotFound(NotFound):
    reason = "UPLOAD_NOT_FOUND"
    kind = "upload"


class AdapterNotFound(NotFound):
    reason = "ADAPTER_NOT_FOUND"
    kind = "adapter"


class OperationNotFound(NotFound):
    reason = "OPERATION_NOT_FOUND"
    kind = "operation"


class AlreadyExists(ServiceFault):
    reason = "SESSION_ID_TAKEN"


class SessionIdTaken(AlreadyExists):
    reason = "SESSION_ID_TAKEN"


class RequestIdReused(AlreadyExists):
    reason = "REQUEST_ID_REUSED"


class UploadIdReused(AlreadyExists):
    reason = "UPLOAD_ID_REUSED"


class SessionWeightsChanged(ServiceFault):
    reason = "SESSION_WEIGHTS_CHANGED"


class ModelNotLoaded(ServiceFault):
    reason = "MODEL_NOT_LOADED"


class ModelInUse(ServiceFault):
    reason = "MODEL_IN_USE"


class MediaNotReady(ServiceFault):
    reason = "MEDIA_NOT_READY"


class MediaInUse(ServiceFault):
    reason = "MEDIA_IN_USE"


class Conflict(ServiceFault):
    reason = "TURN_CONFLICT"


class SessionBusy(Conflict):
    reason = "SESSION_BUSY"


class TurnConflict(Conflict):
    reason = "TURN_CONFLICT"


class EtagMismatch(Conflict):
    reason = "ETAG_MISMATCH"


class UploadConflict(Conflict):
    reason = "UPLOAD_CONFLICT"


class OperationConflict(Conflict):
    reason = "OPERATION_CONFLICT"


class UploadOffsetMismatch(ServiceFault):
    reason = "UPLOAD_OFFSET_MISMATCH"


class UploadDigestMismatch(ServiceFault):
    reason = "UPLOAD_DIGEST_MISMATCH"


class SlowConsumer(ServiceFault):
    reason = "SLOW_CONSUMER"


class EventLogCompacted(ServiceFault):
    reason = "EVENT_LOG_COMPACTED"


class SessionQuota(ServiceFault):
    reason = "SESSION_QUOTA"


class MediaQuota(ServiceFault):
    reason = "MEDIA_QUOTA"


class OperationRunning(ServiceFault):
    reason = "OPERATION_RUNNING"


class StoreUnavailable(ServiceFault):
    reason = "STORE_UNAVAILABLE"
