"""Adapters in the table that captured steps read, on a CPU: who has which slot, what lies there."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from ixc_cuda.low_rank import MOST_RANKS
from ixc_runtime.engine_process import cuda_runner
from ixc_runtime.engine_process.adapter_slots import NOBODY, AdapterSlots
from ixc_runtime.engine_process.images import EncodedImages
from ixc_runtime.errors import AdapterInvalid, MemoryLow
from ixc_runtime.model.decoder import LayerPairs, Model
from ixc_runtime.model.kv_arena import KvArena
from ixc_runtime.model.loader import load_model
from ixc_runtime.ops import LowRankPair, UpBlock
from ixc_runtime.ops.cpu import CpuOps
from ixc_runtime.ops.cuda import CudaOps
from ixc_runtime.weights.peft import load_peft_adapter
from tests.fakes.fake_engine import PLAN
from tests.fakes.tiny_checkpoint import TinyModel, write_tiny_checkpoint
from tests.fakes.tiny_peft import TinyAdapter, write_tiny_adapter


class LoadingOps(CudaOps):
    """A GPU's operations as far as a model and its adapters are prepared by them, on a CPU."""

    def __init__(self) -> None:
        self._plain = CpuOps()


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return load_model(write_tiny_checkpoint(tmp_path / "tiny"), ops=LoadingOps())


@pytest.fixture
def adapter(model: Model, tmp_path: Path) -> list[LayerPairs]:
    """Of rank 4, padded."""
    folder = write_tiny_adapter(tmp_path / "mine", TinyAdapter(model=TinyModel()))
    return [
        {name: model.ops.low_rank_pair(pair) for name, pair in of_layer.items()}
        for of_layer in load_peft_adapter(folder, model.config)
    ]


def uneven(adapter: list[LayerPairs]) -> list[LayerPairs]:
    """The same without the zeros that make its ranks a multiple of eight."""

    def cut(pair: LowRankPair) -> LowRankPair:
        block = pair.blocks[0]
        up = block.up[:, :4].contiguous()
        return replace(pair, blocks=(replace(block, up=up), *pair.blocks[1:]))

    return [{name: cut(pair) for name, pair in of_layer.items()} for of_layer in adapter]


def downs(slots: AdapterSlots, slot: int) -> list[int]:
    """The address of each linear's first factor, layer by layer; 0 where it is left alone."""
    numbers = slots.memory[slot].numpy().view(np.uint64).reshape(-1, 8)
    return [int(number) for number in numbers[:, 0]]


def test_the_models_own_adapters_have_slots_from_the_start(model: Model) -> None:
    """All but the images', which no decoded row takes; the base model has none."""
    slots = AdapterSlots(model, num_slots=4)
    assert sorted([slots.slot("web"), slots.slot("write")]) == [0, 1]
    assert slots.slot("base") == NOBODY
    for name in ("web", "write"):
        expected = [linear.pairs[name].down.data_ptr() for linear in model.linears]
        assert downs(slots, slots.slot(name)) == expected


def test_a_users_adapter_comes_and_goes(model: Model, adapter: list[LayerPairs]) -> None:
    """Its slot holds what it changes, then nothing, then whoever comes next."""
    slots = AdapterSlots(model, num_slots=3)
    model.add_adapter("mine", adapter)
    slots.take("mine")
    slot = slots.slot("mine")
    assert downs(slots, slot) == [
        pair.down.data_ptr() if pair else 0
        for pair in (linear.pairs.get("mine") for linear in model.linears)
    ]
    with pytest.raises(MemoryLow, match="3 adapters are loaded"):
        slots.check(adapter)

    model.remove_adapter("mine")
    slots.drop("mine")
    with pytest.raises(KeyError):
        slots.slot("mine")
    assert not any(downs(slots, slot))
    slots.check(adapter)
    model.add_adapter("other", adapter)
    slots.take("other")
    assert slots.slot("other") == slot


def test_an_adapter_that_the_table_refuses(model: Model, adapter: list[LayerPairs]) -> None:
    """It has taken no slot: the next finds the last one free."""
    slots = AdapterSlots(model, num_slots=3)
    model.add_adapter("odd", uneven(adapter))
    with pytest.raises(ValueError, match="not multiples of 8"):
        slots.take("odd")
    model.remove_adapter("odd")
    slots.check(adapter)
    model.add_adapter("mine", adapter)
    slots.take("mine")
    assert any(downs(slots, slots.slot("mine")))


def test_a_runner_takes_an_adapter_whole_or_not_at_all(
    model: Model, adapter: list[LayerPairs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its table refuses is not in the model either, so that the name is free for another."""
    monkeypatch.setattr(cuda_runner, "DecodeGraphs", lambda *given, **named: None)
    runner = cuda_runner.CudaRunner(
        model,
        KvArena(model.config, num_pages=4, page_size=16),
        EncodedImages(None, budget_bytes=0),
        plan=msgspec.structs.replace(PLAN, page_size=16, num_pages=4, max_batch=2),
    )
    own = model.adapters
    with pytest.raises(ValueError, match="not multiples of 8"):
        runner.take_adapter("mine", uneven(adapter))
    assert model.adapters == own
    assert not any("mine" in linear.pairs for linear in model.linears)
    runner.take_adapter("mine", adapter)
    assert model.adapters == {*own, "mine"}
    runner.drop_adapter("mine")
    assert model.adapters == own


def test_an_adapter_of_too_many_ranks(model: Model) -> None:
    """Refused before anything is changed, with the numbers."""
    slots = AdapterSlots(model, num_slots=3)
    ranks = MOST_RANKS + 8
    pair = LowRankPair(
        down=torch.zeros(ranks, 64),
        blocks=(UpBlock(up=torch.zeros(64, ranks), first_rank=0, first_output=0),),
    )
    with pytest.raises(AdapterInvalid, match=f"{ranks} ranks .* at most {MOST_RANKS}"):
        slots.check([{}, {"wo": pair}])
