"""Adapters of a decode step, one layer of the 7B model's at a time, beside cuBLAS.

Each layer's four linears have adapters of rank 512, of their own in every layer. Rows share one or
are dealt out to several; cuBLAS does the same for rows of one adapter alone.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ixc_cuda.low_rank import LowRankTable, RowGroups, add_low_rank, group_rows
from ixc_runtime.ops import LowRankPair, UpBlock
from tests.bench.gpu import Context, Row

LAYERS, RANK, SLOTS = 8, 512, 8
# Inputs, and outputs of each of the linears that lie over each other.
LINEARS = ((4096, (6144,)), (4096, (4096,)), (4096, (14336, 14336)), (14336, (4096,)))
NUM_BYTES = sum(2 * RANK * (len(outputs) * k + sum(outputs)) for k, outputs in LINEARS)


def rows(context: Context) -> Iterator[Row]:
    adapters = _Adapters()
    for num_rows, num_adapters in (
        *((1, 1), (4, 1), (16, 1), (32, 1), (64, 1), (128, 1), (256, 1)),
        *((4, 4), (8, 8), (64, 8), (256, 8)),
    ):
        step = _Step(adapters, num_rows, num_adapters)
        timing = context.time([partial(step.ours, layer) for layer in range(LAYERS)])
        yield context.row(
            f"adapters of a layer rank={RANK} rows={num_rows} adapters={num_adapters}",
            timing,
            num_bytes=num_adapters * NUM_BYTES,
            operations=num_rows * NUM_BYTES,
        )
    for num_rows in (1, 32, 256):
        step = _Step(adapters, num_rows, 1)
        timing = context.time([partial(step.cublas, layer) for layer in range(LAYERS)])
        yield context.row(
            f"adapters of a layer rank={RANK} rows={num_rows} adapters=1 torch, cuBLAS",
            timing,
            num_bytes=NUM_BYTES,
            operations=num_rows * NUM_BYTES,
        )


class _Adapters:
    """`pairs` by slot, then by layer and linear."""

    def __init__(self) -> None:
        self.pairs = [
            [_pair(k, outputs) for _ in range(LAYERS) for k, outputs in LINEARS]
            for _ in range(SLOTS)
        ]
        self.table = LowRankTable(
            [(k, sum(outputs)) for _ in range(LAYERS) for k, outputs in LINEARS],
            num_slots=SLOTS,
            dtype=torch.bfloat16,
            device=torch.device("cuda"),
        )
        for slot, pairs in enumerate(self.pairs):
            self.table.put(slot, pairs)


class _Step:
    def __init__(self, adapters: _Adapters, num_rows: int, num_adapters: int) -> None:
        self.adapters = adapters
        self.operands = [(_normal(num_rows, k), _normal(num_rows, sum(n))) for k, n in LINEARS]
        host = np.zeros(RowGroups.words(num_rows, num_slots=SLOTS), np.int32)
        group_rows([row % num_adapters for row in range(num_rows)], host, num_slots=SLOTS)
        self.groups = RowGroups(torch.from_numpy(host).cuda(), num_slots=SLOTS)

    def ours(self, layer: int) -> None:
        for index, (x, y) in enumerate(self.operands):
            table_index = len(LINEARS) * layer + index
            add_low_rank(y, x, self.groups, self.adapters.table, table_index)

    def cublas(self, layer: int) -> None:
        for index, (x, y) in enumerate(self.operands):
            pair = self.adapters.pairs[0][len(LINEARS) * layer + index]
            inner = x @ pair.down.T
            for block in pair.blocks:
                outputs, ranks = block.up.shape
                own = inner[:, block.first_rank : block.first_rank + ranks]
                y[:, block.first_output : block.first_output + outputs].addmm_(own, block.up.T)


def _pair(k: int, outputs: tuple[int, ...]) -> LowRankPair:
    blocks, first_output = [], 0
    for index, size in enumerate(outputs):
        blocks.append(
            UpBlock(up=_normal(size, RANK), first_rank=index * RANK, first_output=first_output)
        )
        first_output += size
    return LowRankPair(down=_normal(len(outputs) * RANK, k), blocks=tuple(blocks))


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16) * shape[-1] ** -0.5
