"""Signals to a server process: what it says, takes, finishes and refuses until it has gone."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from ixc.v1.events_pb2 import GenerationEvent
from ixc.v1.generation_service_pb2_grpc import GenerationServiceStub
from ixc.v1.sampling_pb2 import SamplingParams
from tests.fakes.running_server import error_info, events_of, generate_request, kinds, refused
from tests.fakes.server_process import ServerProcess, descendants, running_process, write_model

CODE = grpc.StatusCode
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
PACE = {"SYNTHETIC_TOKENS_PER_SECOND": "200"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("drain") / "model", max_positions=8192)


@pytest_asyncio.fixture
async def served(
    tmp_path: Path, model: Path, request: pytest.FixtureRequest
) -> AsyncIterator[ServerProcess]:
    flags = getattr(request, "param", ())
    async with running_process(tmp_path, model, *flags, synthetic=True, environ=PACE) as served:
        yield served


def with_flags(*flags: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("served", [flags], indirect=True)


class Stream:
    """An answer of so many tokens, 200 a second, under way."""

    def __init__(self, channel: grpc.aio.Channel, num_tokens: int) -> None:
        stub: Any = GenerationServiceStub(channel)
        sampling = SamplingParams(max_output_tokens=num_tokens, ignore_eos=True)
        self._call = stub.Generate(generate_request("Go on.", sampling=sampling))
        self.events: list[GenerationEvent] = []

    async def until(self, kind: str) -> GenerationEvent:
        while not self.events or kinds(self.events)[-1] != kind:
            self.events.append((await self._call.read()).event)
        return self.events[-1]

    async def to_its_end(self) -> str:
        """The last event's kind, or the reason that the RPC ended with."""
        try:
            self.events += await events_of(self._call)
        except grpc.aio.AioRpcError as error:
            return error_info(error).reason
        return kinds(self.events)[-1]


@with_flags("--drain-notice-seconds=1", "--drain-grace-seconds=30")
async def test_sigterm(served: ServerProcess) -> None:
    """Health says so and streams are told at once; late work is still taken, then refused; what
    runs ends well, however often the signal is repeated; the exit code is 0.
    """
    async with served.channel() as channel:
        health: Any = HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="readiness"))
        assert (await watch.read()).status == SERVING
        stream = Stream(channel, 700)
        await stream.until("delta")
        served.process.send_signal(signal.SIGTERM)
        assert (await watch.read()).status == NOT_SERVING
        alive = await health.Check(health_pb2.HealthCheckRequest(service="liveness"))
        assert alive.status == SERVING
        told = await stream.until("draining")
        assert 25 < told.draining.time_left.seconds <= 30

        late = Stream(channel, 20)
        assert (await late.until("draining")).draining.time_left.seconds > 25
        assert await late.to_its_end() == "completed"
        async with asyncio.timeout(10):
            while (outcome := await Stream(channel, 1).to_its_end()) == "completed":
                pass
        assert outcome == "SERVER_DRAINING"
        served.process.send_signal(signal.SIGTERM)
        assert await stream.to_its_end() == "completed"
        assert sum(event.delta.token_count for event in stream.events) == 700
        async with asyncio.timeout(20):
            assert await served.process.wait() == 0


@with_flags("--drain-notice-seconds=0.2", "--drain-grace-seconds=0.5")
async def test_what_outlasts_the_grace(served: ServerProcess) -> None:
    """Is cut off with SERVER_DRAINING; the notice is part of the grace."""
    async with served.channel() as channel:
        stream = Stream(channel, 7000)
        await stream.until("delta")
        served.process.send_signal(signal.SIGTERM)
        assert await stream.to_its_end() == "SERVER_DRAINING"
        async with asyncio.timeout(20):
            assert await served.process.wait() == 0


@with_flags("--drain-notice-seconds=600", "--drain-grace-seconds=900")
async def test_ctrl_c(served: ServerProcess) -> None:
    """No notice for a person: nothing new is taken. A second one ends what runs."""
    async with served.channel() as channel:
        stream = Stream(channel, 7000)
        await stream.until("delta")
        served.process.send_signal(signal.SIGINT)
        await stream.until("draining")
        with refused("SERVER_DRAINING", CODE.UNAVAILABLE):
            stub: Any = GenerationServiceStub(channel)
            await events_of(stub.Generate(generate_request("Me too")))
        served.process.send_signal(signal.SIGINT)
        assert await stream.to_its_end() == "SERVER_DRAINING"
        async with asyncio.timeout(20):
            assert await served.process.wait() == 0


@with_flags("--drain-notice-seconds=600", "--drain-grace-seconds=900")
async def test_ctrl_c_while_the_notice_runs(served: ServerProcess) -> None:
    """Whoever sent SIGTERM may still lose patience."""
    async with served.channel() as channel:
        stream = Stream(channel, 7000)
        await stream.until("delta")
        served.process.send_signal(signal.SIGTERM)
        await stream.until("draining")
        served.process.send_signal(signal.SIGINT)
        assert await stream.to_its_end() == "SERVER_DRAINING"
        async with asyncio.timeout(20):
            assert await served.process.wait() == 0


async def test_a_signal_to_every_process(tmp_path: Path, model: Path) -> None:
    """As supervisors of services send it: the engine and the media workers leave it to the front
    end, and the answer is finished.
    """
    async with (
        running_process(tmp_path, model, "--kv-bytes=16000000") as served,
        served.channel() as channel,
    ):
        stream = Stream(channel, 300)
        await stream.until("delta")
        for pid in (served.pid, *descendants(served.pid)):
            os.kill(pid, signal.SIGTERM)
        assert await stream.to_its_end() == "completed"
        async with asyncio.timeout(20):
            assert await served.process.wait() == 0
