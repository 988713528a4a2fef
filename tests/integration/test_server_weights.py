"""MergeLora and Quantize over a real server: the real work, on a tiny model."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import PIL.Image
import pytest
import torch
from safetensors.torch import save_file

from ixc.v1 import model_pb2, operation_pb2
from ixc.v1.content_pb2 import ImagePart
from ixc.v1.operation_service_pb2 import (
    WatchOperationRequest,
)
from ixc.v1.weights_service_pb2 import (
    Calibration,
    CalibrationSample,
    MergeLoraRequest,
    QuantizeRequest,
    QuantizeThresholds,
)
from ixc_runtime.models_root import ModelsRoot
from ixc_service.store import LOCAL_OWNER
from tests.fakes.long_work import (
    Event,
    events_of,
    get,
    kinds,
    merging,
    quantising,
)
from tests.fakes.running_server import Served, error_info, running_server
from tests.fakes.tiny_models_root import SOURCE, tree, write_models_root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_models_root(tmp_path / "models")


@pytest.fixture
async def served(tmp_path: Path, root: Path) -> AsyncIterator[Served]:
    async with running_server(tmp_path, models_root=root) as server:
        yield server


async def test_a_merge_from_its_beginning_to_its_model(served: Served, root: Path) -> None:
    """Accepted, progress through all stages, completed with figures; then the model is there."""
    call = served.weights.MergeLora(merging(request_id="m-1"))
    events = await events_of(call)
    metadata = dict(await call.initial_metadata())
    assert kinds(events)[0] == "accepted" and kinds(events)[-1] == "completed"
    assert [event.sequence for event in events] == sorted({event.sequence for event in events})
    fractions = [each.progress.fraction for each in events if each.HasField("progress")]
    assert fractions == sorted(fractions) and fractions[-1] > 0.9
    result = events[-1].completed.merge_lora
    assert result.published.model == "models/tiny-web"
    assert result.adapter == "web" and result.merged_tensors == 10
    assert result.agreement.text.relative_difference < 1e-4
    assert result.agreement.image.positions > 0
    manifest = await asyncio.to_thread(ModelsRoot(root).verify, "tiny-web")
    assert manifest.source.name == SOURCE
    assert metadata["x-operation"] == events[0].accepted.operation.name
    operation = await get(served, metadata["x-operation"])
    assert operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED and operation.done
    assert operation.merge_lora == result
    assert operation.progress.stage == "publishing"
    assert list((root / ".ixc-jobs").iterdir()) == []


async def test_a_job_on_the_model_that_the_server_was_started_with(
    tmp_path: Path, root: Path
) -> None:
    """It lies outside the root, in a folder of another name; jobs find it by the name it has."""
    (root / SOURCE).rename(tmp_path / "demo-0123")
    outside = {"model": tmp_path / "demo-0123", "model_name": "demo"}
    async with running_server(tmp_path, models_root=root, **outside) as served:
        request = merging(validate_only=True)
        request.model = "models/demo"
        events = await events_of(served.weights.MergeLora(request))
        assert events[0].accepted.operation.model == "models/demo"


async def test_a_quantisation_tells_of_each_layer(served: Served, root: Path) -> None:
    """Metrics by layer, drift against the source, sizes before and after."""
    events = await events_of(served.weights.Quantize(quantising()))
    layers = {event.metric.layer for event in events if event.HasField("metric")}
    assert len(layers) == 10
    result = events[-1].completed.quantize
    assert result.quantization.scheme == model_pb2.QUANTIZATION_SCHEME_AWQ
    assert (result.quantization.bits, result.quantization.group_size) == (4, 64)
    assert result.quality.text.candidate_perplexity > 0
    assert result.published.size_bytes > 0
    await asyncio.to_thread(ModelsRoot(root).verify, "tiny-int4")


async def test_samples_come_with_the_request(served: Served, root: Path, tmp_path: Path) -> None:
    """Texts and questions of the caller's calibrate in place of the built-in ones. They are not
    kept: neither with the model nor with the operation.
    """
    samples = [
        CalibrationSample(text="The harbour was quiet in the early morning, before the boats."),
        CalibrationSample(text="How many boats are there?", answer="There are two boats."),
    ]
    request = quantising(calibration=Calibration(samples=samples))
    events = await events_of(served.weights.Quantize(request))
    assert kinds(events)[-1] == "completed"
    manifest = await asyncio.to_thread(ModelsRoot(root).verify, "tiny-int4")
    assert manifest.settings["samples"] == 2
    assert "harbour" not in str(manifest.settings)
    operation = events[0].accepted.operation.name.partition("/")[2]
    found = await served.server.long_work.operations.get(LOCAL_OWNER, operation)
    assert "harbour" not in str((found.record, found.log.after(0)))


async def test_quality_below_the_callers_limit(served: Served, root: Path) -> None:
    """Nothing is published, nothing is left, and the figure is named with its limit."""
    before = tree(root)
    request = quantising(thresholds=QuantizeThresholds(max_mean_kl=1e-9))
    call = served.weights.Quantize(request)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await events_of(call)
    assert raised.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    info = error_info(raised.value)
    assert info.reason == "QUALITY_TOO_LOW"
    assert info.metadata["figure"] in {"max_mean_kl", "max_perplexity_ratio"}
    assert tree(root) == before


async def test_the_failed_event_says_what_the_status_says(served: Served) -> None:
    """Watchers behind gateways that lose trailers find the same status in the stream."""
    events: list[Event] = []
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for response in served.weights.Quantize(
            quantising(thresholds=QuantizeThresholds(max_mean_kl=1e-9))
        ):
            events.append(response.event)  # noqa: PERF401 - kept up to the error
    assert kinds(events)[-1] == "failed"
    assert events[-1].failed.status.message == raised.value.details()


async def test_group_sizes_that_do_not_fit(served: Served) -> None:
    """128 does not divide 64: refused with what would."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await events_of(served.weights.Quantize(quantising(group_size=128)))
    assert error_info(raised.value).metadata["field"] == "group_size"
    assert "64, 32" in (raised.value.details() or "")


