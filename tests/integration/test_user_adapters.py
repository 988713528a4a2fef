"""Users' adapters in a running engine: as if merged, side by side, and gone without a trace."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from ixc_runtime import (
    Accepted,
    Completed,
    Engine,
    EngineConfig,
    FinishReason,
    GenerationRequest,
    OutputOptions,
    PromptProcessed,
    SamplingParams,
    TextDelta,
    TokenPrompt,
    errors,
)
from tests.fakes.tiny_checkpoint import TinyModel, write_tiny_checkpoint
from tests.fakes.tiny_peft import TinyAdapter, write_merged_checkpoint, write_tiny_adapter
from tests.fakes.tiny_tokenizer import write_tokenizer_model

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = TinyModel(vocab=1000, max_positions=1024)
CATS = TinyAdapter(model=MODEL, seed=1)
DOGS = TinyAdapter(model=MODEL, seed=2, rank=2, linears=("feed_forward.w3", "attention.wo"))
PROMPT = tuple(range(5, 45))
PAGE = 16
SECONDS = 30.0


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base, merged: checkpoints; cats, dogs: adapters."""
    root = tmp_path_factory.mktemp("adapters")
    write_merged_checkpoint(root / "merged", CATS)
    write_tiny_checkpoint(root / "base", MODEL)
    for name in ("base", "merged"):
        write_tokenizer_model(root / name, vocab_size=1000)
    write_tiny_adapter(root / "cats", CATS)
    write_tiny_adapter(root / "dogs", DOGS)
    return root


async def started(folder: Path) -> Engine:
    return await Engine.start(EngineConfig(model=str(folder), max_batch=4, threads=1))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(folders: Path) -> AsyncIterator[Engine]:
    engine = await started(folders / "base")
    yield engine
    await engine.close()


@pytest_asyncio.fixture(loop_scope="module")
async def engine(shared: Engine) -> AsyncIterator[Engine]:
    """Without any adapter of a user's, before and after."""
    yield shared
    for adapter in shared.info.user_adapters:
        shared.unload_adapter(adapter.name, seconds=SECONDS)
    assert await shared.check_integrity() == []


@dataclass(kw_only=True)
class Heard:
    ids: list[int]
    logprobs: list[float]
    cached_tokens: int
    completed: Completed


def request(adapter: str = "base", *, max_output_tokens: int = 12) -> GenerationRequest:
    return GenerationRequest(
        prompt=TokenPrompt(token_ids=PROMPT),
        adapter=adapter,
        sampling=SamplingParams(
            temperature=0.0, max_output_tokens=max_output_tokens, ignore_eos=True
        ),
        output=OutputOptions(top_logprobs=0),
    )


async def answer(engine: Engine, adapter: str = "base", **options: int) -> Heard:
    ids: list[int] = []
    logprobs: list[float] = []
    cached = 0
    async with asyncio.timeout(60):
        async for update in engine.generate(request(adapter, **options)):
            match update:
                case PromptProcessed():
                    cached = update.cached_tokens
                case TextDelta():
                    ids += update.token_ids
                    logprobs += [each.logprob for each in update.logprobs]
                case Completed():
                    return Heard(ids=ids, logprobs=logprobs, cached_tokens=cached, completed=update)
    raise AssertionError("every answer ends with Completed")


async def test_an_adapter_beside_the_weights_is_as_one_merged_into_them(
    engine: Engine, folders: Path
) -> None:
    """The same ids, and log-probabilities equal to float32's rounding; without it, others."""
    merged = await started(folders / "merged")
    expected = await answer(merged)
    await merged.close()
    adapter = await engine.load_adapter("cats", folders / "cats")
    assert (adapter.name, adapter.rank) == ("cats", CATS.rank)
    assert engine.info.adapters == ("base", "web", "write", "cats")

    found = await answer(engine, "cats")

    assert found.ids == expected.ids
    assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    assert (await answer(engine)).ids != expected.ids


async def test_base_tasks_and_users_in_one_batch(engine: Engine, folders: Path) -> None:
    """Each answers as it does alone, whoever is computed beside it."""
    await engine.load_adapter("cats", folders / "cats")
    await engine.load_adapter("dogs", folders / "dogs")
    names = ["base", "web", "cats", "dogs"]
    alone = [(await answer(engine, name)).ids for name in names]
    assert len({tuple(ids) for ids in alone}) == len(names)

    together = await asyncio.gather(*(answer(engine, name) for name in names))

    assert [each.ids for each in together] == alone


async def test_a_name_that_comes_back_with_other_weights(engine: Engine, tmp_path: Path) -> None:
    """Nothing that the first weights computed is used for the second; the same ones find theirs."""
    one = write_tiny_adapter(tmp_path / "one", replace(CATS, seed=11))
    two = write_tiny_adapter(tmp_path / "two", replace(CATS, seed=12))
    await engine.load_adapter("pets", one)
    first = await answer(engine, "pets")
    again = await answer(engine, "pets")
    assert again.cached_tokens >= len(PROMPT) // PAGE * PAGE
    engine.unload_adapter("pets", seconds=SECONDS)
    assert "pets" not in engine.info.adapters
    with pytest.raises(errors.AdapterUnavailable):
        await answer(engine, "pets")

    await engine.load_adapter("pets", two)

    second = await answer(engine, "pets")
    assert second.cached_tokens == 0
    assert second.ids != first.ids
    await engine.load_adapter("others", one)
    cached = await answer(engine, "others")
    assert (cached.ids, cached.cached_tokens > 0) == (first.ids, True)


