"""Adapters in the table that captured steps read, on a CPU: who has which slot, what lies there."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ixc_cuda.low_rank import MOST_RANKS
from ixc_runtime.engine_process.adapter_slots import NOBODY, AdapterSlots
from ixc_runtime.errors import AdapterInvalid, MemoryLow
from ixc_runtime.model.decoder import LayerPairs, Model
from ixc_runtime.model.loader import load_model
from ixc_runtime.ops import LowRankPair, UpBlock
from ixc_runtime.ops.cpu import CpuOps
from ixc_runtime.ops.cuda import aligned
from ixc_runtime.weights.peft import load_peft_adapter
from tests.fakes.tiny_checkpoint import TinyModel, write_tiny_checkpoint
from tests.fakes.tiny_peft import TinyAdapter, write_tiny_adapter


class AlignedOps(CpuOps):
    """Plain operations over adapters as a GPU holds them."""

    def low_rank_pair(self, pair: LowRankPair) -> LowRankPair:
        return aligned(pair)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return load_model(write_tiny_checkpoint(tmp_path / "tiny"), ops=AlignedOps())


@pytest.fixture
def adapter(model: Model, tmp_path: Path) -> list[LayerPairs]:
    """Of rank 4, padded."""
    folder = write_tiny_adapter(tmp_path / "mine", TinyAdapter(model=TinyModel()))
    return [
        {name: model.ops.low_rank_pair(pair) for name, pair in of_layer.items()}
        for of_layer in load_peft_adapter(folder, model.config)
    ]


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
