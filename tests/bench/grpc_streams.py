"""Many concurrent streams through a real server, by a client that costs next to nothing.

The server is the product's own processes; the client parses HTTP/2 frames and counts tokens.
"""

import asyncio
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import uvloop

from ixc.v1.content_pb2 import Prompt, TokenPrompt
from ixc.v1.generation_service_pb2 import GenerateRequest, GenerateResponse
from ixc.v1.sampling_pb2 import SamplingParams
from ixc_runtime.config import load_config
from tests.fakes.http2_reader import Http2Reader
from tests.fakes.server_process import running_process

_GENERATE = "/ixc.v1.GenerationService/Generate"
_LOADING_SECONDS = 300.0
_ROUND_SECONDS = 180.0


@dataclass(slots=True, kw_only=True)
class _Count:
    """Tokens from the moment when every stream has had one, until `wanted` have come."""

    streams: int
    wanted: int
    begun: set[int] = field(default_factory=set)
    first_at: float = 0.0
    last_at: float = 0.0
    tokens: int = 0
    problem: str = ""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, stream: int, message: bytes) -> None:
        event = GenerateResponse.FromString(message).event
        if event.WhichOneof("event") == "failed":
            self.problem = event.failed.status.message
            self.over.set()
        if not event.HasField("delta") or self.over.is_set():
            return
        if len(self.begun) < self.streams:
            self.begun.add(stream)
            self.first_at = time.perf_counter()
            return
        # Whole deltas arrive: the first's tokens came about before the clock started, the last's
        # not after it stopped.
        self.last_at = time.perf_counter()
        self.tokens += event.delta.token_count
        if self.tokens >= self.wanted:
            self.over.set()


def streamed_tokens_per_second(
    model: Path,
    *,
    device: str,
    dtype: str | None,
    streams: int,
    prompt_tokens: int,
    output_tokens: int,
    greedy: bool,
    repeats: int,
) -> list[float]:
    """Of all streams together, while all of them generate."""
    flags = [f"--device={device}", f"--max-batch={streams}", "--log-level=warning"]
    if dtype:
        flags.append(f"--dtype={dtype}")
    vocab = load_config(model).vocab_size

    async def measured() -> list[float]:
        rates = []
        with tempfile.TemporaryDirectory() as name:
            async with running_process(Path(name), model, *flags) as served:
                await served.ready(_LOADING_SECONDS)
                path = served.address.removeprefix("unix:")
                for number in range(repeats + 1):
                    prompts = _prompts(number, streams, prompt_tokens, vocab)
                    rates.append(await _round(path, prompts, output_tokens, greedy=greedy))
        return rates[1:]

    return uvloop.run(measured())


def _prompts(number: int, streams: int, tokens: int, vocab: int) -> list[list[int]]:
    generator = np.random.default_rng(number)
    prompts: list[list[int]] = generator.integers(
        min(300, vocab // 2), vocab, (streams, tokens)
    ).tolist()
    return prompts


async def _round(path: str, prompts: list[list[int]], tokens: int, *, greedy: bool) -> float:
    count = _Count(streams=len(prompts), wanted=tokens * len(prompts))
    loop = asyncio.get_running_loop()
    transport, reader = await loop.create_unix_connection(lambda: Http2Reader(count.take), path)
    for prompt in prompts:
        request = GenerateRequest(
            prompt=Prompt(tokens=TokenPrompt(token_ids=prompt)),
            # Long enough that none has ended when enough have come.
            sampling=SamplingParams(max_output_tokens=8 * tokens + 256, ignore_eos=True),
        )
        if greedy:
            request.sampling.temperature = 0.0
        reader.ask(_GENERATE, request.SerializeToString())
    async with asyncio.timeout(_ROUND_SECONDS):
        await count.over.wait()
    transport.close()
    if count.problem:
        raise RuntimeError(f"a stream failed: {count.problem}")
    return count.tokens / (count.last_at - count.first_at)
