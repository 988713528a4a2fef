"""y = f(norm(x)) W^T for a single row of x: `few_rows_linear` at batch one, in a kernel of its own.

One row is small enough to lie in shared memory whole, whatever its length; see design/few_rows.md.
Nothing is checked here: `few_rows_linear` has done that.
"""

from dataclasses import dataclass

from torch import Tensor

from ixc_cuda.catalogue import Instantiation
from ixc_cuda.device import DeviceInfo
from ixc_cuda.kernel import load_kernel
from ixc_cuda.operands import NARROW
from ixc_cuda.row_ring import BARRIER_BYTES, STAGE_BYTES, TILE, WARPS, stages_beside

_SOURCE = "one_row.cu"
_THREADS = 32 * (WARPS + 1)  # one warp fills the ring
_PARTS = (2, 8)  # of x, 16 bytes a thread
_PART = 8 * 32 * WARPS  # columns
LONGEST = _PARTS[-1] * _PART


def _name(dtype: str, parts: int) -> str:
    return f"one_row<{dtype}, {parts}>"


INSTANTIATIONS = tuple(
    Instantiation(source=_SOURCE, name=_name(dtype, parts), architectures=("sm_80", "sm_90"))
    for dtype in NARROW.values()
    for parts in _PARTS
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """x comes in `parts` of 16 bytes a thread; a block takes every `blocks`-th tile of W."""

    parts: int
    blocks: int
    stages: int
    shared_bytes: int


def configure(n: int, k: int, *, multiprocessors: int, shared_bytes: int) -> Configuration:
    """`shared_bytes` is the most that a block of this GPU may have."""
    fixed_bytes = _in_vectors(_scratch_bytes()) + _in_vectors(2 * k)
    stages = stages_beside(fixed_bytes, shared_bytes=shared_bytes)
    return Configuration(
        parts=next(parts for parts in _PARTS if k <= parts * _PART),
        blocks=min(-(-n // TILE), multiprocessors),
        stages=stages,
        shared_bytes=fixed_bytes + stages * STAGE_BYTES,
    )


def launch(
    x: Tensor,
    weight: Tensor,
    norm: Tensor | None,
    out: Tensor,
    *,
    dtype: str,
    eps: float,
    add: bool,
    swiglu: bool,
    info: DeviceInfo,
) -> None:
    n, k = weight.shape
    config = configure(n, k, multiprocessors=info.multiprocessors, shared_bytes=info.shared_bytes)
    load_kernel(_SOURCE, _name(dtype, config.parts)).launch(
        (config.blocks, 1, 1),
        _THREADS,
        (x, weight, norm, out, n, k, eps, int(add), int(swiglu), config.stages),
        shared_bytes=config.shared_bytes,
        overlap=True,
    )


def _scratch_bytes() -> int:
    """`Scratch` of one_row.cu."""
    return BARRIER_BYTES + 4 * (WARPS + 2 * WARPS * TILE)


def _in_vectors(num_bytes: int) -> int:
    return -(-num_bytes // 128) * 128
