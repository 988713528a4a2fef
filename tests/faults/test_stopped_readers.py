"""Readers that take nothing: they cost bounded memory, slow nobody, and are dropped in the end."""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from ixc.v1.generation_service_pb2 import GenerateRequest, GenerateResponse
from ixc.v1.sampling_pb2 import SamplingParams
from tests.fakes.http2_reader import Http2Reader
from tests.fakes.running_server import text_prompt
from tests.fakes.server_process import ServerProcess, resident_bytes, running_process, write_model

NUM_STOPPED = 64
NUM_NEIGHBOURS = 8
GROWTH_BYTES = 32 * 2**20
NEIGHBOURS_SHARE = 0.9
LONG = 60_000  # tokens: no answer ends while it is looked at


class Neighbours:
    """Streams that are read as fast as they come."""

    def __init__(self) -> None:
        self.num_tokens = 0

    def take(self, _: int, message: bytes) -> None:
        self.num_tokens += GenerateResponse.FromString(message).event.delta.token_count

    async def read_from(self, served: ServerProcess) -> None:
        loop = asyncio.get_running_loop()
        path = served.address.removeprefix("unix:")
        self._transport, reader = await loop.create_unix_connection(
            lambda: Http2Reader(self.take), path
        )
        for number in range(NUM_NEIGHBOURS):
            request = GenerateRequest(
                prompt=text_prompt(f"Neighbour {number}"),
                sampling=SamplingParams(max_output_tokens=LONG, ignore_eos=True),
            )
            reader.ask("/ixc.v1.GenerationService/Generate", request.SerializeToString())

    async def rate_over(self, seconds: float) -> float:
        before, began = self.num_tokens, time.perf_counter()
        await asyncio.sleep(seconds)
        return (self.num_tokens - before) / (time.perf_counter() - began)

    def close(self) -> None:
        self._transport.close()


async def stopped_readers(served: ServerProcess) -> Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.fakes.stopped_readers", served.address.removeprefix("unix:")),
        *(str(NUM_STOPPED), str(LONG)),
        stdout=PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"reading\n"
    process.send_signal(signal.SIGSTOP)
    return process


@pytest.mark.parametrize("seconds", [10.0, pytest.param(60.0, marks=pytest.mark.faults)])
async def test_stopped_readers_cost_little_and_slow_nobody(tmp_path: Path, seconds: float) -> None:
    """64 of them: at most 32 MiB, their logs included, and nine tenths of their neighbours' rate.

    They share a connection, whose socket is full within seconds; then they are dropped.
    """
    model = write_model(tmp_path / "model", max_positions=2 * LONG)
    environ = {"SYNTHETIC_TOKENS_PER_SECOND": "100"}
    flags = (
        "--max-batch=96",
        "--slow-consumer-timeout-seconds=2",
        f"--max-output-tokens={LONG}",
    )
    async with running_process(tmp_path, model, *flags, synthetic=True, environ=environ) as served:
        neighbours = Neighbours()
        await neighbours.read_from(served)
        await asyncio.sleep(1.0)
        alone = await neighbours.rate_over(2.0)
        before = resident_bytes(served.pid)
        readers = await stopped_readers(served)
        try:
            together = await neighbours.rate_over(seconds)
            growth = resident_bytes(served.pid) - before
        finally:
            readers.kill()
            await readers.wait()
            neighbours.close()
        dropped = sum("slow_reader_dropped" in line for line in served.log)
        print(
            f"\ngrowth {growth / 2**20:.1f} MiB; {alone:.0f} tok/s alone, {together:.0f} beside; "
            f"{dropped} dropped"
        )
        assert growth <= GROWTH_BYTES
        assert together >= NEIGHBOURS_SHARE * alone
        assert dropped == NUM_STOPPED
