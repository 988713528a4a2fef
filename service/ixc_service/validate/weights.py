"""Checks of WeightsService's and OperationService's requests."""

from ixc.v1 import model_pb2, operation_pb2, operation_service_pb2, weights_service_pb2
from ixc_runtime.models_root import MODEL_ID_RULE, is_model_id
from ixc_service.identifiers import model_id_of
from ixc_service.limits import Limits
from ixc_service.validate.findings import Bounds, Findings
from ixc_service.validate.prompts import check_image

_MAX_REASON_BYTES = 255
_MAX_TASK_BYTES = 63
_MAX_SAMPLE_BYTES = 65_536
_SAMPLE_TOKENS = Bounds(64, 8192)
_SHARE = Bounds(0, 1)
_MERGE_DTYPES = {
    model_pb2.DATA_TYPE_UNSPECIFIED,
    model_pb2.DATA_TYPE_BFLOAT16,
    model_pb2.DATA_TYPE_FLOAT16,
    model_pb2.DATA_TYPE_FLOAT32,
}
_KEPT_DTYPES = {
    model_pb2.DATA_TYPE_UNSPECIFIED,
    model_pb2.DATA_TYPE_BFLOAT16,
    model_pb2.DATA_TYPE_FLOAT16,
}
_GROUP_SIZES = (32, 64, 128)


def check_merge_lora(request: weights_service_pb2.MergeLoraRequest) -> None:
    findings = Findings()
    findings.request_id(request.request_id)
    _check_model(findings, "model", request.model, required=False)
    match request.WhichOneof("source"):
        case "task":
            findings.size("task", request.task, _MAX_TASK_BYTES, at_least=1)
        case "adapter":
            _check_collected(findings, "adapter", request.adapter, "adapters")
        case _:
            findings.add("source", "MISSING", "must be a task or an adapter")
    _check_new_id(findings, "output_model_id", request.output_model_id)
    _check_dtype(findings, request.dtype, _MERGE_DTYPES)
    thresholds = request.thresholds
    if thresholds.HasField("max_relative_difference"):
        findings.number(
            "thresholds.max_relative_difference",
            thresholds.max_relative_difference,
            Bounds(0, 1, low_open=True),
        )
    if thresholds.HasField("min_top1_agreement"):
        findings.number("thresholds.min_top1_agreement", thresholds.min_top1_agreement, _SHARE)
    findings.conclude()


def check_quantize(request: weights_service_pb2.QuantizeRequest, limits: Limits) -> None:
    findings = Findings()
    findings.request_id(request.request_id)
    _check_model(findings, "model", request.model, required=False)
    _check_new_id(findings, "output_model_id", request.output_model_id)
    findings.enum("scheme", request.scheme, model_pb2.QuantizationScheme.DESCRIPTOR)
    findings.enum("method", request.method, operation_pb2.RoundingMethod.DESCRIPTOR)
    _check_dtype(findings, request.dtype, _KEPT_DTYPES)
    if request.HasField("group_size") and request.group_size not in _GROUP_SIZES:
        allowed = ", ".join(map(str, _GROUP_SIZES))
        findings.add("group_size", "OUT_OF_RANGE", f"is {request.group_size}, allowed: {allowed}")
    _check_calibration(findings, request.calibration, limits)
    _check_quantize_thresholds(findings, request.thresholds)
    findings.conclude()


def _check_quantize_thresholds(
    findings: Findings, thresholds: weights_service_pb2.QuantizeThresholds
) -> None:
    if thresholds.HasField("max_perplexity_ratio"):
        bounds = Bounds(1, 1e6)
        findings.number("thresholds.max_perplexity_ratio", thresholds.max_perplexity_ratio, bounds)
    if thresholds.HasField("max_mean_kl"):
        bounds = Bounds(0, 1e6, low_open=True)
        findings.number("thresholds.max_mean_kl", thresholds.max_mean_kl, bounds)
    if thresholds.HasField("min_top1_agreement"):
        findings.number("thresholds.min_top1_agreement", thresholds.min_top1_agreement, _SHARE)


