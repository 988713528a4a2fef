"""From operations' records and events to the contract's."""

from collections.abc import Awaitable, Callable, Iterable

from google.rpc import status_pb2

from ixc.v1 import model_pb2, operation_pb2
from ixc_runtime.jobs import (
    Logged,
    MergeResult,
    Metric,
    Progress,
    QuantizeResult,
    Severity,
)
from ixc_runtime.weights import Agreement, Drift, QuantizeMethod
from ixc_service.identifiers import model_name, operation_name
from ixc_service.operations.records import (
    Accepted,
    Completed,
    Event,
    Failed,
    FaultRecord,
    JobOrder,
    JobOutcome,
    Kind,
    LoadOutcome,
    OperationRecord,
    Outcome,
    Restarted,
    State,
)
from ixc_service.status import status_of
from ixc_service.translate.events import duration
from ixc_service.translate.models import DTYPES
from ixc_service.translate.resources import timestamp

# A model as GetModel describes it now; None if it is gone.
Describe = Callable[[str], Awaitable[model_pb2.Model | None]]

_KINDS = {
    Kind.MERGE_LORA: operation_pb2.OPERATION_KIND_MERGE_LORA,
    Kind.QUANTIZE: operation_pb2.OPERATION_KIND_QUANTIZE,
    Kind.LOAD_MODEL: operation_pb2.OPERATION_KIND_LOAD_MODEL,
}
_STATES = {
    State.QUEUED: operation_pb2.OPERATION_STATE_QUEUED,
    State.RUNNING: operation_pb2.OPERATION_STATE_RUNNING,
    State.SUCCEEDED: operation_pb2.OPERATION_STATE_SUCCEEDED,
    State.CANCELLED: operation_pb2.OPERATION_STATE_CANCELLED,
    State.FAILED: operation_pb2.OPERATION_STATE_FAILED,
}
_SEVERITIES = {
    Severity.INFO: operation_pb2.LOG_SEVERITY_INFO,
    Severity.WARNING: operation_pb2.LOG_SEVERITY_WARNING,
}
_METHODS = {
    QuantizeMethod.AWQ: operation_pb2.ROUNDING_METHOD_AWQ,
    QuantizeMethod.RTN: operation_pb2.ROUNDING_METHOD_NEAREST,
}
_KINDS_BY_NUMBER = {number: kind for kind, number in _KINDS.items()}
_STATES_BY_NUMBER = {number: state for state, number in _STATES.items()}


def kinds(asked: Iterable[operation_pb2.OperationKind.ValueType]) -> frozenset[Kind]:
    return frozenset(_KINDS_BY_NUMBER[number] for number in asked)


def states(asked: Iterable[operation_pb2.OperationState.ValueType]) -> frozenset[State]:
    return frozenset(_STATES_BY_NUMBER[number] for number in asked)


async def operation_message(
    record: OperationRecord,
    *,
    describe: Describe,
    retention_seconds: float,
) -> operation_pb2.Operation:
    message = operation_pb2.Operation(
        name=operation_name(record.operation_id),
        kind=_KINDS[record.kind],
        state=_STATES[record.state],
        done=record.is_done,
        progress=progress_message(record.progress) if record.progress else None,
        cancel_requested=record.is_cancel_requested,
        request_id=record.request_id,
        model=model_name(record.model_id),
        output_model=model_name(record.output_id) if record.output_id else "",
        last_sequence=record.last_sequence,
        attempt=record.attempt,
        create_time=timestamp(record.create_time),
    )
    if record.start_time is not None:
        message.start_time.CopyFrom(timestamp(record.start_time))
    if record.end_time is not None:
        message.end_time.CopyFrom(timestamp(record.end_time))
        message.expire_time.CopyFrom(timestamp(record.end_time + retention_seconds))
    if record.error is not None:
        message.error.CopyFrom(_status(record.error))
    if record.outcome is not None:
        elapsed = (record.end_time or record.create_time) - record.create_time
        result = await _result(record.outcome, elapsed, describe)
        _set_result(message, result)
    return message


async def event_message(
    event: Event, *, describe: Describe, retention_seconds: float, is_deduplicated: bool
) -> operation_pb2.OperationEvent:
    message = operation_pb2.OperationEvent(sequence=event.sequence)
    match event.update:
        case Accepted(record=record, queue_position=position):
            operation = await operation_message(
                record,
                describe=describe,
                retention_seconds=retention_seconds,
            )
            message.accepted.operation.CopyFrom(operation)
            message.accepted.queue_position = position
            message.accepted.deduplicated = is_deduplicated
            if isinstance(record.order, JobOrder):
                message.accepted.required_bytes = record.order.required_bytes
        case Progress() as progress:
            message.progress.CopyFrom(progress_message(progress))
        case Metric(layer=layer, name=name, value=value):
            message.metric.layer, message.metric.metric = layer, name
            message.metric.value = value
        case Logged(severity=severity, text=text):
            message.log.severity, message.log.text = _SEVERITIES[severity], text
        case Restarted() as restarted:
            message.restarted.attempt = restarted.attempt
            message.restarted.resumed = restarted.kept_files > 0
            message.restarted.kept_files = restarted.kept_files
            message.restarted.kept_bytes = restarted.kept_bytes
        case Completed(outcome=outcome, elapsed_seconds=elapsed):
            message.completed.SetInParent()
            _set_result(message.completed, await _result(outcome, elapsed, describe))
        case Failed(error=error):
            message.failed.status.CopyFrom(_status(error))
    return message


