"""RMSNorm: x / rms(x) in float32, rounded to x's dtype, times the weight, rounded.

x (rows, n) bf16 or fp16, weight (n,) as x, out (rows, n), which may be x itself; n a multiple of 8.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ixc_cuda.catalogue import Instantiation
from ixc_cuda.kernel import load_kernel
from ixc_cuda.operands import NARROW, narrow_name, require_vectors

_SOURCE = "rms_norm.cu"

# A thread keeps so many vectors of eight in registers.
_VECTORS = (1, 2, 4, 8)
_MOST_THREADS = 1024
# Up to here a row is spread over as many threads as it can be: there is nothing else to do.
_FEW_ROWS = 64

INSTANTIATIONS = tuple(
    Instantiation(
        source=_SOURCE, name=f"rms_norm<{dtype}, {vectors}>", architectures=("sm_80", "sm_90")
    )
    for dtype in NARROW.values()
    for vectors in _VECTORS
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    threads: int
    vectors: int  # of eight, a thread


def configure(rows: int, n: int) -> Configuration:
    """A block a row; of many rows small blocks, whose threads have much in flight each."""
    total = n // 8
    wanted = 1 if rows <= _FEW_ROWS else 4
    for vectors in _VECTORS:
        threads = -(-total // (32 * vectors)) * 32
        if threads <= _MOST_THREADS and (vectors >= wanted or threads <= 32):
            return Configuration(threads=threads, vectors=vectors)
    raise ValueError(f"rows of {n} are too long: at most {8 * _VECTORS[-1] * _MOST_THREADS}")


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, out: Tensor | None = None) -> Tensor:
    rows, n = x.shape
    if out is None:
        out = torch.empty_like(x)
    if n % 8:
        raise ValueError(f"rows of {n} are not a multiple of 8")
    dtype = narrow_name("x", x)
    require_vectors("x", x, x.dtype, (rows, n))
    require_vectors("weight", weight, x.dtype, (n,))
    require_vectors("out", out, x.dtype, (rows, n))
    if rows == 0 or n == 0:
        return out

    config = configure(rows, n)
    load_kernel(_SOURCE, f"rms_norm<{dtype}, {config.vectors}>").launch(
        (rows, 1, 1), config.threads, (x, weight, out, n, eps), overlap=True
    )
    return out
