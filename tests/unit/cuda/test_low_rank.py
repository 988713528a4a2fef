"""What the low-rank kernels read: rows grouped by slot, adapters' addresses by slot and linear."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ixc_cuda import low_rank
from ixc_cuda.low_rank import (
    MOST_RANKS,
    LowRankTable,
    RowGroups,
    group_rows,
)
from ixc_runtime.ops import LowRankPair, UpBlock
from ixc_runtime.ops.cuda import aligned

CPU = torch.device("cpu")


def adapter(k: int, n: int, *ranks: int) -> LowRankPair:
    """Of `n` outputs in as many blocks as there are ranks, the last of what is left over."""
    size, blocks = n // len(ranks), []
    for index, rank in enumerate(ranks):
        outputs = size if index + 1 < len(ranks) else n - index * size
        up = torch.randn(outputs, rank).to(torch.float16)
        block = UpBlock(up=up, first_rank=sum(ranks[:index]), first_output=index * size)
        blocks.append(block)
    down = torch.randn(sum(ranks), k).to(torch.float16)
    return LowRankPair(down=down, blocks=tuple(blocks))


def product(adapter: LowRankPair, x: torch.Tensor, n: int) -> torch.Tensor:
    inner, y = adapter.down.double() @ x, torch.zeros(n, dtype=torch.float64)
    for block in adapter.blocks:
        part = block.up.double() @ inner[block.first_rank :][: block.up.shape[1]]
        y[block.first_output :][: len(part)] += part
    return y


@given(st.lists(st.integers(-1, 5), min_size=1, max_size=40))
def test_every_row_is_in_its_slots_group_and_in_no_other(slots: list[int]) -> None:
    """In order; groups that rows ask for come first, and there are no more of them than rows."""
    memory = np.full(RowGroups.words(len(slots), num_slots=6), -7, np.int32)
    group_rows(slots, memory, num_slots=6)
    groups = RowGroups(torch.from_numpy(memory), num_slots=6)

    found = {}
    for slot, first, count in groups.groups.view(-1, 3)[: len(slots)].tolist():
        if count:
            found[slot] = groups.order[first : first + count].tolist()
    assert found == {
        slot: [row for row, each in enumerate(slots) if each == slot]
        for slot in set(slots)
        if slot >= 0
    }
    assert int((groups.groups.view(-1, 3)[:, 2] > 0).sum()) == len(found)


@settings(deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=2))
def test_ranks_of_any_number_are_padded_to_eights(ranks: list[int]) -> None:
    """And mean the same; those that fit are left as they are."""
    given = adapter(16, 24, *ranks)
    padded = aligned(given)

    assert all(block.first_rank % 8 == block.up.shape[1] % 8 == 0 for block in padded.blocks)
    assert (padded is given) == all(rank % 8 == 0 for rank in ranks)
    x = torch.randn(16, dtype=torch.float64)
    torch.testing.assert_close(product(padded, x, 24), product(given, x, 24))


def test_a_slot_holds_each_linears_addresses_until_it_is_emptied() -> None:
    """Linears that an adapter leaves alone have no ranks; the other slots are not touched."""
    table = LowRankTable([(16, 24), (32, 8)], num_slots=3, dtype=torch.float16, device=CPU)
    own = adapter(16, 24, 8, 16)
    table.put(1, [own, None])
    slots = table.memory.numpy().view(np.int32).reshape(3, 2, 16)

    address = slots[1, 0, :2].view(np.uint64)[0]
    assert address == own.down.data_ptr()
    assert slots[1, 0, 2:4].tolist() == [24, 2]
    blocks = slots[1, 0, 4:].reshape(2, 6)
    assert blocks[:, 2:].tolist() == [[0, 8, 0, 12], [8, 16, 12, 12]]
    assert [int(block[:2].view(np.uint64)[0]) for block in blocks] == [
        block.up.data_ptr() for block in own.blocks
    ]
    assert not slots[1, 1].any()
    assert not slots[[0, 2]].any()
    table.put(1, [None, None])
    assert not slots.any()


@pytest.mark.parametrize(
    "wrong",
    [
        adapter(16, 24, MOST_RANKS + 8),
        adapter(24, 24, 8),
        adapter(16, 32, 8),
        adapter(16, 24, 4),
        adapter(16, 24, 8, 8, 8),
    ],
    ids=["too many ranks", "longer rows", "more outputs", "ranks of four", "three blocks"],
)
def test_an_adapter_that_does_not_fit_is_refused(wrong: LowRankPair) -> None:
    """On the GPU it would be somebody else's memory."""
    table = LowRankTable([(16, 24)], num_slots=1, dtype=torch.float16, device=CPU)
    with pytest.raises(ValueError, match=r"ranks|expected"):
        table.put(0, [wrong])
    assert not table.memory.any()


def test_the_tiles_are_those_of_the_kernels() -> None:
    """The launcher gives them their shared memory, and the sums stand where the ring was."""
    source = (Path(low_rank.__file__).parent / "kernels" / "low_rank.cu").read_text()
    found = re.findall(r"RowTiles<T, (\d+), (\d+), (\d+), (\d+), (\d+), (\d+)>", source)
    tiles = {columns: (tile, chunk, stages) for tile, columns, chunk, stages, *_ in found}
    for rows in (1, 32, 33, 256):
        config = low_rank.configure(rows)
        expected = (config.tile, config.chunk, config.stages)
        assert tuple(map(int, tiles[str(config.columns)])) == expected
        assert config.shared_bytes * config.blocks_a_multiprocessor <= 227 << 10
