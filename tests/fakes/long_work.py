"""Requests and streams of long work, for tests of a real server."""

import asyncio
from collections.abc import Callable
from typing import Any

from ixc.v1 import operation_pb2
from ixc.v1.operation_service_pb2 import GetOperationRequest, WatchOperationRequest
from ixc.v1.weights_service_pb2 import MergeLoraRequest, QuantizeRequest, QuantizeThresholds
from tests.fakes.running_server import Served
from tests.fakes.tiny_models_root import LOOSE, SOURCE

Event = operation_pb2.OperationEvent
THRESHOLDS = QuantizeThresholds(**LOOSE)


def merging(output: str = "tiny-web", **fields: Any) -> MergeLoraRequest:
    if "adapter" not in fields:
        fields.setdefault("task", "web")
    return MergeLoraRequest(model=f"models/{SOURCE}", output_model_id=output, **fields)


def quantising(output: str = "tiny-int4", **fields: Any) -> QuantizeRequest:
    fields.setdefault("thresholds", THRESHOLDS)
    return QuantizeRequest(model=f"models/{SOURCE}", output_model_id=output, **fields)


async def events_of(call: Any) -> list[Event]:
    return [response.event async for response in call]


def kinds(events: list[Event]) -> list[str]:
    return [str(event.WhichOneof("event")) for event in events]


async def get(served: Served, name: str) -> operation_pb2.Operation:
    response = await served.operations.GetOperation(GetOperationRequest(name=name))
    operation: operation_pb2.Operation = response.operation
    return operation


async def until(call: Any, kind: str) -> Event:
    """The first event of a kind."""
    async for response in call:
        if response.event.WhichOneof("event") == kind:
            event: Event = response.event
            return event
    raise AssertionError(f"the stream ended without {kind}")


def watching(served: Served, name: str, after_sequence: int = 0) -> Any:
    request = WatchOperationRequest(name=name, after_sequence=after_sequence)
    return served.operations.WatchOperation(request)


async def until_true(condition: Callable[[], bool]) -> None:
    """Of what another process does to files, which tell nobody."""
    while not condition():  # noqa: ASYNC110 - see above
        await asyncio.sleep(0.01)
