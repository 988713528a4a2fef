"""The one table from reasons to gRPC: code, and whether and when to try again.

`status_of` makes the google.rpc.Status that ends an RPC and that a `failed` event repeats. Messages
and metadata come from faults of ours, which carry numbers and names; the text of any other
exception never leaves this process.
"""

import logging
import re
from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from ixc_runtime.errors import EngineFault, QueueFull, RuntimeFault
from ixc_service.errors import NotFound, RequestInvalid
from ixc_service.identifiers import new_id
from ixc_service.limits import MAX_ERROR_DETAILS_BYTES
from ixc_service.log_events import emit, incident
from ixc_service.moments import Clock

DOMAIN = "ixc.v1"
DETAILS_KEY = "grpc-status-details-bin"
PUSHBACK_KEY = "grpc-retry-pushback-ms"
_MAX_MESSAGE_CHARS = 400
_MAX_VALUE_CHARS = 200
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """`retry_after_seconds` None: trying again does not help, or the caller must decide when."""

    code: grpc.StatusCode
    retry_after_seconds: float | None = None


_CODE = grpc.StatusCode
TABLE: dict[str, Row] = {
    "FIELD_INVALID": Row(_CODE.INVALID_ARGUMENT),
    "PROMPT_EMPTY": Row(_CODE.INVALID_ARGUMENT),
    "TOKEN_ID_OUT_OF_VOCAB": Row(_CODE.INVALID_ARGUMENT),
    "MEDIA_UNDECODABLE": Row(_CODE.INVALID_ARGUMENT),
    "MEDIA_TYPE_UNSUPPORTED": Row(_CODE.INVALID_ARGUMENT),
    "CONTEXT_OVERFLOW": Row(_CODE.OUT_OF_RANGE),
    "EVENT_LOG_COMPACTED": Row(_CODE.OUT_OF_RANGE),
    "UPLOAD_OFFSET_MISMATCH": Row(_CODE.OUT_OF_RANGE),
    "SESSION_NOT_FOUND": Row(_CODE.NOT_FOUND),
    "SESSION_EXPIRED": Row(_CODE.NOT_FOUND),
    "TURN_NOT_FOUND": Row(_CODE.NOT_FOUND),
    "GENERATION_NOT_FOUND": Row(_CODE.NOT_FOUND),
    "MODEL_NOT_FOUND": Row(_CODE.NOT_FOUND),
    "MEDIA_NOT_FOUND": Row(_CODE.NOT_FOUND),
    "UPLOAD_NOT_FOUND": Row(_CODE.NOT_FOUND),
    "OPERATION_NOT_FOUND": Row(_CODE.NOT_FOUND),
    "ADAPTER_NOT_FOUND": Row(_CODE.NOT_FOUND),
    "SESSION_ID_TAKEN": Row(_CODE.ALREADY_EXISTS),
    "REQUEST_ID_REUSED": Row(_CODE.ALREADY_EXISTS),
    "UPLOAD_ID_REUSED": Row(_CODE.ALREADY_EXISTS),
    "MODEL_ID_TAKEN": Row(_CODE.ALREADY_EXISTS),
    "ADAPTER_ID_TAKEN": Row(_CODE.ALREADY_EXISTS),
    "ADAPTER_UNAVAILABLE": Row(_CODE.FAILED_PRECONDITION),
    "SESSION_WEIGHTS_CHANGED": Row(_CODE.FAILED_PRECONDITION),
    "MEDIA_NOT_READY": Row(_CODE.FAILED_PRECONDITION),
    "MEDIA_IN_USE": Row(_CODE.FAILED_PRECONDITION),
    "MODEL_NOT_LOADED": Row(_CODE.FAILED_PRECONDITION),
    "MODEL_IN_USE": Row(_CODE.FAILED_PRECONDITION),
    "ADAPTER_INVALID": Row(_CODE.FAILED_PRECONDITION),
    "ALREADY_QUANTIZED": Row(_CODE.FAILED_PRECONDITION),
    "DISK_SPACE_LOW": Row(_CODE.FAILED_PRECONDITION),
    "QUALITY_TOO_LOW": Row(_CODE.FAILED_PRECONDITION),
    "OPERATION_RUNNING": Row(_CODE.FAILED_PRECONDITION),
    "SESSION_BUSY": Row(_CODE.ABORTED),
    "TURN_CONFLICT": Row(_CODE.ABORTED),
    "ETAG_MISMATCH": Row(_CODE.ABORTED),
    "UPLOAD_CONFLICT": Row(_CODE.ABORTED),
    "UPLOAD_DIGEST_MISMATCH": Row(_CODE.ABORTED),
    "SLOW_CONSUMER": Row(_CODE.ABORTED),
    "OPERATION_CONFLICT": Row(_CODE.ABORTED),
    "QUEUE_FULL": Row(_CODE.RESOURCE_EXHAUSTED, retry_after_seconds=1.0),
    "KV_CACHE_FULL": Row(_CODE.RESOURCE_EXHAUSTED),
    "SESSION_QUOTA": Row(_CODE.RESOURCE_EXHAUSTED),
    "MEDIA_QUOTA": Row(_CODE.RESOURCE_EXHAUSTED),
    "MEMORY_LOW": Row(_CODE.RESOURCE_EXHAUSTED),
    "SERVER_DRAINING": Row(_CODE.UNAVAILABLE, retry_after_seconds=0.0),
    "ENGINE_LOST": Row(_CODE.UNAVAILABLE, retry_after_seconds=1.0),
    "STORE_UNAVAILABLE": Row(_CODE.UNAVAILABLE, retry_after_seconds=1.0),
    "WORKER_LOST": Row(_CODE.UNAVAILABLE),
    "OPERATION_CANCELLED": Row(_CODE.CANCELLED),
    "QUEUE_TIMEOUT": Row(_CODE.DEADLINE_EXCEEDED),
    "FEATURE_DISABLED": Row(_CODE.UNIMPLEMENTED),
    "SCHEME_UNSUPPORTED": Row(_CODE.UNIMPLEMENTED),
    "WEIGHTS_CORRUPT": Row(_CODE.DATA_LOSS),
    "ENGINE_FAULT": Row(_CODE.INTERNAL),
}
_NAMES_INSTANCE = {"SERVER_DRAINING", "ENGINE_LOST"}
_NAMES_INCIDENT = {"STORE_UNAVAILABLE", "ENGINE_FAULT"}


