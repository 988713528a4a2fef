"""From what the caller hands in to WeightsService's requests; shared by both clients. Pure but for
reading small pictures and drawing request ids.
"""

import uuid
from collections.abc import Sequence

from ixc.v1 import model_pb2, operation_pb2, weights_service_pb2
from ixc_client._enclosures import Enclosures
from ixc_client._errors import UsageError
from ixc_client._media import Image
from ixc_client._operations import OperationKind, OperationState, Rounding, Sample, SampleLike

_DTYPES = {
    "": model_pb2.DATA_TYPE_UNSPECIFIED,
    "float32": model_pb2.DATA_TYPE_FLOAT32,
    "bfloat16": model_pb2.DATA_TYPE_BFLOAT16,
    "float16": model_pb2.DATA_TYPE_FLOAT16,
}
_ROUNDINGS = {
    Rounding.AWQ: operation_pb2.ROUNDING_METHOD_AWQ,
    Rounding.NEAREST: operation_pb2.ROUNDING_METHOD_NEAREST,
}


def resource_name(collection: str, name: str) -> str:
    """A bare id is completed, a full name stays: "cats" and "models/cats" are the same."""
    return name if not name or name.startswith(f"{collection}/") else f"{collection}/{name}"


def merge_lora(
    model: str,
    output: str,
    *,
    task: str,
    adapter: str,
    dtype: str,
    overwrite: bool,
    validate_only: bool,
    load_when_done: bool,
    max_relative_difference: float | None,
    min_top1_agreement: float | None,
) -> weights_service_pb2.MergeLoraRequest:
    if bool(task) == bool(adapter):
        raise UsageError("merge_lora merges a task or an adapter: name exactly one of them")
    return weights_service_pb2.MergeLoraRequest(
        request_id=str(uuid.uuid4()),
        model=resource_name("models", model),
        **({"task": task} if task else {"adapter": resource_name("adapters", adapter)}),
        output_model_id=output,
        dtype=_dtype(dtype),
        overwrite=overwrite,
        validate_only=validate_only,
        load_when_done=load_when_done,
        thresholds=weights_service_pb2.MergeThresholds(
            max_relative_difference=max_relative_difference,
            min_top1_agreement=min_top1_agreement,
        ),
    )


def quantize(
    model: str,
    output: str,
    *,
    rounding: Rounding | str,
    group_size: int | None,
    samples: Sequence[SampleLike],
    max_sample_tokens: int | None,
    dtype: str,
    overwrite: bool,
    validate_only: bool,
    load_when_done: bool,
    max_perplexity_ratio: float | None,
    max_mean_kl: float | None,
    min_top1_agreement: float | None,
    enclosures: Enclosures,
) -> weights_service_pb2.QuantizeRequest:
    request = weights_service_pb2.QuantizeRequest(
        request_id=str(uuid.uuid4()),
        model=resource_name("models", model),
        output_model_id=output,
        group_size=group_size,
        method=_ROUNDINGS[Rounding(rounding)],
        calibration=weights_service_pb2.Calibration(max_sample_tokens=max_sample_tokens),
        dtype=_dtype(dtype),
        overwrite=overwrite,
        validate_only=validate_only,
        load_when_done=load_when_done,
        thresholds=weights_service_pb2.QuantizeThresholds(
            max_perplexity_ratio=max_perplexity_ratio,
            max_mean_kl=max_mean_kl,
            min_top1_agreement=min_top1_agreement,
        ),
    )
    for given in samples:
        sample = Sample(text=given) if isinstance(given, str) else given
        _write_sample(request.calibration.samples.add(), sample, enclosures)
    enclosures.put_small_ones_inside()
    return request


def load_model(model: str, *, make_default: bool) -> weights_service_pb2.LoadModelRequest:
    return weights_service_pb2.LoadModelRequest(
        request_id=str(uuid.uuid4()),
        model=resource_name("models", model),
        make_default=make_default,
    )


def kinds(wanted: Sequence[OperationKind | str]) -> list[operation_pb2.OperationKind.ValueType]:
    return [
        operation_pb2.OperationKind.Value(f"OPERATION_KIND_{OperationKind(each).upper()}")
        for each in wanted
    ]


def states(wanted: Sequence[OperationState | str]) -> list[operation_pb2.OperationState.ValueType]:
    return [
        operation_pb2.OperationState.Value(f"OPERATION_STATE_{OperationState(each).upper()}")
        for each in wanted
    ]


def _write_sample(
    target: weights_service_pb2.CalibrationSample, sample: Sample, enclosures: Enclosures
) -> None:
    target.text, target.answer, target.adapter = sample.text, sample.answer, sample.adapter
    if sample.image is None:
        return
    picture = Image(sample.image)
    target.image.SetInParent()
    if picture.media:
        target.image.media = picture.media
    else:
        enclosures.add(target.image, picture.open())


def _dtype(name: str) -> model_pb2.DataType.ValueType:
    if name not in _DTYPES:
        known = ", ".join(filter(None, _DTYPES))
        raise UsageError(f"dtype is {name!r}; it may be {known}, or empty")
    return _DTYPES[name]
