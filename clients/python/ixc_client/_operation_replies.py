"""From messages to values: operations, their events and their results. Pure functions."""

from ixc.v1 import operation_pb2
from ixc_client import _operations as operations
from ixc_client import _resource_replies as resource_replies
from ixc_client import _wire_values as values
from ixc_client._events import Draining
from ixc_client._status import error_from_status


def operation(message: operation_pb2.Operation) -> operations.Operation:
    return operations.Operation(
        name=message.name,
        kind=values.enum(operations.OperationKind, message, "kind"),
        state=values.enum(operations.OperationState, message, "state"),
        done=message.done,
        progress=progress(message.progress) if message.HasField("progress") else None,
        result=result(message),
        error=error_from_status(message.error) if message.HasField("error") else None,
        cancel_requested=message.cancel_requested,
        request_id=message.request_id,
        model=message.model,
        output_model=message.output_model,
        last_sequence=message.last_sequence,
        attempt=message.attempt,
        create_time=values.time(message, "create_time"),
        start_time=values.time(message, "start_time"),
        end_time=values.time(message, "end_time"),
        expire_time=values.time(message, "expire_time"),
    )


def event(message: operation_pb2.OperationEvent) -> operations.OperationEvent | None:
    """None for `failed`, which is an error and no event, and for what is newer than this client."""
    match message.WhichOneof("event"):
        case "accepted":
            accepted = message.accepted
            return operations.OperationAccepted(
                operation=operation(accepted.operation),
                deduplicated=accepted.deduplicated,
                queue_position=accepted.queue_position,
                required_bytes=accepted.required_bytes,
            )
        case "progress":
            return progress(message.progress)
        case "metric":
            metric = message.metric
            return operations.OperationMetric(
                layer=metric.layer, metric=metric.metric, value=metric.value
            )
        case "log":
            return operations.OperationLog(
                severity=values.word(message.log, "severity"), text=message.log.text
            )
        case "restarted":
            restarted = message.restarted
            return operations.OperationRestarted(
                attempt=restarted.attempt,
                resumed=restarted.resumed,
                kept_files=restarted.kept_files,
                kept_bytes=restarted.kept_bytes,
            )
        case "heartbeat":
            return operations.OperationHeartbeat(
                state=values.enum(operations.OperationState, message.heartbeat, "state"),
                queue_position=message.heartbeat.queue_position,
            )
        case "draining":
            return Draining(time_left=values.seconds(message.draining.time_left))
        case "completed":
            return operations.OperationCompleted(result=result(message.completed))
    return None


def progress(message: operation_pb2.OperationProgress) -> operations.OperationProgress:
    return operations.OperationProgress(
        stage=message.stage,
        stage_index=message.stage_index,
        stage_count=message.stage_count,
        fraction=message.fraction,
        items_done=message.items_done,
        items_total=message.items_total,
        item=message.item,
        elapsed=values.seconds(message.elapsed),
        eta=values.seconds(message.eta) if message.HasField("eta") else None,
        bytes_written=message.bytes_written,
    )


def result(
    message: operation_pb2.Operation | operation_pb2.OperationCompleted,
) -> operations.OperationResult | None:
    match message.WhichOneof("result"):
        case "merge_lora":
            return _merge_lora(message.merge_lora)
        case "quantize":
            return _quantize(message.quantize)
        case "load_model":
            model = resource_replies.model(message.load_model.model)
            return operations.LoadModelResult(info=model)
    return None


def _merge_lora(message: operation_pb2.MergeLoraResult) -> operations.MergeLoraResult:
    agreement = message.agreement
    return operations.MergeLoraResult(
        published=_published(message.published),
        adapter=message.adapter,
        dtype=values.word(message, "dtype"),
        tensors=message.tensors,
        merged_tensors=message.merged_tensors,
        text=_agreement(agreement.text),
        image=_agreement(agreement.image) if agreement.HasField("image") else None,
        load_operation=message.load_operation,
    )


def _quantize(message: operation_pb2.QuantizeResult) -> operations.QuantizeResult:
    quality = message.quality
    return operations.QuantizeResult(
        published=_published(message.published),
        quantization=resource_replies.quantization(message.quantization),
        rounding=values.enum(operations.Rounding, message, "method"),
        source_bytes=message.source_bytes,
        relative_error=message.relative_error if message.HasField("relative_error") else None,
        text=_drift(quality.text),
        image=_drift(quality.image) if quality.HasField("image") else None,
        load_operation=message.load_operation,
    )


def _published(message: operation_pb2.PublishedModel) -> operations.PublishedModel:
    return operations.PublishedModel(
        model=message.model,
        manifest_digest=message.manifest_digest,
        files=message.files,
        size_bytes=message.size_bytes,
        elapsed=values.seconds(message.elapsed),
        replaced=message.replaced,
    )


def _agreement(message: operation_pb2.LogitAgreement) -> operations.LogitAgreement:
    return operations.LogitAgreement(
        positions=message.positions,
        relative_difference=message.relative_difference,
        top1_agreement=message.top1_agreement,
    )


def _drift(message: operation_pb2.PredictionDrift) -> operations.PredictionDrift:
    return operations.PredictionDrift(
        positions=message.positions,
        source_perplexity=message.source_perplexity,
        candidate_perplexity=message.candidate_perplexity,
        mean_kl=message.mean_kl,
        max_kl=message.max_kl,
        top1_agreement=message.top1_agreement,
    )