class FaultDesk:
    """Turns whatever was raised into a fault that may be shown, and logs what must be looked up."""

    def __init__(self, instance: str, clock: Clock) -> None:
        self._instance = instance
        self._clock = clock

    def presentable(self, error: BaseException, *, during: str) -> RuntimeFault:
        if isinstance(error, RuntimeFault) and error.reason in TABLE:
            fault = error
        else:
            fault = EngineFault("a fault of ours")
        extra: dict[str, str] = {}
        if fault.reason in _NAMES_INSTANCE:
            extra["instance"] = self._instance
        if fault.reason in _NAMES_INCIDENT and "incident" not in fault.metadata:
            extra["incident"] = new_id(self._clock.now())
            incident(_log, "incident", error, during=during, reason=fault.reason, **extra)
        elif fault.reason in _NAMES_INSTANCE:
            emit(_log, "refused", level=logging.WARNING, during=during, reason=fault.reason)
        fault.metadata = {**fault.metadata, **extra}
        return fault


def status_of(fault: RuntimeFault) -> status_pb2.Status:
    """The status of a presentable fault; equal for equal faults, and at most 4 KiB."""
    row = TABLE[fault.reason]
    message = _message(fault)
    status = status_pb2.Status(
        code=row.code.value[0],
        message=message[:_MAX_MESSAGE_CHARS],
        details=[_packed(detail) for detail in _details(fault)],
    )
    while status.ByteSize() > MAX_ERROR_DETAILS_BYTES:
        # Only a long list of violations can be too large: halve it, the first ones stay.
        bad = error_details_pb2.BadRequest()
        assert status.details[1].Unpack(bad), "BadRequest follows ErrorInfo"
        del bad.field_violations[len(bad.field_violations) // 2 :]
        status.details[1].Pack(bad)
    return status


def _message(fault: RuntimeFault) -> str:
    if fault.reason == "ENGINE_FAULT":
        return "a fault of ours"
    field = fault.metadata.get("field", "") if fault.reason == "FIELD_INVALID" else ""
    # RequestInvalid names its first field itself, and so do some of the runtime's messages.
    is_named = isinstance(fault, RequestInvalid) or fault.message.startswith(_last_word(field))
    return fault.message if is_named else f"{field}: {fault.message}"


def trailers(fault: RuntimeFault, status: status_pb2.Status) -> tuple[tuple[str, str | bytes], ...]:
    result: list[tuple[str, str | bytes]] = [(DETAILS_KEY, status.SerializeToString())]
    wait = _retry_after_seconds(fault)
    if wait is not None:
        result.append((PUSHBACK_KEY, str(int(wait * 1000))))
    return tuple(result)


def _retry_after_seconds(fault: RuntimeFault) -> float | None:
    """The table's, unless the fault knows better."""
    usual = TABLE[fault.reason].retry_after_seconds
    told = fault.retry_after_seconds if isinstance(fault, QueueFull) else None
    return usual if told is None or usual is None else max(usual, told)


def _details(fault: RuntimeFault) -> list[Message]:
    metadata = {_camel(key): value[:_MAX_VALUE_CHARS] for key, value in fault.metadata.items()}
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=fault.reason, domain=DOMAIN, metadata=metadata)
    ]
    if isinstance(fault, RequestInvalid):
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=violation.field,
                        description=violation.description[:_MAX_VALUE_CHARS],
                        reason=violation.rule,
                    )
                    for violation in fault.violations
                ]
            )
        )
    elif fault.reason == "FIELD_INVALID":
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=fault.metadata.get("field", ""),
                        description=fault.message[:_MAX_VALUE_CHARS],
                        reason="FIELD_INVALID",
                    )
                ]
            )
        )
    if isinstance(fault, NotFound):
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=f"{DOMAIN}.{fault.kind.capitalize()}", resource_name=fault.resource
            )
        )
    if (wait := _retry_after_seconds(fault)) is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(wait * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return details


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _last_word(field: str) -> str:
    return field.rpartition(".")[2]


def _camel(key: str) -> str:
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), key)
