"""Deadlines: what of them reaches the engine, and what happens when one passes."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2

from ixc.v1.sampling_pb2 import OnDisconnect, RunPolicy
from ixc_runtime import FinishReason
from ixc_runtime.errors import QueueFull
from tests.fakes.running_server import (
    Served,
    chat_request,
    events_of,
    generate_request,
    refused,
    running_server,
    status_of,
)

CODE = grpc.StatusCode
CONTINUE = RunPolicy(on_disconnect=OnDisconnect.ON_DISCONNECT_CONTINUE)


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with running_server(tmp_path) as running:
        yield running


async def call_of(served: Served, rpc: str, seconds: float | None, **fields: Any) -> Any:
    if rpc == "Generate":
        return served.generations.Generate(generate_request("Hi", **fields), timeout=seconds)
    session = await served.new_session()
    return served.chats.Chat(chat_request(session, "Hi", **fields), timeout=seconds)


@pytest.mark.parametrize("rpc", ["Generate", "Chat"])
async def test_the_engine_knows_when_it_would_be_too_late(served: Served, rpc: str) -> None:
    """What is left of the deadline, so that it can refuse at once what would only wait."""
    await events_of(await call_of(served, rpc, 20.0))
    assert 15.0 < (served.engine.requests[-1].start_within_seconds or 0.0) <= 21.0


@pytest.mark.parametrize("rpc", ["Generate", "Chat"])
@pytest.mark.parametrize(("seconds", "run"), [(None, RunPolicy()), (20.0, CONTINUE)])
async def test_whenever_it_can(
    served: Served, rpc: str, seconds: float | None, run: RunPolicy
) -> None:
    """Without a deadline, and for a run that is to outlive its caller."""
    await events_of(await call_of(served, rpc, seconds, run=run))
    assert served.engine.requests[-1].start_within_seconds is None


async def test_a_refusal_says_when_to_come_again(served: Served) -> None:
    """The engine's estimate, in RetryInfo and in the push-back that gRPC itself heeds."""
    fault = QueueFull("too late", retry_after_seconds=12.5, depth=40, wait_seconds="42.5")
    served.engine.will_say("x", fault=fault, fault_at=0)
    with refused("QUEUE_FULL", CODE.RESOURCE_EXHAUSTED) as caught:
        await served.generate("Hi")
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status_of(caught[0]).details)
    assert retry.retry_delay.ToMilliseconds() == 12_500
    assert ("grpc-retry-pushback-ms", "12500") in list(caught[0].trailing_metadata())


async def test_a_deadline_that_passes_is_a_broken_stream(served: Served) -> None:
    """Generate's default: nobody is left, so the engine stops."""
    served.engine.will_say("Once", " upon", hold_at=3)
    call = await call_of(served, "Generate", 0.3)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await events_of(call)
    assert caught.value.code() is CODE.DEADLINE_EXCEEDED
    (run,) = served.server.generations.newest_first("local")
    await served.server.generations.ended(run)
    assert served.engine.cancelled == [FinishReason.CANCELLED]
