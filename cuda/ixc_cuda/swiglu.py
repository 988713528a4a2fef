"""silu(gate) * up: silu rounded to the dtype, then the product.

gate_and_up (rows, 2 n) bf16 or fp16, the gate first; out (rows, n); n a multiple of 8.
"""

import torch
from torch import Tensor

from ixc_cuda.catalogue import Instantiation
from ixc_cuda.kernel import load_kernel
from ixc_cuda.operands import NARROW, narrow_name, require_vectors

_SOURCE = "swiglu.cu"

INSTANTIATIONS = tuple(
    Instantiation(source=_SOURCE, name=f"swiglu<{dtype}>", architectures=("sm_80", "sm_90"))
    for dtype in NARROW.values()
)


def configure(n: int) -> tuple[int, int]:
    """Threads a block and blocks a row: a thread makes eight outputs, or twice eight."""
    vectors = n // 8
    threads = min(256, -(-vectors // 32) * 32)
    return threads, -(-vectors // (2 * threads))


def swiglu(gate_and_up: Tensor, *, out: Tensor | None = None) -> Tensor:
    rows, width = gate_and_up.shape
    n = width // 2
    if width % 16:
        raise ValueError(f"gate and up of {width} together are not a multiple of 16")
    dtype = narrow_name("gate_and_up", gate_and_up)
    if out is None:
        out = torch.empty((rows, n), dtype=gate_and_up.dtype, device=gate_and_up.device)
    require_vectors("gate_and_up", gate_and_up, gate_and_up.dtype, (rows, width))
    require_vectors("out", out, gate_and_up.dtype, (rows, n))
    if rows == 0 or n == 0:
        return out

    threads, blocks = configure(n)
    load_kernel(_SOURCE, f"swiglu<{dtype}>").launch(
        (rows, blocks, 1), threads, (gate_and_up, out, n), overlap=True
    )
    return out
