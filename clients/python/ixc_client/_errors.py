"""Everything that can go wrong in the client, as one tree.

IxcError                        anything below; catch this one to catch all
├── UsageError                  nothing was sent: what was given cannot be used (a ValueError too)
│   ├── ClientClosed            the client or the stream was closed before
│   └── MediaUnreadable         no such file, an empty one, or one that changed while being read
├── LaunchFailed                the private server of `launch` did not come up
├── ConnectionFailed            the network, or no server behind it: nobody answered in full
│   ├── ServerUnreachable       no connection could be made
│   ├── ConnectionLost          it broke while the call was under way
│   ├── DeadlineExceeded        the call took longer than `Timeouts.unary`
│   ├── StreamIdle              a stream was silent for longer than `Timeouts.idle`
│   ├── TruncatedStream         a stream ended without its completed or failed event
│   └── AnswerLost              the server was restarted, and answers otherwise than was read
└── ServerError                 the server answered, with a status and a reason
    ├── InvalidRequest          the request can never work as it stands; see `violations`
    │   ├── PromptEmpty
    │   └── MediaUndecodable    bytes that are no picture or clip, or of a format the server lacks
    ├── OutOfRange              sound, but beyond a limit that the metadata names
    │   ├── ContextOverflow
    │   └── EventLogCompacted   the events before `metadata["firstAvailableSequence"]` are gone
    ├── NotFound
    │   ├── SessionNotFound     it never was, was deleted, or expired
    │   ├── TurnNotFound
    │   ├── GenerationNotFound
    │   ├── ModelNotFound
    │   ├── MediaNotFound       it never was, was deleted, or expired
    │   └── OperationNotFound
    ├── AlreadyExists           an id that is taken, or a request id used for another request
    ├── FailedPrecondition
    │   ├── AdapterUnavailable  the checkpoint carries no such adapter
    │   ├── SessionWeightsChanged  the session was made with other weights
    │   ├── MediaNotReady       the server still looks at it; a moment later it may be
    │   ├── MediaInUse          a turn refers to it: `metadata["session"]`
    │   └── QualityTooLow       nothing was published: `metadata` has the figure and its limit
    ├── Conflict                somebody else was first; read again, then decide
    │   ├── SessionBusy         a turn is under way: `metadata["generation"]`
    │   ├── TurnConflict        `expected_turn` was not the next one
    │   ├── EtagMismatch
    │   ├── UploadConflict      another stream goes on with the upload
    │   ├── UploadDigestMismatch  what arrived twice is not what was announced
    │   ├── OperationConflict   another one makes or loads the model: `metadata["operation"]`
    │   └── SlowConsumer        this reader was dropped; the generation goes on
    ├── Overloaded              not now; `retry_after_seconds` says when, where known
    │   ├── QueueFull
    │   ├── MediaQuotaReached   as many or as large media as a caller may have
    │   └── MessageTooLarge     more than 4 MiB in one message
    ├── Unavailable             the server is there but cannot serve: draining, loading
    │   └── EngineLost          its engine process ended; the turn was not committed
    ├── QueueTimeout            it waited in the queue for longer than it was allowed
    ├── Cancelled               somebody cancelled the call
    ├── FeatureDisabled         this server or model does not have it
    ├── NotAllowed              unauthenticated, or permission denied
    └── ServerFault             the server's own bug; `metadata` may hold an incident id

Knows nothing of gRPC: `_status` turns what grpc raises into these, so no grpc type ever escapes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """One field the server refused: its path in the contract, and what it may be."""

    field: str
    description: str
    reason: str = ""


class IxcError(Exception):
    """Base of all of them.

    Attributes:
        message: for developers; may change between versions.
        reason: the contract's ErrorReason without its prefix ("CONTEXT_OVERFLOW"), "" where the
            error did not come from the server.
        code: the name of the gRPC status code ("OUT_OF_RANGE"), "" where there was none.
        metadata: the numbers and names that belong to the reason.
        retryable: whether the same call may succeed when made again, unchanged.
        retry_after_seconds: how long the server asked to wait, None if it did not.
        attempts: how often the client tried before giving up.
        request_id: of the request that failed, None where there was none.
        generation: name of the generation concerned, None where none is known.
        violations: the fields refused, all of them at once.
    """

    retryable_by_nature: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        code: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
        violations: tuple[FieldViolation, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.code = code
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.retry_after_seconds = retry_after_seconds
        self.violations = violations
        self.attempts = 1
        self.request_id: str | None = None
        self.generation: str | None = None

    @property
    def retryable(self) -> bool:
        return self.retryable_by_nature or self.retry_after_seconds is not None

    def __str__(self) -> str:
        text = self.message
        if self.violations:
            told = [f"{each.field}: {each.description}" for each in self.violations]
            if self.violations[0].description not in text:
                told.insert(0, text)
            elif len(told) == 1:
                told = [text]  # which may be the longer one
            text = "; ".join(told)
        marks = [mark for mark in (self.reason or self.code,) if mark]
        if self.attempts > 1:
            marks.append(f"{self.attempts} attempts")
        return f"{text} ({', '.join(marks)})" if marks else text


class UsageError(IxcError, ValueError):
    pass


class ClientClosed(UsageError):
    pass


class MediaUnreadable(UsageError):
    pass


class LaunchFailed(IxcError):
    """`log` is the end of what the server printed before it gave up."""

    def __init__(self, message: str, *, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class ConnectionFailed(IxcError):
    retryable_by_nature = True


class ServerUnreachable(ConnectionFailed):
    pass


class ConnectionLost(ConnectionFailed):
    pass


class DeadlineExceeded(ConnectionFailed, TimeoutError):
    pass


class StreamIdle(ConnectionFailed, TimeoutError):
    pass


class TruncatedStream(ConnectionFailed):
    pass


class AnswerLost(ConnectionFailed):
    """Raised to whoever reads deltas; `read` and `say` get the new answer instead."""


class ServerError(IxcError):
    pass


class InvalidRequest(ServerError):
    pass


class PromptEmpty(InvalidRequest):
    pass


class MediaUndecodable(InvalidRequest):
    pass


class OutOfRange(ServerError):
    pass


class ContextOverflow(OutOfRange):
    pass


class EventLogCompacted(OutOfRange):
    pass


class NotFound(ServerError):
    pass


class SessionNotFound(NotFound):
    pass


class TurnNotFound(NotFound):
    pass


class GenerationNotFound(NotFound):
    pass


class ModelNotFound(NotFound):
    pass


class MediaNotFound(NotFound):
    pass


class OperationNotFound(NotFound):
    pass


class AlreadyExists(ServerError):
    pass


class FailedPrecondition(ServerError):
    pass


class AdapterUnavailable(FailedPrecondition):
    pass


class SessionWeightsChanged(FailedPrecondition):
    pass


class MediaNotReady(FailedPrecondition):
    retryable_by_nature = True


class MediaInUse(FailedPrecondition):
    pass


class QualityTooLow(FailedPrecondition):
    pass


class Conflict(ServerError):
    pass


class SessionBusy(Conflict):
    pass


class TurnConflict(Conflict):
    pass


class EtagMismatch(Conflict):
    pass


class UploadConflict(Conflict):
    pass


class UploadDigestMismatch(Conflict):
    pass


class OperationConflict(Conflict):
    pass


class SlowConsumer(Conflict):
    pass


class Overloaded(ServerError):
    pass


class QueueFull(Overloaded):
    retryable_by_nature = True


class MediaQuotaReached(Overloaded):
    pass


class MessageTooLarge(Overloaded):
    pass


class Unavailable(ServerError):
    retryable_by_nature = True


class EngineLost(Unavailable):
    pass


class QueueTimeout(ServerError):
    retryable_by_nature = True


class Cancelled(ServerError):
    pass


class FeatureDisabled(ServerError):
    pass


class NotAllowed(ServerError):
    pass


class ServerFault(ServerError):
    pass
