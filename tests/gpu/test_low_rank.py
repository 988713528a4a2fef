"""Adapters of a step's rows against float64."""

import pytest
import torch
from torch import Tensor

from ixc_cuda.low_rank import Adapter, Block, LowRankTable, add_low_rank

pytestmark = pytest.mark.gpu


def normal(*shape: int, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    return (torch.randn(shape, device="cuda") * scale).to(dtype)


def fused(ranks: int, k: int, outputs: tuple[int, ...], dtype: torch.dtype) -> Adapter:
    """An adapter of linears that lie over each other, each with ranks of its own."""
    blocks, first_output = [], 0
    for index, size in enumerate(outputs):
        up = normal(size, ranks, dtype=dtype, scale=ranks**-0.5)
        blocks.append(Block(up=up, first_rank=index * ranks, first_output=first_output))
        first_output += size
    down = normal(len(outputs) * ranks, k, dtype=dtype, scale=k**-0.5)
    return Adapter(down=down, blocks=tuple(blocks))


def add_reference(y: Tensor, x: Tensor, chosen: Tensor, adapters: list[Adapter]) -> Tensor:
    total = y.double()
    for index, adapter in enumerate(adapters):
        rows = (chosen == index).nonzero()[:, 0]
        inner = (x[rows].double() @ adapter.down.double().T).to(x.dtype).double()
        for block in adapter.blocks:
            outputs, ranks = block.up.shape
            part = inner[:, block.first_rank : block.first_rank + ranks] @ block.up.double().T
            total[rows, block.first_output : block.first_output + outputs] += part
    return total


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 3, 16, 17, 40, 200])
@pytest.mark.parametrize(("k", "n"), [(64, 96), (576, 960), (4096, 6144), (14336, 4096)])
@pytest.mark.parametrize("ranks", [(8, 16, 24), (2, 4, 5), (256, 512, 64)])
def test_each_row_takes_its_own_adapter(
    dtype: torch.dtype, rows: int, k: int, n: int, ranks: tuple[int, ...]
) -> None:
    """Of any rank, for linears fused unevenly; a row that asks for none keeps its bits."""
    torch.manual_seed(rows)
    first = n // 2 + 3
    splits = [(n,), (first, n - first), (n,)]
    adapters = [fused(rank, k, split, dtype) for rank, split in zip(ranks, splits, strict=True)]
    x, y = normal(rows, k, dtype=dtype), normal(rows, n, dtype=dtype)
    chosen = torch.randint(-1, len(adapters), (rows,), device="cuda", dtype=torch.int32)
    before = y.clone()
    reference = add_reference(y, x, chosen, adapters)

    add_low_rank(y, x, chosen, LowRankTable(adapters))

    allowed = 0.006 * reference.abs() + 0.012 * reference.square().mean().sqrt()
    assert ((y.double() - reference).abs() <= allowed).all()
    assert torch.equal(y[chosen < 0], before[chosen < 0])
