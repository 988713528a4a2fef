"""y[row] += up (down x[row]) for the rows of a step, each with its own adapter, in two launches.

    x    (rows, k) bf16 or fp16
    y    (rows, n), in place: the sum in float32, rounded once

A `LowRankTable` holds the adapters' addresses by slot, and `RowGroups` say which rows ask for which
slot. Both lie on the device at addresses that never change, so that a captured graph serves
whatever adapters its rows ask for, and adapters may come and go between its replays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ixc_cuda.catalogue import Instantiation
from ixc_cuda.device import device_info
from ixc_cuda.kernel import load_kernel
from ixc_cuda.operands import NARROW, narrow_name, require, require_vectors

# As in low_rank.cu.
MOST_SLOTS = 256  # a block of the kernel has a thread for each group of rows
MOST_BLOCKS = 2
_THREADS = 256
_BLOCK = np.dtype(
    [
        ("up", "<u8"),
        ("first_rank", "<i4"),
        ("ranks", "<i4"),
        ("first_output", "<i4"),
        ("outputs", "<i4"),
    ]
)
_SLOT = np.dtype(
    [("down", "<u8"), ("ranks", "<i4"), ("blocks", "<i4"), ("block", _BLOCK, (MOST_BLOCKS,))]
)
_GROUP = np.dtype([("slot", "<i4"), ("first", "<i4"), ("rows", "<i4")])
_GROUP_WORDS = _GROUP.itemsize // 4

# Of a slot in one linear; what a launch leaves for the next is so wide.
MOST_RANKS = 8192

_SOURCE = "low_rank.cu"
ALIGNMENT = 8  # ranks are read eight at a time
_SLICES = 8  # blocks that share the columns of one tile in low_rank_down, from Hopper on


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """`columns` rows are multiplied at a time; as in low_rank.cu and include/row_tiles.cuh."""

    columns: int
    tile: int
    chunk: int
    stages: int
    blocks_a_multiprocessor: int

    @property
    def shared_bytes(self) -> int:
        return self.stages * (self.tile + self.columns) * self.chunk * 2


_FEW = Configuration(columns=16, tile=32, chunk=256, stages=3, blocks_a_multiprocessor=2)
_MANY = Configuration(columns=64, tile=128, chunk=64, stages=3, blocks_a_multiprocessor=2)
# Of all adapters together: up to here most of their weights are read once all the same.
_FEW_ROWS = 32

INSTANTIATIONS = tuple(
    Instantiation(
        source=_SOURCE, name=f"{kernel}<{dtype}, {columns}>", architectures=("sm_80", "sm_90")
    )
    for kernel in ("low_rank_down", "low_rank_up")
    for dtype in NARROW.values()
    for columns in (_FEW.columns, _MANY.columns)
)


def configure(rows: int) -> Configuration:
    return _FEW if rows <= _FEW_ROWS else _MANY


class Block(Protocol):
    """`up` (outputs, ranks) turns ranks [first_rank, …) into outputs [first_output, …)."""

    @property
    def up(self) -> Tensor: ...
    @property
    def first_rank(self) -> int: ...
    @property
    def first_output(self) -> int: ...


class Adapter(Protocol):
    """One adapter of one linear; the runtime's `LowRankPair` is one.

    `down` is (ranks, k), the ranks of all blocks one by one, each a multiple of `ALIGNMENT`.
    """

    @property
    def down(self) -> Tensor: ...
    @property
    def blocks(self) -> Sequence[Block]: ...


class LowRankTable:
    """Adapters by slot, of linears of the given `shapes` (k, n), where the kernels find them.

    Holds addresses: whoever puts an adapter in keeps its tensors until it is out again and the
    steps launched until then are through.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        *,
        num_slots: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        if not 1 <= num_slots <= MOST_SLOTS:
            raise ValueError(f"{num_slots} slots; 1 to {MOST_SLOTS} are possible")
        self.shapes = tuple(shapes)
        self.num_slots = num_slots
        self.dtype = dtype
        num_bytes = len(shapes) * _SLOT.itemsize
        self.memory = torch.zeros(num_slots, num_bytes, dtype=torch.uint8, device=device)

    def put(self, slot: int, adapters: Sequence[Adapter | None]) -> None:
        """One for each linear, None where it is left alone; seen by what is launched later."""
        rows = np.zeros(len(self.shapes), _SLOT)
        for row, adapter, shape in zip(rows, adapters, self.shapes, strict=True):
            if adapter is not None:
                self._check(adapter, *shape)
                row["down"] = adapter.down.data_ptr()
                row["ranks"] = adapter.down.shape[0]
                row["blocks"] = len(adapter.blocks)
                for block, entry in zip(adapter.blocks, row["block"], strict=False):
                    entry["up"] = block.up.data_ptr()
                    entry["first_rank"], entry["ranks"] = block.first_rank, block.up.shape[1]
                    entry["first_output"], entry["outputs"] = block.first_output, block.up.shape[0]
        self.memory[slot].copy_(torch.from_numpy(rows.view(np.uint8)))

    def _check(self, adapter: Adapter, k: int, n: int) -> None:
        ranks = adapter.down.shape[0]
        if ranks > MOST_RANKS or len(adapter.blocks) > MOST_BLOCKS:
            raise ValueError(
                f"{ranks} ranks in {len(adapter.blocks)} blocks; at most {MOST_RANKS} in "
                f"{MOST_BLOCKS} are possible"
            )
        require_vectors("down", adapter.down, self.dtype, (ranks, k))
        for block in adapter.blocks:
            outputs, own = block.up.shape
            require_vectors("up", block.up, self.dtype, (outputs, own))
            if own % ALIGNMENT or block.first_rank % ALIGNMENT:
                raise ValueError(
                    f"ranks {block.first_rank} + {own} are not multiples of {ALIGNMENT}"
                )
            if block.first_rank + own > ranks or block.first_output + outputs > n:
                raise ValueError(
                    f"ranks {block.first_rank} + {own} to outputs {block.first_output} + {outputs} "
                    f"do not fit {ranks} and {n}"
                )