def _check_calibration(
    findings: Findings, calibration: weights_service_pb2.Calibration, limits: Limits
) -> None:
    field = "calibration.samples"
    findings.count(field, len(calibration.samples), limits.max_calibration_samples)
    if calibration.HasField("max_sample_tokens"):
        tokens = calibration.max_sample_tokens
        findings.number("calibration.max_sample_tokens", tokens, _SAMPLE_TOKENS)
    num_bytes = 0
    for index, sample in enumerate(calibration.samples):
        place = f"{field}[{index}]"
        findings.size(f"{place}.text", sample.text, _MAX_SAMPLE_BYTES, at_least=1)
        findings.size(f"{place}.answer", sample.answer, _MAX_SAMPLE_BYTES)
        findings.size(f"{place}.adapter", sample.adapter, _MAX_TASK_BYTES)
        if sample.HasField("image"):
            num_bytes += len(sample.image.inline_data)
            check_image(findings, f"{place}.image", sample.image, Bounds(1, limits.max_hd_num))
            if sample.image.HasField("hd_num") or sample.image.label:
                findings.add(f"{place}.image", "NOT_ALLOWED", "hd_num and label must be unset")
            if not sample.answer:
                findings.add(f"{place}.answer", "MISSING", "is needed with a picture")
    if num_bytes > limits.max_inline_image_bytes:
        findings.add(
            field,
            "TOO_LARGE",
            f"{num_bytes} bytes of images, at most {limits.max_inline_image_bytes} are allowed "
            "inline",
        )


def check_load_model(request: weights_service_pb2.LoadModelRequest) -> None:
    findings = Findings()
    findings.request_id(request.request_id)
    _check_model(findings, "model", request.model)
    findings.conclude()


def check_operation_name(name: str, *, reason: str = "") -> None:
    findings = Findings()
    findings.name("name", name, "operations")
    findings.size("reason", reason, _MAX_REASON_BYTES)
    findings.conclude()


def check_watch_operation(request: operation_service_pb2.WatchOperationRequest) -> None:
    findings = Findings()
    findings.name("name", request.name, "operations")
    findings.sequence("after_sequence", request.after_sequence)
    findings.conclude()


def check_list_operations(request: operation_service_pb2.ListOperationsRequest) -> None:
    findings = Findings()
    for field, values, kind in (
        ("kinds", request.kinds, operation_pb2.OperationKind.DESCRIPTOR),
        ("states", request.states, operation_pb2.OperationState.DESCRIPTOR),
    ):
        findings.enums(field, values, kind)
        if 0 in values:
            findings.add(field, "NOT_ALLOWED", f"nothing is {kind.values_by_number[0].name}")
    findings.conclude()


def _check_model(findings: Findings, field: str, name: str, *, required: bool = True) -> None:
    """The model that the server was started with may be called as its folder is."""
    if (name or required) and model_id_of(name) is None:
        findings.add(field, "MALFORMED", "must be models/{model}")


def _check_collected(findings: Findings, field: str, name: str, collection: str) -> None:
    prefix, _, identifier = name.partition("/")
    if prefix != collection or not is_model_id(identifier):
        findings.add(field, "MALFORMED", f"must be {collection}/{{id}}; an id is {MODEL_ID_RULE}")


def _check_new_id(findings: Findings, field: str, identifier: str) -> None:
    if not is_model_id(identifier):
        findings.add(field, "MALFORMED", f"must be {MODEL_ID_RULE}")


def _check_dtype(
    findings: Findings, dtype: int, allowed: set[model_pb2.DataType.ValueType]
) -> None:
    findings.enum("dtype", dtype, model_pb2.DataType.DESCRIPTOR)
    if dtype in model_pb2.DataType.values() and dtype not in allowed:
        findings.add("dtype", "NOT_ALLOWED", "weights are not written in these numbers")
