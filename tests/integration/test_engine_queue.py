"""A place in the batch: who is refused at once because it would come too late."""

import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from ixc_runtime import (
    Accepted,
    Engine,
    EngineConfig,
    EngineLoad,
    GenerationRequest,
    SamplingParams,
    TokenPrompt,
    errors,
)
from ixc_runtime.engine_process.messages import Frame, Started
from tests.fakes.server_process import write_model

LONG = SamplingParams(temperature=0.0, max_output_tokens=900, ignore_eos=True)
HELD_SECONDS = 0.3


def ask(**options: object) -> GenerationRequest:
    prompt = TokenPrompt(token_ids=(5, 6, 7))
    return GenerationRequest(prompt=prompt, sampling=LONG, **options)  # type: ignore[arg-type]


@pytest_asyncio.fixture
async def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    """One place, and it has been held for a while. Its holder cannot end: the engine stands still,
    and that it has begun is said for it.
    """
    model = write_model(tmp_path / "model")
    config = EngineConfig(model=str(model), max_batch=1, threads=1)
    engine = await Engine.start(config, step_timeout_seconds=None)
    assert engine.process_id is not None
    os.kill(engine.process_id, signal.SIGSTOP)
    holder = aiter(engine.generate(ask()))
    await anext(holder)
    (holder_id,) = engine._mailboxes
    started = Started(sequence_id=holder_id, queue_seconds=0.0, cached_tokens=0)
    engine._hear(Frame([started], EngineLoad(running=1)))
    monkeypatch.setattr(engine._places, "_now", lambda: time.monotonic() + HELD_SECONDS)
    yield engine
    os.kill(engine.process_id, signal.SIGCONT)
    await holder.aclose()  # type: ignore[attr-defined]
    await engine.close()


@pytest.mark.parametrize("bound", ["queue_timeout_seconds", "start_within_seconds"])
async def test_a_wait_beyond_what_the_request_allows(busy: Engine, bound: str) -> None:
    """QueueFull now, with the estimate and when to come again, not a timeout later."""
    with pytest.raises(errors.QueueFull, match=r"the request allows 0\.1 s") as caught:
        await anext(aiter(busy.generate(ask(**{bound: 0.1}))))
    assert float(caught.value.metadata["wait_seconds"]) >= HELD_SECONDS
    assert (caught.value.retry_after_seconds or 0.0) > 0.1


async def test_a_wait_within_it(busy: Engine) -> None:
    """It is taken in, and told its place."""
    waiting = aiter(busy.generate(ask(queue_timeout_seconds=600.0, start_within_seconds=500.0)))
    accepted = await anext(waiting)
    assert isinstance(accepted, Accepted)
    assert accepted.queue_position == 1
    await waiting.aclose()  # type: ignore[attr-defined]
