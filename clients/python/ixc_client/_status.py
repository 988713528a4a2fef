"""From a gRPC status to an error of ours: the only place that reads codes, details and trailers.

A server of this contract puts a google.rpc.Status with an ErrorInfo in its trailers, and the same
Status into a stream's `failed` event; both come through here. What carries no ErrorInfo was made
by the gRPC library or by something between: the network's errors.
"""

from collections.abc import Iterable
from typing import Any, Protocol, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from ixc_client import _errors as errors

_DETAILS_KEY = "grpc-status-details-bin"
_CODE_NAMES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}

_BY_REASON: dict[str, type[errors.IxcError]] = {
    "PROMPT_EMPTY": errors.PromptEmpty,
    "MEDIA_UNDECODABLE": errors.MediaUndecodable,
    "MEDIA_TYPE_UNSUPPORTED": errors.MediaUndecodable,
    "CONTEXT_OVERFLOW": errors.ContextOverflow,
    "EVENT_LOG_COMPACTED": errors.EventLogCompacted,
    "SESSION_NOT_FOUND": errors.SessionNotFound,
    "SESSION_EXPIRED": errors.SessionNotFound,
    "TURN_NOT_FOUND": errors.TurnNotFound,
    "GENERATION_NOT_FOUND": errors.GenerationNotFound,
    "MODEL_NOT_FOUND": errors.ModelNotFound,
    "MEDIA_NOT_FOUND": errors.MediaNotFound,
    "OPERATION_NOT_FOUND": errors.OperationNotFound,
    "OPERATION_CONFLICT": errors.OperationConflict,
    "QUALITY_TOO_LOW": errors.QualityTooLow,
    "ADAPTER_UNAVAILABLE": errors.AdapterUnavailable,
    "SESSION_WEIGHTS_CHANGED": errors.SessionWeightsChanged,
    "MEDIA_NOT_READY": errors.MediaNotReady,
    "MEDIA_IN_USE": errors.MediaInUse,
    "SESSION_BUSY": errors.SessionBusy,
    "TURN_CONFLICT": errors.TurnConflict,
    "ETAG_MISMATCH": errors.EtagMismatch,
    "UPLOAD_CONFLICT": errors.UploadConflict,
    "UPLOAD_DIGEST_MISMATCH": errors.UploadDigestMismatch,
    "SLOW_CONSUMER": errors.SlowConsumer,
    "QUEUE_FULL": errors.QueueFull,
    "MEDIA_QUOTA": errors.MediaQuotaReached,
    "ENGINE_LOST": errors.EngineLost,
    "QUEUE_TIMEOUT": errors.QueueTimeout,
}

_BY_CODE: dict[str, type[errors.IxcError]] = {
    "CANCELLED": errors.Cancelled,
    "INVALID_ARGUMENT": errors.InvalidRequest,
    "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
    "NOT_FOUND": errors.NotFound,
    "ALREADY_EXISTS": errors.AlreadyExists,
    "PERMISSION_DENIED": errors.NotAllowed,
    "UNAUTHENTICATED": errors.NotAllowed,
    "RESOURCE_EXHAUSTED": errors.Overloaded,
    "FAILED_PRECONDITION": errors.FailedPrecondition,
    "ABORTED": errors.Conflict,
    "OUT_OF_RANGE": errors.OutOfRange,
    "UNIMPLEMENTED": errors.FeatureDisabled,
    "INTERNAL": errors.ServerFault,
    "UNAVAILABLE": errors.Unavailable,
    "DATA_LOSS": errors.ServerFault,
}


class FailedCall(Protocol):
    """What the errors of both of grpc's Python surfaces have in common."""

    def code(self) -> grpc.StatusCode | None: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def error_from_call(failed: object, *, started: bool = False) -> errors.IxcError:
    """The error meant by a failed call; `started` once it had brought something."""
    assert isinstance(failed, grpc.RpcError)
    call = cast(FailedCall, failed)  # grpc's base class itself declares none of its methods
    code = call.code() or grpc.StatusCode.UNKNOWN
    status = status_pb2.Status(code=code.value[0], message=call.details() or "")
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            status = _parsed(value) or status
    return error_from_status(status, started=started)


def error_from_status(status: status_pb2.Status, *, started: bool = True) -> errors.IxcError:
    code = _CODE_NAMES.get(status.code, "UNKNOWN")
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry_info = error_details_pb2.RetryInfo()
    kinds: tuple[Any, ...] = (info, bad_request, retry_info)
    for detail in status.details:
        for kind in kinds:
            detail.Unpack(kind)  # does nothing where the type is another
    retry_after = None
    if retry_info.HasField("retry_delay"):
        retry_after = retry_info.retry_delay.seconds + retry_info.retry_delay.nanos / 1e9
    if info.reason:
        error_type = _BY_REASON.get(info.reason) or _BY_CODE.get(code, errors.ServerError)
    else:
        error_type = _without_reason(code, status.message, started=started)
    return error_type(
        status.message or f"the server answered {code}",
        reason=info.reason,
        code=code,
        metadata=dict(info.metadata),
        retry_after_seconds=retry_after,
        violations=tuple(
            errors.FieldViolation(
                field=violation.field, description=violation.description, reason=violation.reason
            )
            for violation in bad_request.field_violations
        ),
    )


def describe_failure(error: errors.IxcError, request: object, attempt: int) -> errors.IxcError:
    """Adds what the caller's side knows: for which request, at which try."""
    error.request_id = getattr(request, "request_id", "") or None
    error.attempts = attempt
    return error


def may_retry(error: errors.IxcError) -> bool:
    """Whether the client tries again by itself. A passed time limit is the caller's own bound."""
    return error.retryable and not isinstance(error, errors.DeadlineExceeded | errors.StreamIdle)


def _without_reason(code: str, message: str, *, started: bool) -> type[errors.IxcError]:
    """Errors made by the gRPC library, told apart by code and, where it must be, by their words."""
    if code == "UNAVAILABLE":
        return errors.ConnectionLost if started else errors.ServerUnreachable
    if code in ("INTERNAL", "UNKNOWN") and _means_lost(message):
        return errors.ConnectionLost
    if code == "RESOURCE_EXHAUSTED" and "larger than max" in message:
        return errors.MessageTooLarge
    return _BY_CODE.get(code, errors.ServerError)


def is_of_a_lost_call(failed: FailedCall) -> bool:
    """Whether the gRPC library made this up because the call was gone."""
    return failed.code() is grpc.StatusCode.INTERNAL and _means_lost(failed.details() or "")


def _means_lost(message: str) -> bool:
    # A server that is killed under a stream shows as INTERNAL with a reset, not as UNAVAILABLE, as
    # does a proxy that gives up waiting; sending on such a call, as an error from "Core".
    return any(words in message for words in ("RST_STREAM", "Stream removed", "error from Core"))


def _parsed(value: object) -> status_pb2.Status | None:
    """The Status in a trailer; None for bytes that are none, which a proxy may have cut."""
    try:
        return status_pb2.Status.FromString(value if isinstance(value, bytes) else b"")
    except DecodeError:
        return None
