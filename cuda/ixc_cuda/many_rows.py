"""y = x W^T for 2 to 128 rows of x, on Hopper: a decode step's linear layers of many sequences.

    x       (m, k) bf16 or fp16, m from 1 to 128; k a multiple of 8
    weight  (n, k) as x, row-major
    y       (m, n); with `swiglu` weight is w1 over w3 and y is silu(w1 x) * (w3 x), (m, n / 2);
            its width is a multiple of 8
    add_to  (m, n) or none: y is added to it, in float32, then rounded once

The weights are read once, at nearly the memory's speed; see design/many_rows.md. One row, small
matrices and other GPUs are `few_rows`'; more rows are the matrix library's.

Launches overlap: weights are read while kernels in front still run, so nothing in the same stream
may have written them just now.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ixc_cuda.catalogue import Instantiation
from ixc_cuda.device import device_info
from ixc_cuda.kernel import TensorMap, load_kernel, tensor_map
from ixc_cuda.operands import NARROW, narrow_name, require_vectors

FEWEST_ROWS_THAT_PAY, MOST_ROWS = 2, 128
HOPPER = (9, 0)

# Below, launches are what takes the time, and the matrix library's are as good as ours.
_FEWEST_WEIGHTS_THAT_PAY = 1 << 24

_SOURCE = "many_rows.cu"

# As in many_rows.cu and include/shared_products.cuh.
_GROUP_ROWS = 64
_WARPGROUP = 128
_ROW_ELEMENTS = 64
_ROW_BYTES = 128
_BARRIER_BYTES = 16
_PATTERN_ROWS = 8

# More weights in flight do not come faster.
_MOST_STAGES = 16
# With fewer bytes of weights in flight, a block that shares its multiprocessor would starve.
_LEAST_IN_FLIGHT = 48 << 10
# Shared memory that a block takes beside what it asks for, and what is left to small kernels.
_RESERVED_BYTES = 1 << 10
_ROOM_BESIDE = 4 << 10
# A cut of a matrix that keeps so many of the multiprocessors busy need not be finer.
_BUSY_ENOUGH = 0.9

_MOST_MAPS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A tile is `parts` products of `width` rows of the weight; `slices` blocks share its columns.

    With `swiglu` the parts are of w1 and of w3.
    """

    width: int
    parts: int = 1
    slices: int = 1
    swiglu: bool = False

    @property
    def tile(self) -> int:
        return self.width * self.parts

    @property
    def outputs(self) -> int:
        return self.width if self.swiglu else self.tile

    def blocks(self, outputs: int) -> int:
        return -(-outputs // self.outputs) * self.slices


# In order: the first that keeps the GPU busy is taken. Wide tiles come first (x is read again for
# each), two slices next (their sums have to be exchanged).
_PLAIN = (Cut(width=120), Cut(width=96, slices=2), Cut(width=64, slices=2))
# By groups of 64 rows.
_SWIGLU = {1: Cut(width=56, parts=2, swiglu=True), 2: Cut(width=112, parts=2, swiglu=True)}
_ROW_GROUPS = tuple(_SWIGLU)


def kernel_name(dtype: str, row_groups: int, cut: Cut) -> str:
    end = str(cut.swiglu).lower()
    return f"many_rows<{dtype}, {row_groups}, {cut.width}, {cut.parts}, {cut.slices}, {end}>"


def instantiations(row_groups: int, cuts: Iterable[Cut]) -> tuple[Instantiation, ...]:
    return tuple(
        Instantiation(
            source=_SOURCE, name=kernel_name(dtype, row_groups, cut), architectures=("sm_90a",)
        )
        for dtype in NARROW.values()
        for cut in cuts
    )


INSTANTIATIONS = tuple(
    each
    for row_groups in _ROW_GROUPS
    for each in instantiations(row_groups, (*_PLAIN, _SWIGLU[row_groups]))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """`box_rows` is m padded; `clusters` of the cut's `slices` blocks walk over the tiles."""

    row_groups: int
    cut: Cut
    box_rows: int
    clusters: int
    stages: int
    shared_bytes: int


def supports(rows: int, outputs: int, k: int, *, capability: tuple[int, int]) -> bool:
    """Whether there is a kernel for products of these sizes on a GPU of that capability."""
    return (
        capability == HOPPER
        and 1 <= rows <= MOST_ROWS
        and outputs % 8 == 0
        and k % 8 == 0
        and k > 0
    )


def pays(rows: int, outputs: int, k: int, *, capability: tuple[int, int]) -> bool:
    """Whether this is also faster than `few_rows` and the matrix library."""
    return (
        rows >= FEWEST_ROWS_THAT_PAY
        and outputs * k >= _FEWEST_WEIGHTS_THAT_PAY
        and supports(rows, outputs, k, capability=capability)
    )


def configure(
    rows: int,
    outputs: int,
    k: int,
    *,
    swiglu: bool,
    multiprocessors: int,
    shared_bytes: int,
) -> Configuration:
    """`shared_bytes` is the most that a block of this GPU may have."""
    row_groups = -(-rows // _GROUP_ROWS)
    cut = _SWIGLU[row_groups]
    if not swiglu:
        possible = [cut for cut in _PLAIN if _divides(cut, k)]
        cut = next(
            (cut for cut in possible if cut.blocks(outputs) >= _BUSY_ENOUGH * multiprocessors),
            possible[-1],
        )
    # Blocks that share a tile's columns run all at once and exchange at the end: a deep ring helps
    # them more than a neighbour does.
    shared = lay_out(
        cut, rows, outputs, blocks=2, multiprocessors=multiprocessors, shared_bytes=shared_bytes
    )
    if (
        shared is not None
        and cut.slices == 1
        and shared.stages * cut.tile * _ROW_BYTES >= _LEAST_IN_FLIGHT
        and may_share(row_groups, cut)
    ):
        return shared
    alone = lay_out(
        cut, rows, outputs, blocks=1, multiprocessors=multiprocessors, shared_bytes=shared_bytes
    )
    assert alone is not None, "a Hopper multiprocessor holds at least four stages of every cut"
    return alone


def may_share(row_groups: int, cut: Cut) -> bool:
    """Whether the kernel is compiled so that two of its blocks share the registers."""
    return row_groups * cut.tile <= 256


def lay_out(
    cut: Cut, rows: int, outputs: int, *, blocks: int, multiprocessors: int, shared_bytes: int
) -> Configuration | None:
    """So that `blocks` blocks fit a multiprocessor; None where not even two stages of them do."""
    row_groups = -(-rows // _GROUP_ROWS)
    box_rows = -(-rows // _PATTERN_ROWS) * _PATTERN_ROWS
    stage_bytes = (box_rows + cut.tile) * _ROW_BYTES + _BARRIER_BYTES
    room = shared_bytes + _RESERVED_BYTES - _ROOM_BESIDE
    stages = min(_MOST_STAGES, (room // blocks - _RESERVED_BYTES) // stage_bytes)
    # The ring receives the sums of all slices: four bytes of each.
    exchanged = 4 * cut.tile * _GROUP_ROWS * row_groups if cut.slices > 1 else 0
    if stages < 2 or stages * stage_bytes < exchanged:
        return None
    tiles = -(-outputs // cut.outputs)
    # Where columns are not shared, a block walks over tiles: all as long as the longest, but one.
    rounds = -(-tiles // (multiprocessors * blocks)) if cut.slices == 1 else 1
    return Configuration(
        row_groups=row_groups,
        cut=cut,
        box_rows=box_rows,
        clusters=-(-tiles // rounds),
        stages=stages,
        shared_bytes=stages * stage_bytes,
    )


def many_rows_linear(
    x: Tensor,
    weight: Tensor,
    *,
    add_to: Tensor | None = None,
    swiglu: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """See above. Returns `add_to`, `out` or a new tensor."""
    rows, k = x.shape
    n = weight.shape[0]
    if swiglu and n % 2:
        raise ValueError(f"w1 over w3 has an even number of rows, not {n}")
    outputs = n // 2 if swiglu else n
    if add_to is not None:
        if swiglu or out is not None:
            raise ValueError("add_to goes with neither swiglu nor out")
        out = add_to
    elif out is None:
        out = torch.empty((rows, outputs), dtype=x.dtype, device=x.device)

    dtype = narrow_name("x", x)
    require_vectors("x", x, x.dtype, (rows, k))
    require_vectors("weight", weight, x.dtype, (n, k))
    require_vectors("y", out, x.dtype, (rows, outputs))
    if rows == 0 or n == 0:
        return out

    info = device_info(x.device.index)
    if not supports(rows, outputs, k, capability=info.capability):
        raise ValueError(
            f"{rows} rows of {k} into {outputs} on {info.name}: at most {MOST_ROWS} rows, widths "
            f"that are multiples of 8 and compute capability {HOPPER[0]}.{HOPPER[1]} are needed"
        )
    config = configure(
        rows,
        outputs,
        k,
        swiglu=swiglu,
        multiprocessors=info.multiprocessors,
        shared_bytes=info.shared_bytes,
    )
    launch(config, dtype, x, weight, out, add=add_to is not None)
    return out


def launch(
    config: Configuration, dtype: str, x: Tensor, weight: Tensor, out: Tensor, *, add: bool
) -> None:
    """What `many_rows_linear` has checked and configured."""
    cut = config.cut
    rows, k = x.shape
    outputs = weight.shape[0] // 2 if cut.swiglu else weight.shape[0]
    maps = (
        _map(x, (config.box_rows, _ROW_ELEMENTS)),
        _map(weight, (cut.width, _ROW_ELEMENTS)),
    )
    load_kernel(_SOURCE, kernel_name(dtype, config.row_groups, cut)).launch(
        (config.clusters * cut.slices, 1, 1),
        config.row_groups * _WARPGROUP + 32,
        (*maps, out, rows, outputs, k, config.box_rows, int(add), config.stages),
        shared_bytes=config.shared_bytes,
        overlap=True,
    )


def _divides(cut: Cut, k: int) -> bool:
    """Whether every slice gets columns."""
    return cut.slices <= -(-k // _ROW_ELEMENTS)


_maps: dict[tuple[int, torch.Size, torch.dtype, tuple[int, ...]], TensorMap] = {}


def _map(matrix: Tensor, box: tuple[int, ...]) -> TensorMap:
    """A contiguous matrix's map: where it lies and its shape say all, and every step asks again."""
    key = (matrix.data_ptr(), matrix.shape, matrix.dtype, box)
    if (known := _maps.get(key)) is None:
        if len(_maps) >= _MOST_MAPS:
            _maps.clear()
        known = _maps[key] = tensor_map(matrix, box, swizzle=128, promotion=256)
    return known