async def test_the_same_twice_is_once(engine: Engine, folders: Path) -> None:
    """Loading what is there is no error; other weights under a taken name are one."""
    first = await engine.load_adapter("cats", folders / "cats")
    assert await engine.load_adapter("cats", folders / "cats") == first
    with pytest.raises(errors.AdapterIdTaken):
        await engine.load_adapter("cats", folders / "dogs")
    assert [each.name for each in engine.info.user_adapters] == ["cats"]


@pytest.mark.parametrize("name", ["base", "web", "write"])
async def test_a_name_of_the_models_own(engine: Engine, folders: Path, name: str) -> None:
    """It can be neither taken nor taken away."""
    with pytest.raises(errors.FieldInvalid, match="model's own"):
        await engine.load_adapter(name, folders / "cats")
    with pytest.raises(errors.FieldInvalid, match="model's own"):
        engine.unload_adapter(name, seconds=0.0)


async def test_an_adapter_that_is_not_there(engine: Engine) -> None:
    """Unloading it says so."""
    with pytest.raises(errors.AdapterUnavailable):
        engine.unload_adapter("nobody", seconds=0.0)


async def test_a_broken_adapter(engine: Engine, folders: Path, tmp_path: Path) -> None:
    """Refused with the reason; the engine's process goes on, and nothing of it is there."""
    before = engine.process_id
    weights = (folders / "cats" / "adapter_model.safetensors").read_bytes()
    for content, word in ((weights[:-7], "bytes"), (b"\xff" * 64, "header"), (b"", "header")):
        broken = write_tiny_adapter(tmp_path / "broken", CATS)
        (broken / "adapter_model.safetensors").write_bytes(content)
        with pytest.raises(errors.CheckpointInvalid, match=word):
            await engine.load_adapter("broken", broken)
    other = TinyAdapter(model=replace(MODEL, hidden=32))
    with pytest.raises(errors.AdapterInvalid, match="attention"):
        await engine.load_adapter("broken", write_tiny_adapter(tmp_path / "other", other))
    with pytest.raises(errors.CheckpointMissing):
        await engine.load_adapter("broken", tmp_path / "nowhere")

    assert engine.process_id == before
    assert engine.info.user_adapters == ()
    assert (await answer(engine)).ids


async def test_unloaded_while_it_answers(engine: Engine, folders: Path) -> None:
    """Who has begun with it ends as if nothing had happened; nobody else may begin."""
    await engine.load_adapter("cats", folders / "cats")
    expected = await answer(engine, "cats", max_output_tokens=100)
    generation = engine.generate(request("cats", max_output_tokens=100))
    ids: list[int] = []
    async for update in generation:
        if isinstance(update, PromptProcessed):
            engine.unload_adapter("cats", seconds=SECONDS)
            with pytest.raises(errors.AdapterUnavailable):
                await answer(engine, "cats")
        if isinstance(update, TextDelta):
            ids += update.token_ids
    assert ids == expected.ids


async def test_unloaded_without_patience(engine: Engine, folders: Path) -> None:
    """Whoever is still there fails, and says why; neighbours go on."""
    await engine.load_adapter("cats", folders / "cats")
    neighbour = asyncio.create_task(answer(engine, max_output_tokens=200))
    with pytest.raises(errors.AdapterUnavailable, match="unloaded"):
        async for update in engine.generate(request("cats", max_output_tokens=900)):
            if isinstance(update, Accepted):
                engine.unload_adapter("cats", seconds=0.0)
    heard = await neighbour
    assert heard.completed.finish_reason is FinishReason.MAX_TOKENS


async def killed(engine: Engine) -> None:
    """As by the kernel's hand; returns once another is up."""
    assert engine.process_id is not None
    back = asyncio.Event()
    engine.on_change(lambda is_alive: is_alive and back.set())
    os.kill(engine.process_id, signal.SIGKILL)
    await asyncio.wait_for(back.wait(), 60)


async def test_a_new_engine_process_has_what_the_old_one_had(folders: Path, tmp_path: Path) -> None:
    """Adapters are read again; one whose files have changed or gone is left out, not guessed."""
    engine = await started(folders / "base")
    changing = write_tiny_adapter(tmp_path / "changing", DOGS)
    await engine.load_adapter("cats", folders / "cats")
    await engine.load_adapter("changing", changing)
    await engine.load_adapter("leaving", folders / "dogs")
    engine.unload_adapter("leaving", seconds=SECONDS)
    expected = await answer(engine, "cats")
    write_tiny_adapter(changing, CATS)

    await killed(engine)

    assert engine.info.adapters == ("base", "web", "write", "cats")
    assert (await answer(engine, "cats")).ids == expected.ids
    await killed(engine)
    assert engine.info.adapters == ("base", "web", "write", "cats")
    await engine.close()
