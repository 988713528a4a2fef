"""RMSNorm, SwiGLU and rotation at the 7B model's shapes, beside torch's where it has the like."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from ixc_cuda.rms_norm import rms_norm
from ixc_cuda.rotary import rotate_and_store
from ixc_cuda.swiglu import swiglu
from tests.bench.gpu import Context, Row

HIDDEN, INTERMEDIATE = 4096, 14336
KV_HEADS, GROUP, HEAD_DIM = 8, 4, 128
PACKED = KV_HEADS * (GROUP + 2) * HEAD_DIM
EPS = 1e-5


def rows(context: Context) -> Iterator[Row]:
    for num_rows in (1, 256, 8192):
        for name, num_bytes, make in (
            ("rms_norm", num_rows * HIDDEN * 4, _norm),
            ("rms_norm torch", num_rows * HIDDEN * 4, _torch_norm),
            ("swiglu", num_rows * INTERMEDIATE * 6, _gate),
            ("rotate_and_store", num_rows * PACKED * 4, _rotation),
        ):
            calls = [make(num_rows) for _ in range(context.num_sets(num_bytes))]
            timing = context.time(calls)
            yield context.row(f"{name} bf16 rows={num_rows}", timing, num_bytes=num_bytes)
            del calls


def _norm(num_rows: int) -> Callable[[], object]:
    x, weight = _normal(num_rows, HIDDEN), _normal(HIDDEN)
    return partial(rms_norm, x, weight, EPS, out=torch.empty_like(x))


def _torch_norm(num_rows: int) -> Callable[[], object]:
    x, weight = _normal(num_rows, HIDDEN), _normal(HIDDEN)
    return partial(functional.rms_norm, x, (HIDDEN,), weight, EPS)


def _gate(num_rows: int) -> Callable[[], object]:
    return partial(swiglu, _normal(num_rows, 2 * INTERMEDIATE), out=_normal(num_rows, INTERMEDIATE))


def _rotation(num_rows: int) -> Callable[[], object]:
    angles = torch.rand(num_rows, HEAD_DIM // 2, device="cuda")
    keys, values = (_normal(num_rows // 64 + 1, 64, KV_HEADS, HEAD_DIM) for _ in "kv")
    slots = torch.randperm(keys.shape[0] * 64, device="cuda")[:num_rows]
    return partial(
        rotate_and_store,
        *(_normal(num_rows, PACKED), angles.cos(), angles.sin(), keys, values, slots),
        out=_normal(num_rows, KV_HEADS, GROUP, HEAD_DIM),
    )


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16)
