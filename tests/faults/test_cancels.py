"""Cancels at any moment of a request's life: every page comes back, soon and exactly."""

import asyncio
import contextlib
import io
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest_asyncio
from PIL import Image

from ixc.v1.content_pb2 import Content, ContentList, ImagePart, Part, Prompt, Role
from ixc.v1.generation_service_pb2 import CancelGenerationRequest, GenerateRequest
from ixc.v1.sampling_pb2 import SamplingParams
from ixc_runtime import Engine, EngineConfig
from ixc_service.run import Run
from tests.fakes.running_server import Served, events_of, generate_request, running_server

NUM_CANCELS = 500
P99_SECONDS = 0.25
AT_ONCE = 3
STAGES = ("queue", "media", "vision", "prefill", "decode")
LONG = SamplingParams(max_output_tokens=900, ignore_eos=True)


@pytest_asyncio.fixture
async def engine(tiny_model: Path) -> AsyncIterator[Engine]:
    """Small steps, so that each stage lasts several: a tile, or 64 tokens of a prompt, at a time.

    Four places in the batch, of which the tests hold as many as their stage needs.
    """
    config = EngineConfig(
        model=str(tiny_model), max_batch=4, max_step_tokens=64, tiles_per_step=1, threads=1
    )
    engine = await Engine.start(config)
    yield engine
    await engine.close()


@dataclass
class Canceller:
    """Begins requests and cancels them; remembers how long each took to be gone."""

    served: Served
    rng: random.Random
    seconds: list[float] = field(default_factory=list)
    hits: Counter[str] = field(default_factory=Counter)
    num_begun: int = 0

    async def cancel_in(self, stage: str) -> None:
        self.num_begun += 1
        request = self._request(stage)
        call = self.served.generations.Generate(request)
        if stage == "media":  # before it has a name: only leaving can stop it
            async with asyncio.timeout(10):
                while (run := self._run(request.request_id)) is None:  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0)
            await asyncio.sleep(self.rng.uniform(0.0, 0.01))
        else:
            name = (await call.read()).event.accepted.generation
            if stage == "decode":
                for _ in range(self.rng.randrange(1, 12)):
                    await call.read()
            await asyncio.sleep(self.rng.uniform(0.0, 0.02))
            run = self._run(request.request_id)
            assert run is not None, "it was accepted"
        self.hits[stage] += is_in(stage, run)
        began = time.perf_counter()
        if stage == "media" or self.rng.random() < 0.5:
            call.cancel()
        else:
            await self.served.generations.CancelGeneration(CancelGenerationRequest(name=name))
        await self.served.server.generations.ended(run)
        self.seconds.append(time.perf_counter() - began)

    def _request(self, stage: str) -> GenerateRequest:
        own = f"request-{self.num_begun}"
        if stage in {"media", "vision"}:
            parts = [Part(image=ImagePart(inline_data=self._picture(), hd_num=9)), Part(text=own)]
            content = Content(role=Role.ROLE_USER, parts=parts)
            prompt = Prompt(contents=ContentList(contents=[content]))
            return GenerateRequest(prompt=prompt, sampling=LONG, request_id=own)
        text = " ".join(str(self.rng.randrange(10**6)) for _ in range(100))  # never cached
        prompt_text = text if stage == "prefill" else own
        return generate_request(prompt_text, sampling=LONG, request_id=own)

    def _picture(self) -> bytes:
        """Noise, so that no two are alike and each takes a while to decode."""
        pixels = np.random.default_rng(self.num_begun).integers(0, 256, (300, 300, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()

    def _run(self, request_id: str) -> Run | None:
        runs = self.served.server.generations.newest_first("local")
        return next((run for run in runs if run.spec.request_id == request_id), None)


def is_in(stage: str, run: Run) -> bool:
    """Whether the run is where it was to be cancelled, as far as its events tell."""
    if stage == "media":
        return run.accepted is None
    if stage == "decode":
        return run.num_output_tokens > 0 and not run.is_over
    return run.accepted is not None and run.processed is None


async def test_cancels_at_every_stage_give_everything_back(engine: Engine, tmp_path: Path) -> None:
    """The page count is where it began, p99 of cancel to gone is within a quarter of a second."""
    before = await engine.fresh_load()
    async with running_server(tmp_path, engine, max_detached_generations=1) as served:
        canceller = Canceller(served, random.Random(3))
        for stage in STAGES:
            if stage == "queue":
                async with full_batch(served, engine):
                    await in_turns(canceller, stage, NUM_CANCELS // len(STAGES))
            else:
                await in_turns(canceller, stage, NUM_CANCELS // len(STAGES))
        load = await engine.fresh_load()
        violations = await engine.check_integrity()
    slowest = sorted(canceller.seconds)
    p99 = slowest[min(len(slowest) - 1, round(0.99 * len(slowest)))]
    print(f"\n{len(slowest)} cancels, p99 {p99 * 1000:.1f} ms, in stage: {dict(canceller.hits)}")
    assert (load.pages_used, load.running, load.waiting) == (before.pages_used, 0, 0)
    assert violations == []
    assert all(canceller.hits[stage] >= NUM_CANCELS // 20 for stage in STAGES)
    assert p99 <= P99_SECONDS


async def in_turns(canceller: Canceller, stage: str, count: int) -> None:
    async def worker() -> None:
        for _ in range(count // AT_ONCE):
            await canceller.cancel_in(stage)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    for _ in range(count % AT_ONCE):
        await canceller.cancel_in(stage)


@contextlib.asynccontextmanager
async def full_batch(served: Served, engine: Engine) -> AsyncIterator[None]:
    """Every place in the batch is taken meanwhile, so that what comes has to wait."""

    async def hold(number: int) -> None:
        while True:
            request = generate_request(f"holder {number}", sampling=LONG)
            await events_of(served.generations.Generate(request))

    holders = [asyncio.create_task(hold(number)) for number in range(engine.plan.max_batch)]
    async with asyncio.timeout(30):
        while engine.load.running < engine.plan.max_batch:  # noqa: ASYNC110 - frames tell it
            await asyncio.sleep(0.01)
    yield
    for holder in holders:
        holder.cancel()
    await asyncio.gather(*holders, return_exceptions=True)
    async with asyncio.timeout(30):
        while engine.load.running:  # noqa: ASYNC110 - frames tell it
            await asyncio.sleep(0.01)
