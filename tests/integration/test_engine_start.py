"""The start of an engine: how far it is, what it begins with, and what is left of a broken one."""

import asyncio
import os
from pathlib import Path

import pytest

from ixc_runtime import Engine, EngineConfig, Loading, LoadingStage, errors
from ixc_runtime.engine_process.messages import AdapterSource
from tests.fakes.server_process import all_gone, command_line, descendants, write_model
from tests.fakes.tiny_checkpoint import TinyModel
from tests.fakes.tiny_peft import TinyAdapter, write_tiny_adapter

STRIPES = TinyAdapter(model=TinyModel(vocab=1000, max_positions=1024))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def engines() -> list[int]:
    """The engine processes below this one."""
    return [pid for pid in descendants(os.getpid()) if "engine_process" in command_line(pid)]


async def test_a_start_tells_how_far_it_is(folder: Path) -> None:
    """Every stage in order; of the weights how many bytes are read, up to all of them."""
    heard: list[Loading] = []
    engine = await Engine.start(EngineConfig(model=str(folder), threads=1), on_loading=heard.append)
    assert list(dict.fromkeys(each.stage for each in heard)) == list(LoadingStage)
    read = [(each.done, each.total) for each in heard if each.stage is LoadingStage.WEIGHTS]
    assert read == sorted(read)
    assert read[-1][0] == read[-1][1] > 0
    assert len(read) <= 101
    await engine.close()


async def test_a_start_that_is_broken_off(folder: Path) -> None:
    """At whatever stage: its process is gone when the cancel is through."""
    reached = asyncio.Event()
    starting = asyncio.create_task(
        Engine.start(EngineConfig(model=str(folder), threads=1), on_loading=lambda _: reached.set())
    )
    await reached.wait()
    begun = engines()
    assert begun
    starting.cancel()
    await asyncio.wait({starting})
    assert starting.cancelled()
    await all_gone(begun, 0.1)


async def test_a_start_with_adapters(folder: Path, tmp_path: Path) -> None:
    """They are there from the first moment; one that cannot be read is a start that cannot be."""
    stripes = AdapterSource(
        name="stripes", folder=str(write_tiny_adapter(tmp_path / "stripes", STRIPES))
    )
    engine = await Engine.start(EngineConfig(model=str(folder), threads=1, adapters=(stripes,)))
    assert engine.info.adapters == ("base", "web", "write", "stripes")
    await engine.close()
    (tmp_path / "stripes" / "adapter_model.safetensors").unlink()
    with pytest.raises(errors.CheckpointMissing, match="adapter_model"):
        await Engine.start(EngineConfig(model=str(folder), threads=1, adapters=(stripes,)))