def validated(
    required_bytes: int, record: operation_pb2.Operation
) -> list[operation_pb2.OperationEvent]:
    """What a request that was only to be validated gets."""
    accepted = operation_pb2.OperationAccepted(operation=record, required_bytes=required_bytes)
    completed = operation_pb2.OperationCompleted()
    return [
        operation_pb2.OperationEvent(sequence=1, accepted=accepted),
        operation_pb2.OperationEvent(sequence=2, completed=completed),
    ]


def heartbeat(sequence: int, state: State, queue_position: int) -> operation_pb2.OperationEvent:
    return operation_pb2.OperationEvent(
        sequence=sequence,
        heartbeat=operation_pb2.OperationHeartbeat(
            state=_STATES[state], queue_position=queue_position
        ),
    )


def draining(sequence: int, seconds: float) -> operation_pb2.OperationEvent:
    return operation_pb2.OperationEvent(
        sequence=sequence,
        draining=operation_pb2.OperationDraining(time_left=duration(seconds)),
    )


def progress_message(progress: Progress) -> operation_pb2.OperationProgress:
    message = operation_pb2.OperationProgress(
        stage=progress.stage,
        stage_index=progress.stage_index + 1,
        stage_count=progress.stage_count,
        fraction=progress.fraction,
        items_done=progress.done,
        items_total=progress.total,
        item=progress.item,
        elapsed=duration(progress.elapsed_seconds),
        bytes_written=progress.bytes_written,
    )
    if progress.eta_seconds is not None:
        message.eta.CopyFrom(duration(progress.eta_seconds))
    return message


def new_operation(kind: Kind, model_id: str, output_id: str | None) -> operation_pb2.Operation:
    """Of a request that is only validated: it never gets a name."""
    return operation_pb2.Operation(
        kind=_KINDS[kind],
        model=model_name(model_id),
        output_model=model_name(output_id) if output_id else "",
    )


# ---- results

_Result = (
    operation_pb2.MergeLoraResult | operation_pb2.QuantizeResult | operation_pb2.LoadModelResult
)


def _set_result(
    message: operation_pb2.Operation | operation_pb2.OperationCompleted, result: _Result
) -> None:
    match result:
        case operation_pb2.MergeLoraResult():
            message.merge_lora.CopyFrom(result)
        case operation_pb2.QuantizeResult():
            message.quantize.CopyFrom(result)
        case operation_pb2.LoadModelResult():
            message.load_model.CopyFrom(result)


async def _result(outcome: Outcome, elapsed: float, describe: Describe) -> _Result:
    if isinstance(outcome, LoadOutcome):
        model = await describe(outcome.model_id)
        # One that is gone again is still what was loaded then.
        named = model_pb2.Model(name=model_name(outcome.model_id))
        return operation_pb2.LoadModelResult(model=model or named)
    load_operation = operation_name(outcome.load_operation) if outcome.load_operation else ""
    if isinstance(outcome.result, MergeResult):
        return _merge_result(outcome, outcome.result, elapsed, load_operation)
    return _quantize_result(outcome, outcome.result, elapsed, load_operation)


def _merge_result(
    outcome: JobOutcome, result: MergeResult, elapsed: float, load_operation: str
) -> operation_pb2.MergeLoraResult:
    figures, summary = result.figures, result.summary
    return operation_pb2.MergeLoraResult(
        published=_published(outcome, elapsed),
        adapter=summary.merged,
        dtype=DTYPES.get(summary.dtype, model_pb2.DATA_TYPE_UNSPECIFIED),
        tensors=summary.num_tensors,
        merged_tensors=summary.num_merged,
        agreement=operation_pb2.MergeAgreement(
            text=_agreement(figures.text),
            image=_agreement(figures.image) if figures.image else None,
        ),
        load_operation=load_operation,
    )


def _quantize_result(
    outcome: JobOutcome, result: QuantizeResult, elapsed: float, load_operation: str
) -> operation_pb2.QuantizeResult:
    figures, summary = result.figures, result.summary
    message = operation_pb2.QuantizeResult(
        published=_published(outcome, elapsed),
        quantization=model_pb2.Quantization(
            scheme=model_pb2.QUANTIZATION_SCHEME_AWQ, bits=4, group_size=summary.group_size
        ),
        method=_METHODS[QuantizeMethod(summary.method)],
        source_bytes=summary.source_bytes,
        quality=operation_pb2.QuantizeQuality(
            text=_drift(figures.text), image=_drift(figures.image) if figures.image else None
        ),
        load_operation=load_operation,
    )
    if summary.relative_error is not None:
        message.relative_error = summary.relative_error
    return message


def _published(outcome: JobOutcome, elapsed: float) -> operation_pb2.PublishedModel:
    published = outcome.result.published
    return operation_pb2.PublishedModel(
        model=model_name(published.model),
        manifest_digest=published.manifest_digest,
        files=published.files,
        size_bytes=published.size_bytes,
        elapsed=duration(elapsed),
        replaced=published.replaced,
    )


def _agreement(part: Agreement) -> operation_pb2.LogitAgreement:
    return operation_pb2.LogitAgreement(
        positions=part.positions,
        relative_difference=part.relative_difference,
        top1_agreement=part.top1_agreement,
    )


def _drift(part: Drift) -> operation_pb2.PredictionDrift:
    return operation_pb2.PredictionDrift(
        positions=part.positions,
        source_perplexity=part.source_perplexity,
        candidate_perplexity=part.candidate_perplexity,
        mean_kl=part.mean_kl,
        max_kl=part.max_kl,
        top1_agreement=part.top1_agreement,
    )


def _status(error: FaultRecord) -> status_pb2.Status:
    return status_of(error.fault())
