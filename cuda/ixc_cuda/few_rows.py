"""y = f(norm(x)) W^T for 1 to 16 rows of x: a decode step's linear layers, each in one launch.

    x       (m, k) bf16 or fp16, m from 1 to 16
    weight  (n, k) as x, row-major; k a multiple of 8
    norm    (k,) as x, or none: x / rms(x), rounded, times norm, rounded, in the place of x
    y       (m, n); with `swiglu` weight is w1 over w3 and y is silu(w1 x) * (w3 x), (m, n / 2)
    add_to  (m, n) or none: y is added to it, in float32, then rounded once

The weights are read once, at the memory's speed whatever m is; see design/few_rows.md. Longer rows
than the multiprocessors' registers can hold (`supports`) are the matrix library's.

Launches overlap: weight and norm are read while kernels in front still run, so nothing in the same
stream may have written them just now.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ixc_cuda.catalogue import Instantiation
from ixc_cuda.device import device_info
from ixc_cuda.kernel import load_kernel
from ixc_cuda.operands import NARROW, narrow_name, require, require_vectors

MOST_ROWS = 16

# Above, cuBLAS and separate kernels around it are faster (design/few_rows.md).
_MOST_ROWS_THAT_PAY = 8

_SOURCE = "few_rows.cu"

# As in few_rows.cu and include/row_ring.cuh.
_WARPS = 8
_THREADS = 32 * _WARPS
_TILE = 16
_WINDOW = 32
_CHUNK = 512
_STAGE_BYTES = _TILE * _CHUNK * 2 + 128
_RING_BARRIER_BYTES = 128
_MOST_STAGES = _RING_BARRIER_BYTES // 8
_X_REGISTERS = 64

_MOST_SLICES = 8  # a cluster of more blocks is not portable
# Shared memory that a block takes beside what it asks for.
_RESERVED_BYTES = 1024

# Up to so many slices a block has a multiprocessor's shared memory for itself, but for what small
# kernels need beside it: were there room for two, some multiprocessors would get two blocks and
# others none. Larger clusters do not all find that many free multiprocessors next to each other,
# and leave room for a second block instead.
_SLICES_ALONE = 2
_ROOM_BESIDE = 8 << 10


def _name(dtype: str, columns: int, slices: int) -> str:
    return f"few_rows<{dtype}, {columns}, {slices}>"


INSTANTIATIONS = tuple(
    Instantiation(
        source=_SOURCE,
        name=_name(dtype, columns, slices),
        # Slices meet through a cluster, which Hopper introduced.
        architectures=("sm_80", "sm_90") if slices == 1 else ("sm_90",),
    )
    for dtype in NARROW.values()
    for columns in (8, 16)
    for slices in (1, 2, 4, 8)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """`columns` is m padded; a cluster of `slices` blocks shares the rows' length."""

    columns: int
    slices: int
    clusters: int
    stages: int
    shared_bytes: int


def supports(rows: int, k: int, *, clusters: bool) -> bool:
    """Whether rows of that number and length fit the registers; `clusters`: as from 9.0 on."""
    if not 1 <= rows <= MOST_ROWS or k < 1 or k % 8:
        return False
    return _slices(_columns(rows), k) <= (_MOST_SLICES if clusters else 1)


def pays(rows: int, k: int, *, clusters: bool) -> bool:
    """Whether this is also the fastest way to do it."""
    return rows <= _MOST_ROWS_THAT_PAY and supports(rows, k, clusters=clusters)


def configure(
    rows: int,
    n: int,
    k: int,
    *,
    norm: bool,
    multiprocessors: int,
    shared_bytes: int,
) -> Configuration:
    """`shared_bytes` is the most that a block of this GPU may have."""
    columns = _columns(rows)
    slices = _slices(columns, k)
    tiles = -(-n // _TILE)
    # In a round a cluster computes as many tiles as it has blocks.
    groups = -(-tiles // slices)
    rounds = -(-groups // max(multiprocessors // slices, 1))

    fixed_bytes = _scratch_bytes(columns, slices)
    if norm:
        fixed_bytes += 2 * _slice_width(k, slices)
    if slices <= _SLICES_ALONE:
        budget = shared_bytes - _ROOM_BESIDE
    else:
        budget = (shared_bytes + _RESERVED_BYTES) // 2 - _RESERVED_BYTES
    stages = max(2, min(_MOST_STAGES, (budget - fixed_bytes) // _STAGE_BYTES))
    return Configuration(
        columns=columns,
        slices=slices,
        clusters=-(-groups // rounds),
        stages=stages,
        shared_bytes=fixed_bytes + stages * _STAGE_BYTES,
    )


def few_rows_linear(
    x: Tensor,
    weight: Tensor,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    add_to: Tensor | None = None,
    swiglu: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """See above. Returns `add_to`, `out` or a new tensor."""
    rows, k = x.shape
    n = weight.shape[0]
    if swiglu and n % 2:
        raise ValueError(f"w1 over w3 has an even number of rows, not {n}")
    y_shape = (rows, n // 2 if swiglu else n)
    if add_to is not None:
        if swiglu or out is not None:
            raise ValueError("add_to goes with neither swiglu nor out")
        out = add_to
    elif out is None:
        out = torch.empty(y_shape, dtype=x.dtype, device=x.device)

    dtype = narrow_name("x", x)
    require_vectors("x", x, x.dtype, (rows, k))
    require_vectors("weight", weight, x.dtype, (n, k))
    if norm is not None:
        require_vectors("norm", norm, x.dtype, (k,))
    require("y", out, x.dtype, y_shape)
    if rows == 0 or n == 0:
        return out

    info = device_info(x.device.index)
    has_clusters = info.capability >= (9, 0)
    if not supports(rows, k, clusters=has_clusters):
        longest = _slice_capacity(_columns(rows)) * (_MOST_SLICES if has_clusters else 1)
        raise ValueError(
            f"{rows} rows of {k} do not fit: at most {MOST_ROWS} rows, here of a multiple of 8 "
            f"up to {longest}"
        )

    config = configure(
        rows,
        n,
        k,
        norm=norm is not None,
        multiprocessors=info.multiprocessors,
        shared_bytes=info.shared_bytes,
    )
    flags = (int(add_to is not None), int(swiglu))
    load_kernel(_SOURCE, _name(dtype, config.columns, config.slices)).launch(
        (config.clusters * config.slices, 1, 1),
        _THREADS,
        (x, weight, norm, out, rows, n, k, eps, *flags, config.stages),
        shared_bytes=config.shared_bytes,
        overlap=True,
    )
    return out


def _columns(rows: int) -> int:
    return 8 if rows <= 8 else 16


def _slice_capacity(columns: int) -> int:
    """The longest part of a row of x that a block's registers hold."""
    windows_a_warp = _X_REGISTERS // (4 * (columns // 8))
    return windows_a_warp * _WARPS * _WINDOW


def _slices(columns: int, k: int) -> int:
    """The least power of two of slices that a block can hold; may be more than there can be."""
    needed = -(-k // _slice_capacity(columns))
    return 1 << (needed - 1).bit_length()


def _slice_width(k: int, slices: int) -> int:
    return -(-k // (slices * _WINDOW)) * _WINDOW


def _scratch_bytes(columns: int, slices: int) -> int:
    """`Scratch` of few_rows.cu."""
    received = 2 * slices if slices > 1 else 1
    floats = _WARPS * columns + slices * columns + (_WARPS + received) * columns * _TILE
    return -(-(_RING_BARRIER_BYTES + 4 * floats) // 128) * 128
