"""Norm, gate and rotation against the CPU backend, which defines them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ixc_cuda.rms_norm import rms_norm
from ixc_cuda.rotary import rotate_and_store
from ixc_cuda.swiglu import swiglu
from ixc_runtime.ops import Norm, Rotary
from ixc_runtime.ops.cpu import CpuOps

pytestmark = pytest.mark.gpu

DTYPES = [torch.bfloat16, torch.float16]
# The machine's rsqrt and exp differ from the reference's in the last place of a float32, which
# moves a value over a tie of the narrow type once in a thousand times.
MOST_MOVED = 2e-3

rows_and_eighths = {"rows": st.integers(1, 300), "eighths": st.integers(1, 600)}


def normal(*shape: int, dtype: torch.dtype, scale: float = 3.0) -> Tensor:
    return (torch.randn(shape, device="cuda") * scale).to(dtype)


def assert_rounds_like(out: Tensor, reference: Tensor) -> None:
    """All but a few elements are the same, and those are one or two roundings away."""
    step = 2.0 ** (-7 if out.dtype == torch.bfloat16 else -10)
    torch.testing.assert_close(out, reference, rtol=2.02 * step, atol=1e-6)
    moved = (out != reference).sum().item()
    assert moved <= max(2, MOST_MOVED * out.numel())


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=60, deadline=None)
@given(**rows_and_eighths)
def test_norms_of_drawn_shapes(dtype: torch.dtype, rows: int, eighths: int) -> None:
    """As defined: the quotient is rounded before it meets the weight."""
    x, weight = normal(rows, 8 * eighths, dtype=dtype), normal(8 * eighths, dtype=dtype)
    out = torch.full_like(x, torch.nan)
    rms_norm(x, weight, 1e-5, out=out)
    assert_rounds_like(out, CpuOps().rms_norm(x, Norm(weight=weight, eps=1e-5)))


@pytest.mark.parametrize("rows", [1, 8192])
@pytest.mark.parametrize("n", [576, 1024, 4096, 65536])
def test_norms_in_place(rows: int, n: int) -> None:
    x, weight = normal(rows, n, dtype=torch.bfloat16), normal(n, dtype=torch.bfloat16)
    reference = CpuOps().rms_norm(x, Norm(weight=weight, eps=1e-5))
    rms_norm(x, weight, 1e-5, out=x)
    assert_rounds_like(x, reference)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=60, deadline=None)
@given(**rows_and_eighths)
def test_gates_of_drawn_shapes(dtype: torch.dtype, rows: int, eighths: int) -> None:
    """As defined: silu is rounded before it meets the other half."""
    gate_and_up = normal(rows, 16 * eighths, dtype=dtype)
    out = torch.full((rows, 8 * eighths), torch.nan, device="cuda").to(dtype)
    swiglu(gate_and_up, out=out)
    assert_rounds_like(out, CpuOps().swiglu(gate_and_up))


def test_gates_far_from_zero() -> None:
    """Where exp overflows silu is 0 or the value itself, never NaN."""
    far = torch.tensor([[-1e30, -1e4, -100.0, -88.0, 88.0, 100.0, 1e4, 1e30] * 2], device="cuda")
    far[0, 8:] = 1.0
    out = swiglu(far.to(torch.bfloat16))
    expected = far[:, :8].double() * torch.sigmoid(far[:, :8].double())
    torch.testing.assert_close(out.double(), expected, rtol=0.01, atol=1e-30)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 100),
    kv_heads=st.integers(1, 8),
    group=st.integers(1, 8),
    sixteenths=st.integers(1, 8),
    page_size=st.sampled_from([16, 64]),
    seed=st.integers(0, 2**31),
)
def test_rotations_of_drawn_shapes(
    dtype: torch.dtype,
    rows: int,
    kv_heads: int,
    group: int,
    sixteenths: int,
    page_size: int,
    seed: int,
) -> None:
    """Keys and values reach their slots and no other; rows whose slot is -1 write none."""
    torch.manual_seed(seed)
    head_dim = 16 * sixteenths
    qkv = normal(rows, kv_heads * (group + 2) * head_dim, dtype=dtype)
    angles = torch.rand(rows, 1, 1, head_dim // 2, device="cuda") * 1000
    rotary = Rotary(cos=angles.cos(), sin=angles.sin())
    pages = (rows // page_size + 2, page_size, kv_heads, head_dim)
    keys, values = (torch.full(pages, torch.nan, device="cuda").to(dtype) for _ in "kv")
    reference_keys, reference_values = keys.clone(), values.clone()
    slots = torch.randperm(pages[0] * page_size, device="cuda")[:rows]
    written = torch.rand(rows, device="cuda") < 0.7

    queries = rotate_and_store(qkv, rotary.cos, rotary.sin, keys, values, slots.where(written, -1))

    reference = CpuOps().rotate_and_store(qkv, rotary, reference_keys, reference_values, slots)
    assert_rounds_like(queries, reference)
    for stored, expected in ((keys, reference_keys), (values, reference_values)):
        expected.view(-1, kv_heads, head_dim)[slots[~written]] = torch.nan
        assert torch.equal(stored.isnan(), expected.isnan())
        assert_rounds_like(stored.nan_to_num(), expected.nan_to_num())
