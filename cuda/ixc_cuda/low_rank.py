"""y[row] += up (down x[row]) for a step of few rows, each with its own adapter, in two launches.

    x         (rows, k) bf16 or fp16
    adapters  (rows,) int32: which of the table's adapters a row takes; -1 is none
    y         (rows, n), in place: the sum in float32, rounded once

The table holds the adapters' addresses on the device, so that a captured graph serves whatever
adapters its rows ask for. Many rows of one adapter are better served by the matrix library.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ixc_cuda.catalogue import Instantiation
from ixc_cuda.kernel import load_kernel
from ixc_cuda.operands import NARROW, narrow_name, require, require_vectors

MOST_ROWS = 1024  # a block keeps its adapter's rows in shared memory

_SOURCE = "low_rank.cu"
_THREADS = 256
_DOWN_TILE = 8
_UP_TILE = 128
_ALIGNMENT = 8  # ranks are read eight at a time

INSTANTIATIONS = tuple(
    Instantiation(source=_SOURCE, name=f"{kernel}<{dtype}>", architectures=("sm_80", "sm_90"))
    for kernel in ("low_rank_down", "low_rank_up")
    for dtype in NARROW.values()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """`up` (outputs, ranks) turns ranks [first_rank, …) into outputs [first_output, …)."""

    up: Tensor
    first_rank: int
    first_output: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One adapter of one linear; `down` is (ranks, k), the ranks of all blocks one by one."""

    down: Tensor
    blocks: tuple[Block, ...]


class LowRankTable:
    """The adapters of one linear, by index, where the kernels find them."""

    def __init__(self, adapters: Sequence[Adapter]) -> None:
        aligned = [_aligned(each) for each in adapters]
        self._tensors = aligned  # the table holds addresses: they must stay
        self.k = aligned[0].down.shape[1]
        self.dtype = aligned[0].down.dtype
        self.most_ranks = max(each.down.shape[0] for each in aligned)
        self.most_outputs = max(block.up.shape[0] for each in aligned for block in each.blocks)
        for each in aligned:
            require_vectors("down", each.down, self.dtype, (each.down.shape[0], self.k))
            for block in each.blocks:
                require_vectors("up", block.up, self.dtype, tuple(block.up.shape))
        device = aligned[0].down.device
        self.downs = torch.tensor(
            [(each.down.data_ptr(), each.down.shape[0]) for each in aligned], device=device
        )
        self.ups = torch.tensor(
            [
                (
                    *(block.up.data_ptr(), index, block.first_rank, block.up.shape[1]),
                    *(block.first_output, block.up.shape[0]),
                )
                for index, each in enumerate(aligned)
                for block in each.blocks
            ],
            device=device,
        )
        self.num_outputs = int((self.ups[:, 4] + self.ups[:, 5]).max())


def add_low_rank(y: Tensor, x: Tensor, adapters: Tensor, table: LowRankTable) -> None:
    rows, k = x.shape
    n = y.shape[1]
    if rows > MOST_ROWS:
        raise ValueError(f"{rows} rows are too many: at most {MOST_ROWS}")
    if k % _ALIGNMENT or n < table.num_outputs:
        raise ValueError(f"rows of {k} to {n} do not fit {table.k} to {table.num_outputs}")
    dtype = narrow_name("x", x)
    require_vectors("x", x, table.dtype, (rows, table.k))
    require("y", y, x.dtype, (rows, n))
    require("adapters", adapters, torch.int32, (rows,))
    if rows == 0:
        return

    inner = torch.empty((rows, table.most_ranks), dtype=x.dtype, device=x.device)
    load_kernel(_SOURCE, f"low_rank_down<{dtype}>").launch(
        (-(-table.most_ranks // _DOWN_TILE), len(table.downs), 1),
        _THREADS,
        (x, adapters, table.downs, inner, rows, k, table.most_ranks),
        overlap=True,
    )
    load_kernel(_SOURCE, f"low_rank_up<{dtype}>").launch(
        (-(-table.most_outputs // _UP_TILE), len(table.ups), 1),
        _THREADS,
        (inner, adapters, table.ups, y, rows, n, table.most_ranks),
        overlap=True,
    )


def _aligned(adapter: Adapter) -> Adapter:
    """The adapter itself, or where its ranks are no multiples of eight, with zeros between them."""
    if all(
        block.first_rank % _ALIGNMENT == 0 and block.up.shape[1] % _ALIGNMENT == 0
        for block in adapter.blocks
    ):
        return adapter
    downs, blocks, first_rank = [], [], 0
    for block in adapter.blocks:
        ranks = block.up.shape[1]
        missing = -ranks % _ALIGNMENT
        down = adapter.down[block.first_rank : block.first_rank + ranks]
        downs.append(pad(down, (0, 0, 0, missing)))
        blocks.append(
            Block(
                up=pad(block.up, (0, missing)).contiguous(),
                first_rank=first_rank,
                first_output=block.first_output,
            )
        )
        first_rank += ranks + missing
    return Adapter(down=torch.cat(downs), blocks=tuple(blocks))