async def test_what_is_rounded_is_not_rounded_again(served: Served) -> None:
    """Nor merged into."""
    await events_of(served.weights.Quantize(quantising("int4", method=2)))
    for call in (
        served.weights.MergeLora(
            MergeLoraRequest(model="models/int4", task="web", output_model_id="x")
        ),
        served.weights.Quantize(QuantizeRequest(model="models/int4", output_model_id="x")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await events_of(call)
        assert error_info(raised.value).reason == "ALREADY_QUANTIZED"


async def test_overwriting_a_model_of_ours(served: Served, root: Path) -> None:
    """The new one takes its place, and says so."""
    await events_of(served.weights.MergeLora(merging()))
    events = await events_of(served.weights.MergeLora(merging(task="write", overwrite=True)))
    assert events[-1].completed.merge_lora.published.replaced
    manifest = await asyncio.to_thread(ModelsRoot(root).verify, "tiny-web")
    assert manifest.result["summary"]["merged"] == "write"
    assert list((root / ".ixc-jobs").iterdir()) == []


async def test_loading_what_was_made(served: Served) -> None:
    """`load_when_done` begins another operation; when it ends, the model answers."""
    events = await events_of(served.weights.MergeLora(merging(load_when_done=True)))
    load = events[-1].completed.merge_lora.load_operation
    followed = await events_of(served.operations.WatchOperation(WatchOperationRequest(name=load)))
    assert kinds(followed)[-1] == "completed"
    model = followed[-1].completed.load_model.model
    assert (model.name, model.state) == ("models/tiny-web", model_pb2.MODEL_STATE_LOADED)


async def test_a_sample_with_a_picture(served: Served, root: Path) -> None:
    """Comes with the request, and is kept for the job only."""
    encoded = io.BytesIO()
    PIL.Image.new("RGB", (60, 40), "red").save(encoded, "PNG")
    picture = ImagePart(inline_data=encoded.getvalue())
    sample = CalibrationSample(text="What colour is it?", answer="It is red.", image=picture)
    texts = [CalibrationSample(text="The gulls on the roof were counted twice that morning.")]
    request = quantising(calibration=Calibration(samples=[sample, *texts]))
    events = await events_of(served.weights.Quantize(request))
    assert kinds(events)[-1] == "completed"
    kept = served.folder / "data" / "operations"
    assert not kept.exists() or list(kept.iterdir()) == []
    missing = ImagePart(media="media/" + "0" * 64)
    sample = CalibrationSample(text="What?", answer="That.", image=missing)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        request = quantising("other", calibration=Calibration(samples=[sample]))
        await events_of(served.weights.Quantize(request))
    assert error_info(raised.value).reason == "MEDIA_NOT_FOUND"


async def test_a_user_s_adapter_is_merged(tmp_path: Path, root: Path) -> None:
    """By its name in the adapters root; one that is not there, or does not fit, is refused."""
    adapters = tmp_path / "adapters"
    write_adapter(adapters / "cats", hidden=64)
    write_adapter(adapters / "misfit", hidden=32)
    async with running_server(tmp_path, models_root=root, adapters_root=adapters) as served:
        events = await events_of(served.weights.MergeLora(merging(adapter="adapters/cats")))
        result = events[-1].completed.merge_lora
        assert (result.adapter, result.merged_tensors) == ("cats", 2)
        manifest = await asyncio.to_thread(ModelsRoot(root).verify, "tiny-web")
        assert manifest.adapter is not None and set(manifest.adapter.files) == {
            "adapter_config.json",
            "adapter_model.safetensors",
        }
        for name, reason in (("dogs", "ADAPTER_NOT_FOUND"), ("misfit", "ADAPTER_INVALID")):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                request = merging("other", adapter=f"adapters/{name}")
                await events_of(served.weights.MergeLora(request))
            assert error_info(raised.value).reason == reason
        assert not (root / "other").exists()


def write_adapter(folder: Path, *, hidden: int) -> None:
    """In PEFT's layout, for one linear of each of two layers."""
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["wo"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for layer in range(2):
        site = f"base_model.model.model.layers.{layer}.attention.wo"
        tensors[f"{site}.lora_A.weight"] = torch.randn(2, hidden, generator=generator) / 8
        tensors[f"{site}.lora_B.weight"] = torch.randn(hidden, 2, generator=generator) / 8
    save_file(tensors, folder / "adapter_model.safetensors")
