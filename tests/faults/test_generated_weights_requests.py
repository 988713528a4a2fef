"""Requests for long work that nobody would write: answered or refused as documented, and nothing in
the models root but what was asked for.
"""

import random
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message import Message

from ixc.v1.operation_service_pb2 import ListOperationsRequest
from ixc.v1.weights_service_pb2 import (
    Calibration,
    CalibrationSample,
    LoadAdapterRequest,
    LoadModelRequest,
    MergeLoraRequest,
    QuantizeRequest,
    UnloadModelRequest,
)
from tests.fakes.request_mutations import Method, methods_of
from tests.fakes.running_server import running_server
from tests.fakes.tiny_models_root import SOURCE, write_models_root
from tests.faults.test_generated_requests import ROUND, Walker


class WeightsWalker(Walker):
    operation = "operations/0000000000"

    def examples(self, method: Method) -> list[Message]:
        """One request that would work, to be spoilt."""
        request = method.request()
        output = self.rng.choice(("made", "made-2", SOURCE, "..", "a/b", "nul"))
        model = self.rng.choice((f"models/{SOURCE}", "models/made", "models/none", "models/.."))
        match request:
            case MergeLoraRequest():
                task = self.rng.choice(("web", "write", "sing"))
                return [MergeLoraRequest(model=model, task=task, output_model_id=output)]
            case QuantizeRequest():
                samples = [CalibrationSample(text="A text.", answer="An answer.")]
                return [
                    QuantizeRequest(
                        model=model,
                        output_model_id=output,
                        calibration=Calibration(samples=samples),
                        validate_only=True,
                    )
                ]
            case LoadModelRequest():
                return [LoadModelRequest(model=model)]
            case UnloadModelRequest():
                return [UnloadModelRequest(name=model)]
            case LoadAdapterRequest():
                return [LoadAdapterRequest(adapter="adapters/cats")]
        if "name" in request.DESCRIPTOR.fields_by_name:
            setattr(request, "name", self.operation)  # noqa: B010 - of several types
        return [request]


@pytest.mark.parametrize("count", [400, pytest.param(4_000, marks=pytest.mark.faults)])
async def test_every_request_is_answered_or_refused_as_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """No code outside the RPC's own list, no INTERNAL, no hang, nothing outside the root."""
    monkeypatch.setattr("ixc_runtime.jobs.host.WORKER_MODULE", "tests.fakes.synthetic_job")
    pool = descriptor_pool.Default()
    methods = [
        method
        for name in ("WeightsService", "OperationService")
        for method in methods_of(pool.FindServiceByName(f"ixc.v1.{name}"))
    ]
    (tmp_path / "served").mkdir()
    (tmp_path / "adapters").mkdir()
    root = write_models_root(tmp_path / "models")
    async with running_server(
        tmp_path / "served", models_root=root, adapters_root=tmp_path / "adapters"
    ) as served:
        walker = WeightsWalker(served.channel, random.Random(5))
        for _ in range(count // ROUND):
            await walker.round(methods, ROUND)
            newest = await served.operations.ListOperations(ListOperationsRequest(page_size=1))
            if newest.operations:
                walker.operation = newest.operations[0].name
        for outcome, number in walker.outcomes.most_common():
            print(f"{number:6} {outcome}")
        assert walker.operation != WeightsWalker.operation, "some request began an operation"
        assert walker.wrong == [], "\n".join(walker.wrong)
    assert {path.name for path in tmp_path.iterdir()} == {"served", "adapters", "models"}
    made = {path.name for path in root.iterdir()} - {".ixc-jobs", SOURCE}
    assert made <= {"made", "made-2", "a", "base"}, made
