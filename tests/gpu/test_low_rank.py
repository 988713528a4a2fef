"""Adapters of a step's rows against float64."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from ixc_cuda.low_rank import (
    MOST_SLOTS,
    LowRankTable,
    RowGroups,
    add_low_rank,
    group_rows,
)
from ixc_runtime.ops import LowRankPair, UpBlock
from ixc_runtime.ops.cuda import aligned

pytestmark = pytest.mark.gpu


def normal(*shape: int, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    return (torch.randn(shape, device="cuda") * scale).to(dtype)


def fused(ranks: int, k: int, outputs: tuple[int, ...], dtype: torch.dtype) -> LowRankPair:
    """An adapter of linears that lie over each other, each with ranks of its own."""
    blocks, first_output = [], 0
    for index, size in enumerate(outputs):
        up = normal(size, ranks, dtype=dtype, scale=ranks**-0.5)
        blocks.append(UpBlock(up=up, first_rank=index * ranks, first_output=first_output))
        first_output += size
    down = normal(len(outputs) * ranks, k, dtype=dtype, scale=k**-0.5)
    return aligned(LowRankPair(down=down, blocks=tuple(blocks)))


def grouped(slots: Sequence[int], *, num_slots: int) -> RowGroups:
    host = np.full(RowGroups.words(len(slots), num_slots=num_slots), -1, np.int32)
    group_rows(slots, host, num_slots=num_slots)
    return RowGroups(torch.from_numpy(host).cuda(), num_slots=num_slots)


def add_reference(
    y: Tensor, x: Tensor, slots: Sequence[int], adapters: dict[int, LowRankPair]
) -> Tensor:
    total = y.double()
    chosen = torch.tensor(slots)
    for slot, adapter in adapters.items():
        rows = (chosen == slot).nonzero()[:, 0].cuda()
        inner = (x[rows].double() @ adapter.down.double().T).to(x.dtype).double()
        for block in adapter.blocks:
            outputs, ranks = block.up.shape
            part = inner[:, block.first_rank : block.first_rank + ranks] @ block.up.double().T
            total[rows, block.first_output : block.first_output + outputs] += part
    return total


def assert_close(y: Tensor, reference: Tensor) -> None:
    allowed = 0.006 * reference.abs() + 0.012 * reference.square().mean().sqrt()
    assert ((y.double() - reference).abs() <= allowed).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 3, 16, 17, 40, 200, 256])
@pytest.mark.parametrize(("k", "n"), [(64, 96), (576, 960), (4096, 6144), (14336, 4096)])
@pytest.mark.parametrize("ranks", [(8, 16, 24), (2, 4, 5), (256, 512, 64)])
def test_each_row_takes_its_own_adapter(
    dtype: torch.dtype, rows: int, k: int, n: int, ranks: tuple[int, ...]
) -> None:
    """Of any rank, for linears fused unevenly; a row that asks for none keeps its bits."""
    torch.manual_seed(rows)
    first = n // 2 + 3
    splits = [(n,), (first, n - first), (n,)]
    adapters = {
        2 * slot: fused(rank, k, split, dtype)
        for slot, (rank, split) in enumerate(zip(ranks, splits, strict=True))
    }
    table = LowRankTable([(8, 8), (k, n)], num_slots=8, dtype=dtype, device=torch.device("cuda"))
    for slot, adapter in adapters.items():
        table.put(slot, [None, adapter])
    x, y = normal(rows, k, dtype=dtype), normal(rows, n, dtype=dtype)
    # Mostly one of them, so that groups of many rows come up too.
    slots = [int(each) for each in np.random.default_rng(rows).choice([-1, 0, 2, 2, 2, 4], rows)]
    before = y.clone()

    add_low_rank(y, x, grouped(slots, num_slots=8), table, 1)

    assert_close(y, add_reference(before, x, slots, adapters))
    alone = torch.tensor(slots, device="cuda") < 0
    assert torch.equal(y[alone], before[alone])


def test_every_row_has_an_adapter_of_its_own() -> None:
    """As many adapters as there are slots and rows; slots that were emptied add nothing."""
    torch.manual_seed(1)
    k, n, dtype = 128, 192, torch.bfloat16
    adapters = {slot: fused(8 + slot % 3, k, (n,), dtype) for slot in range(MOST_SLOTS)}
    table = LowRankTable([(k, n)], num_slots=MOST_SLOTS, dtype=dtype, device=torch.device("cuda"))
    for slot, adapter in adapters.items():
        table.put(slot, [adapter])
    emptied = adapters.pop(7)
    table.put(7, [None])
    slots = list(reversed(range(MOST_SLOTS)))
    x, y = normal(len(slots), k, dtype=dtype), normal(len(slots), n, dtype=dtype)
    before = y.clone()

    add_low_rank(y, x, grouped(slots, num_slots=MOST_SLOTS), table, 0)

    assert_close(y, add_reference(before, x, slots, adapters))
    assert torch.equal(y[slots.index(7)], before[slots.index(7)])
    del emptied


def test_a_captured_graph_serves_adapters_that_came_after_it() -> None:
    """Only the table and the groups are rewritten; sums are the same bits each time."""
    torch.manual_seed(2)
    k, n, dtype, num_slots, rows = 576, 960, torch.bfloat16, 4, 24
    table = LowRankTable([(k, n)], num_slots=num_slots, dtype=dtype, device=torch.device("cuda"))
    x, given = normal(rows, k, dtype=dtype), normal(rows, n, dtype=dtype)
    groups = grouped([-1] * rows, num_slots=num_slots)
    y = given.clone()
    add_low_rank(y, x, groups, table, 0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y.copy_(given)
        add_low_rank(y, x, groups, table, 0)
    graph.replay()
    assert torch.equal(y, given)

    adapters = {1: fused(40, k, (n,), dtype), 3: fused(256, k, (n // 2, n // 2), dtype)}
    for slot, adapter in adapters.items():
        table.put(slot, [adapter])
    slots = [-1, 1, 3] * 8
    other = grouped(slots, num_slots=num_slots)
    groups.groups.copy_(other.groups)
    groups.order.copy_(other.order)
    results = []
    for _ in range(3):
        graph.replay()
        results.append(y.clone())

    assert_close(results[0], add_reference(given, x, slots, adapters))
    assert all(torch.equal(results[0], each) for each in results)
