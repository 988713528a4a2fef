"""The memory plan on a GPU: what it says is taken at start, and steps take nothing beside it."""

import asyncio
import gc
from pathlib import Path

import msgspec
import pytest
import torch

from ixc_runtime.engine_process.link import open_link
from ixc_runtime.engine_process.messages import (
    AdapterSource,
    EngineConfig,
    Loading,
    LoadingStage,
)
from ixc_runtime.engine_process.process import build_engine
from ixc_runtime.engine_process.user_adapters import read_adapter
from ixc_runtime.errors import MemoryLow
from ixc_runtime.model_info import MemoryPlan
from tests.fakes.engine_driver import EngineDriver, Picture
from tests.fakes.tiny_checkpoint import TinyModel, write_tiny_checkpoint
from tests.fakes.tiny_peft import TinyAdapter, write_tiny_adapter
from tests.fakes.tiny_tokenizer import write_tokenizer_model

MODEL = TinyModel(hidden=1024, heads=8, kv_heads=2, intermediate=1536, vocab=1000, dtype="bfloat16")
MIB = 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model, and adapters small and large."""
    root = tmp_path_factory.mktemp("memory")
    write_tiny_checkpoint(root / "model", MODEL)
    write_tokenizer_model(root / "model", vocab_size=1000)
    for name, rank in (("small", 8), ("large", 512)):
        write_tiny_adapter(root / name, TinyAdapter(model=MODEL, rank=rank))
    return root


def config_of(folder: Path, **options: int) -> EngineConfig:
    return EngineConfig(
        model=str(folder / "model"), device="cuda", max_batch=16, adapter_bytes=8 * MIB, **options
    )


def test_what_is_planned_is_taken_and_no_more(folder: Path) -> None:
    """So that whoever asks the device for room beside this engine is told the truth."""
    gc.collect()  # what other tests have left
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0]
    core, _ = build_engine(config_of(folder, kv_bytes=64 * MIB))
    taken = free - torch.cuda.mem_get_info()[0]
    reserved = torch.cuda.memory_reserved()
    retries = torch.cuda.memory_stats()["num_alloc_retries"]
    driver = EngineDriver(core)
    for index in range(32):
        prompt = [1, Picture(seed=index, wide=2, high=2), *(7 + i % 900 for i in range(300))]
        driver.submit(f"{index}", prompt, adapter="web" if index % 2 else "base", top_logprobs=5)
    driver.run()

    assert core.plan.total_bytes - 1100 * MIB < taken < core.plan.total_bytes + 600 * MIB
    assert torch.cuda.memory_reserved() <= reserved + 64 * MIB
    assert torch.cuda.memory_stats()["num_alloc_retries"] == retries


def test_an_adapter_beyond_the_part_that_is_for_them(folder: Path) -> None:
    """It is refused with the figures, none of it is put on the device, and the engine goes on."""
    core, _ = build_engine(config_of(folder, kv_bytes=64 * MIB))
    allocated = torch.cuda.memory_allocated()
    with pytest.raises(MemoryLow, match=r"free of the 8\.0 MiB of cuda") as caught:
        read_adapter(
            AdapterSource(name="large", folder=str(folder / "large")), core.model, core.adapter_room
        )
    assert caught.value.metadata["limit"] == str(8 * MIB)
    assert torch.cuda.memory_allocated() <= allocated
    small = AdapterSource(name="small", folder=str(folder / "small"))
    core.add_adapter(read_adapter(small, core.model, core.adapter_room))
    assert len(EngineDriver(core).ids("one", [1, 5, 9], adapter="small", max_output=8)) == 8


def test_a_second_engine_that_does_not_fit_beside_the_first(folder: Path) -> None:
    """By what is free of the card then, before it has loaded anything; both are processes."""

    async def start_two() -> MemoryLow:
        first, _ = await open_link(config_of(folder), in_process=False, on_loading=_heedless)
        loading: list[Loading] = []
        try:
            with pytest.raises(MemoryLow, match="are free") as caught:
                await open_link(config_of(folder), in_process=False, on_loading=loading.append)
        finally:
            await first.close()
        assert {each.stage for each in loading} == {LoadingStage.KERNELS}
        return caught.value

    figures = asyncio.run(start_two()).metadata
    assert int(figures["free"]) < int(figures["required"])


def test_an_engine_that_starts_again_has_what_the_first_one_had(folder: Path) -> None:
    """The first took all that was left of the card; the second is told to have just as much, and
    finds it, pages, room for adapters and all.
    """

    async def start_twice() -> tuple[MemoryPlan, MemoryPlan]:
        config = config_of(folder)
        first, ready = await open_link(config, in_process=False, on_loading=_heedless)
        first.kill()
        await first.close()
        again = msgspec.structs.replace(
            config, kv_bytes=ready.plan.kv_bytes, adapter_bytes=ready.plan.adapter_room_bytes
        )
        second, ready_again = await open_link(again, in_process=False, on_loading=_heedless)
        await second.close()
        return ready.plan, ready_again.plan

    first, second = asyncio.run(start_twice())
    assert (second.kv_bytes, second.num_pages) == (first.kv_bytes, first.num_pages)
    assert second.adapter_room_bytes == first.adapter_room_bytes


def _heedless(_: Loading) -> None:
    pass
