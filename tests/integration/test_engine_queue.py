"""A place in the batch: who is refused at once because it would come too late."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from ixc_runtime import (
    Accepted,
    Engine,
    EngineConfig,
    GenerationRequest,
    SamplingParams,
    TokenPrompt,
    errors,
)
from tests.fakes.server_process import write_model

LONG = SamplingParams(temperature=0.0, max_output_tokens=900, ignore_eos=True)


def ask(**options: object) -> GenerationRequest:
    prompt = TokenPrompt(token_ids=(5, 6, 7))
    return GenerationRequest(prompt=prompt, sampling=LONG, **options)  # type: ignore[arg-type]


@pytest_asyncio.fixture
async def busy(tmp_path: Path) -> AsyncIterator[Engine]:
    """One place, and it has been held for a while."""
    model = write_model(tmp_path / "model")
    engine = await Engine.start(EngineConfig(model=str(model), max_batch=1, threads=1))
    holder = aiter(engine.generate(ask()))
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() < began + 0.3:
        await anext(holder)
    yield engine
    await holder.aclose()  # type: ignore[attr-defined]
    await engine.close()


@pytest.mark.parametrize("bound", ["queue_timeout_seconds", "start_within_seconds"])
async def test_a_wait_beyond_what_the_request_allows(busy: Engine, bound: str) -> None:
    """QueueFull now, with the estimate and when to come again, not a timeout later."""
    with pytest.raises(errors.QueueFull, match=r"the request allows 0\.1 s") as caught:
        await anext(aiter(busy.generate(ask(**{bound: 0.1}))))
    assert float(caught.value.metadata["wait_seconds"]) >= 0.2
    assert (caught.value.retry_after_seconds or 0.0) > 0.1


async def test_a_wait_within_it(busy: Engine) -> None:
    """It is taken in, and told its place."""
    waiting = aiter(busy.generate(ask(queue_timeout_seconds=600.0, start_within_seconds=500.0)))
    accepted = await anext(waiting)
    assert isinstance(accepted, Accepted)
    assert accepted.queue_position == 1
    await waiting.aclose()  # type: ignore[attr-defined]