class RowGroups:
    """Which of a step's rows take which slot, for up to `most_rows` rows."""

    def __init__(self, memory: Tensor, *, num_slots: int) -> None:
        """`memory` is int32, `words` long, on the device; `group_rows` fills it."""
        self.groups = memory[: _GROUP_WORDS * num_slots]
        self.order = memory[_GROUP_WORDS * num_slots :]
        self.num_slots = num_slots

    @staticmethod
    def words(num_rows: int, *, num_slots: int) -> int:
        return _GROUP_WORDS * num_slots + num_rows


def group_rows(slots: Sequence[int], memory: NDArray[np.int32], *, num_slots: int) -> None:
    """Write what `RowGroups` reads, where row i takes slot slots[i], or none if that is below 0."""
    chosen = np.asarray(slots, np.int32)
    order = np.argsort(chosen, kind="stable")
    order = order[np.count_nonzero(chosen < 0) :]
    groups = memory[: _GROUP_WORDS * num_slots].view(_GROUP)
    groups["rows"] = 0
    found, first, counts = np.unique(chosen[order], return_index=True, return_counts=True)
    groups["slot"][: len(found)] = found
    groups["first"][: len(found)] = first
    groups["rows"][: len(found)] = counts
    memory[_GROUP_WORDS * num_slots :][: len(order)] = order


def add_low_rank(y: Tensor, x: Tensor, groups: RowGroups, table: LowRankTable, index: int) -> None:
    """Of the linear `index` of the table's; `groups` may speak of the rows of x alone."""
    rows, (k, n) = x.shape[0], table.shapes[index]
    dtype = narrow_name("x", x)
    require_vectors("x", x, table.dtype, (rows, k))
    require("y", y, x.dtype, (rows, n))
    if k % ALIGNMENT:
        raise ValueError(f"rows of {k}: they are read {ALIGNMENT} numbers at a time")
    if rows > len(groups.order) or groups.num_slots != table.num_slots:
        raise ValueError(
            f"{rows} rows of {table.num_slots} slots; groups of {len(groups.order)} rows and "
            f"{groups.num_slots} slots"
        )
    if rows * max(n, k, MOST_RANKS) >= 1 << 31:
        raise ValueError(f"{rows} rows of {k} and {n}: the kernels reckon with 32 bits")
    if rows == 0:
        return

    inner = torch.empty((rows, MOST_RANKS), dtype=x.dtype, device=x.device)
    config = configure(rows)
    info = device_info(x.get_device())
    blocks = config.blocks_a_multiprocessor * info.multiprocessors
    slices = _SLICES if info.capability >= (9, 0) else 1
    shared = (groups.groups, groups.order, table.memory[0, index * _SLOT.itemsize :])
    sizes = (min(rows, table.num_slots), len(table.shapes))
    load_kernel(_SOURCE, f"low_rank_down<{dtype}, {config.columns}>").launch(
        (blocks // slices * slices, 1, 1),
        _THREADS,
        (x, *shared, inner, *sizes, k, MOST_RANKS),
        shared_bytes=config.shared_bytes,
        overlap=True,
    )
    load_kernel(_SOURCE, f"low_rank_up<{dtype}, {config.columns}>").launch(
        (blocks, 1, 1),
        _THREADS,
        (inner, *shared, y, *sizes, n, MOST_RANKS),
        shared_bytes=config.shared_bytes,
        overlap=True,
    )
