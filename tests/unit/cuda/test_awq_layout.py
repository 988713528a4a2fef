"""The published int4 layout: documented bits, exact round trips, and free to import."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ixc_cuda import awq_layout


def test_documented_bits() -> None:
    """Each column of eight is in the nibble the module's drawing shows."""
    for column, nibble in enumerate((0, 4, 1, 5, 2, 6, 3, 7)):
        values = torch.zeros(1, 8, dtype=torch.uint8)
        values[0, column] = 5
        word = int(awq_layout.pack(values)) & 0xFFFFFFFF
        assert 5 << (4 * nibble) == word


@settings(deadline=None)
@given(rows=st.integers(0, 5), words=st.integers(0, 5), seed=st.integers(0, 1 << 30))
def test_pack_and_unpack_are_inverse(rows: int, words: int, seed: int) -> None:
    """For any values and any words, the sign bit included."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 16, (rows, 8 * words), generator=generator, dtype=torch.uint8)
    packed = torch.randint(-(1 << 31), 1 << 31, (rows, words), generator=generator).int()
    assert torch.equal(values, awq_layout.unpack(awq_layout.pack(values)))
    assert torch.equal(packed, awq_layout.pack(awq_layout.unpack(packed)))


@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_rounding_error(group_size: int) -> None:
    """Rounding is at most half a level of its group, up to the float16 scale's own error."""
    weight = torch.randn(24, 256, generator=torch.Generator().manual_seed(1))
    packed = awq_layout.quantize(weight, group_size)
    assert packed.qweight.shape == (256, 3)
    assert (256 // group_size, 3) == packed.qzeros.shape
    assert (256 // group_size, 24) == packed.scales.shape
    error = (awq_layout.dequantize(packed, group_size) - weight).abs()
    level = packed.scales.float().t().repeat_interleave(group_size, 1)
    assert bool((error <= 0.51 * level).all())


def test_flat_group() -> None:
    """Weights all alike and zero do not divide by zero."""
    packed = awq_layout.quantize(torch.zeros(8, 32), 32)
    assert awq_layout.dequantize(packed, 32).abs().max() == 0.0


def test_sizes_that_do_not_divide() -> None:
    """They are refused with the number."""
    with pytest.raises(ValueError, match="12 columns"):
        awq_layout.pack(torch.zeros(1, 12))
    with pytest.raises(ValueError, match="48 input columns"):
        awq_layout.quantize(torch.zeros(8, 48), 32)


def test_import_is_free() -> None:
    """Importing the package loads neither torch nor CuPy."""
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; import ixc_cuda.awq_layout;"
        "print({'torch', 'cupy'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert result.stdout.strip() == "set()"
