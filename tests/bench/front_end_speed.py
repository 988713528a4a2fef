"""Tokens a second through the real front end, and what they cost it in CPU time.

    python -m tests.bench.front_end_speed

A synthetic engine gives each of 256 streams 100 tokens a second over the product's own socket and
messages; the server is the product's own process; the client parses HTTP/2 frames and little else.
The front end's cost is its process's own CPU time, as the kernel counts it.
"""

import argparse
import asyncio
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from ixc.v1.generation_service_pb2 import GenerateRequest, GenerateResponse
from ixc.v1.sampling_pb2 import OutputOptions, SamplingParams
from tests.bench.record import RESULTS, Goal, Measurement, show, write
from tests.fakes.http2_reader import Http2Reader
from tests.fakes.running_server import text_prompt
from tests.fakes.server_process import ServerProcess, cpu_seconds, running_process, write_model

_GENERATE = "/ixc.v1.GenerationService/Generate"
_START_SECONDS = 60.0
_WARM_UP_SECONDS = 1.0  # from the moment when every stream has got something


@dataclass(slots=True)
class _Stream:
    num_tokens: int = 0
    num_messages: int = 0
    last_at: float = 0.0
    longest_gap: float = 0.0


@dataclass(kw_only=True)
class _Watch:
    """Counts while it is on."""

    begun: set[int] = field(default_factory=set)
    streams: dict[int, _Stream] = field(default_factory=dict)
    is_on: bool = False

    def take(self, number: int, message: bytes) -> None:
        event = GenerateResponse.FromString(message).event
        if event.WhichOneof("event") == "failed":
            raise RuntimeError(event.failed.status.message)
        if not event.HasField("delta"):
            return
        self.begun.add(number)
        if not self.is_on:
            return
        now = time.perf_counter()
        stream = self.streams.setdefault(number, _Stream())
        if stream.last_at:
            stream.longest_gap = max(stream.longest_gap, now - stream.last_at)
        stream.last_at = now
        stream.num_tokens += event.delta.token_count
        stream.num_messages += 1


@dataclass(frozen=True, kw_only=True)
class _Run:
    tokens_per_second: float
    messages_per_second: float
    front_end_cores: float
    engine_cores: float
    client_cores: float
    longest_gap_ms: float
    slowest_share: float  # of the slowest stream's tokens in the mean stream's


async def _measured(served: ServerProcess, options: argparse.Namespace) -> _Run:
    watch = _Watch()
    loop = asyncio.get_running_loop()
    path = served.address.removeprefix("unix:")
    transport, reader = await loop.create_unix_connection(lambda: Http2Reader(watch.take), path)
    output = OutputOptions()
    if options.flush_ms is not None:
        output.flush_interval.FromMicroseconds(round(options.flush_ms * 1000))
    for number in range(options.streams):
        request = GenerateRequest(
            prompt=text_prompt(f"Prompt {number}"),
            sampling=SamplingParams(max_output_tokens=8192, ignore_eos=True),
            output=output,
        )
        reader.ask(_GENERATE, request.SerializeToString())
    async with asyncio.timeout(_START_SECONDS):
        while len(watch.begun) < options.streams:  # noqa: ASYNC110 - the reader is a bare protocol
            await asyncio.sleep(0.05)
    await asyncio.sleep(_WARM_UP_SECONDS)
    engine = served.engine_pid
    assert engine is not None, "it runs"
    began, processes = time.perf_counter(), (served.pid, engine, os.getpid())
    before = [cpu_seconds(pid) for pid in processes]
    watch.is_on = True
    await asyncio.sleep(options.seconds)
    watch.is_on = False
    took = time.perf_counter() - began
    cores = [(cpu_seconds(p) - b) / took for p, b in zip(processes, before, strict=True)]
    transport.close()
    streams = watch.streams.values()
    if len(streams) != options.streams:
        raise RuntimeError(f"only {len(streams)} of {options.streams} streams got anything")
    tokens = [stream.num_tokens for stream in streams]
    return _Run(
        tokens_per_second=sum(tokens) / took,
        messages_per_second=sum(stream.num_messages for stream in streams) / took,
        front_end_cores=cores[0],
        engine_cores=cores[1],
        client_cores=cores[2],
        longest_gap_ms=max(stream.longest_gap for stream in streams) * 1000,
        slowest_share=min(tokens) * len(tokens) / sum(tokens),
    )


async def _run(options: argparse.Namespace) -> None:
    runs: list[_Run] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_model(folder / "model", max_positions=32_768)
        async with running_process(
            folder,
            model,
            f"--max-batch={options.streams}",
            "--log-level=warning",
            synthetic=True,
            environ={"SYNTHETIC_TOKENS_PER_SECOND": str(options.rate)},
        ) as served:
            for number in range(options.repeats):
                runs.append(await _measured(served, options))
                print(f"{number + 1}/{options.repeats} {runs[-1]}", flush=True)
                await asyncio.sleep(0.5)
    measurements = [
        Measurement(name=name, unit=unit, values=tuple(getattr(run, key) for run in runs))
        for name, unit, key in (
            ("tokens delivered", "tok/s", "tokens_per_second"),
            ("messages", "msg/s", "messages_per_second"),
            ("front end's own CPU", "cores", "front_end_cores"),
            ("synthetic engine's CPU", "cores", "engine_cores"),
            ("client's CPU", "cores", "client_cores"),
            ("longest silence of any stream", "ms", "longest_gap_ms"),
            ("slowest stream's share of the mean", "", "slowest_share"),
        )
    ]
    tokens, cores = measurements[0].median, measurements[2].median
    goals = [
        Goal(name="25,000 tokens/s delivered", ratio=tokens / 25_000, at_least=1.0),
        Goal(name="at most 1.0 core for them", ratio=1.0 / cores, at_least=1.0),
        Goal(name="no stream starved", ratio=measurements[6].median, at_least=0.9),
    ]
    show(measurements, goals)
    settings = {name: value for name, value in vars(options).items() if name != "output"}
    write(options.output, measurements, goals, settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--rate", type=float, default=100.0, help="tokens a second and stream")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measured run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--flush-ms", type=float, help="flush_interval; default: the server's own")
    parser.add_argument("--output", type=Path, default=RESULTS / "front_end_speed.json")
    uvloop.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
