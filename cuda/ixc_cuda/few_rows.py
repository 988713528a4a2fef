"""y = f(norm(x)) W^T for 1 to 16 rows of x: a decode step's linear layers, each in one launch.

    x       (m, k) bf16 or fp16, m from 1 to 16
    weight  (n, k) as x, row-major; k a multiple of 8
    norm    (k,) as x, or none: x / rms(x), rounded, times norm, rounded, in the place of x
    y       (m, n); with `swiglu` weight is w1 over w3 and y is silu(w1 x) * (w3 x), (m, n / 2)
    add_to  (m, n) or none: y is added to it, in float32, then rounded once

The weights are read once, at the memory's speed whatever m is; see design/few_rows.md. A single row
has a kernel of its own (one_row.py). Longer rows than the multiprocessors' registers can hold
(`supports`) are the matrix library's.

Launches overlap: weight and norm are read while kernels in front still run, so nothing in the same
stream may have written them just now.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ixc_cuda import one_row
from ixc_cuda.catalogue import Instantiation
from ixc_cuda.device import device_info
from ixc_cuda.kernel import load_kernel
from ixc_cuda.operands import NARROW, narrow_name, require, require_vectors
from ixc_cuda.row_ring import BARRIER_BYTES, STAGE_BYTES, TILE, WARPS, stages_beside

MOST_ROWS = 16

# Above, cuBLAS and separate kernels around it are faster (design/few_rows.md).
_MOST_ROWS_THAT_PAY = 8

_SOURCE = "few_rows.cu"

# As in include/{row_operand,weight_tiles}.cuh.
_WINDOW = 32
_X_REGISTERS = 128

_COLUMNS = (8, 16)  # rows of x, padded
_MOST_SLICES = 8  # a cluster of more blocks is not portable


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
    for columns in _COLUMNS
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
    """Whether rows of that number and length fit; `clusters`: as from 9.0 on."""
    if not 1 <= rows <= MOST_ROWS or k < 1 or k % 8:
        return False
    if rows == 1 and k <= one_row.LONGEST:
        return True
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
    tiles = -(-n // TILE)
    # In a round a cluster computes as many tiles as it has blocks.
    groups = -(-tiles // slices)
    rounds = -(-groups // _clusters_at_once(slices, multiprocessors))

    fixed_bytes = _scratch_bytes(columns, slices)
    if norm:
        fixed_bytes += 2 * _slice_width(k, slices)
    stages = stages_beside(fixed_bytes, shared_bytes=shared_bytes)
    return Configuration(
        columns=columns,
        slices=slices,
        clusters=-(-groups // rounds),
        stages=stages,
        shared_bytes=fixed_bytes + stages * STAGE_BYTES,
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
        if rows == 1:
            longest = max(longest, one_row.LONGEST)
        raise ValueError(
            f"{rows} rows of {k} do not fit: at most {MOST_ROWS} rows, here of a multiple of 8 "
            f"up to {longest}"
        )

    if rows == 1 and k <= one_row.LONGEST:
        one_row.launch(
            *(x, weight, norm, out),
            dtype=dtype,
            eps=eps,
            add=add_to is not None,
            swiglu=swiglu,
            info=info,
        )
        return out

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
        32 * WARPS,
        (x, weight, norm, out, rows, n, k, eps, *flags, config.stages),
        shared_bytes=config.shared_bytes,
        overlap=True,
    )
    return out


def _columns(rows: int) -> int:
    few, many = _COLUMNS
    return few if rows <= few else many


def _slice_capacity(columns: int) -> int:
    """The longest part of a row of x that a block's registers hold."""
    windows_a_warp = _X_REGISTERS // (4 * (columns // 8))
    return windows_a_warp * WARPS * _WINDOW


def _slices(columns: int, k: int) -> int:
    """The least power of two of slices that a block can hold; may be more than there can be."""
    needed = -(-k // _slice_capacity(columns))
    return 1 << (needed - 1).bit_length()


def _clusters_at_once(slices: int, multiprocessors: int) -> int:
    """How many clusters find free multiprocessors next to each other.

    Those of two always do; of four 30 and of eight 15 on an H200, whose parts are not of one size.
    """
    reachable = multiprocessors if slices <= 2 else multiprocessors * 10 // 11
    return max(reachable // slices, 1)


def _slice_width(k: int, slices: int) -> int:
    return -(-k // (slices * _WINDOW)) * _WINDOW


def _scratch_bytes(columns: int, slices: int) -> int:
    """`Scratch` of few_rows.cu."""
    received = 2 * slices if slices > 1 else 1
    floats = (WARPS + slices) * columns + (2 * WARPS + received) * columns * TILE
    return -(-(BARRIER_BYTES + 4 * floats) // 128) * 128
