"""How the elementwise kernels are laid out, without a GPU."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixc_cuda import rms_norm, swiglu


@given(rows=st.integers(1, 10_000), eighths=st.integers(1, 8192))
def test_a_norms_block_holds_a_whole_row(rows: int, eighths: int) -> None:
    """In registers, and without a warp that has nothing to do."""
    config = rms_norm.configure(rows, 8 * eighths)
    assert config.threads % 32 == 0
    assert config.threads <= 1024
    assert config.threads * config.vectors >= eighths
    assert (config.threads - 32) * config.vectors < eighths


def test_one_row_is_spread_and_many_are_not() -> None:
    """The 7B model's rows: all threads on one, or few threads with much in flight on each."""
    assert rms_norm.configure(1, 4096) == rms_norm.Configuration(threads=512, vectors=1)
    assert rms_norm.configure(8192, 4096) == rms_norm.Configuration(threads=128, vectors=4)


def test_a_row_too_long_is_refused_with_the_limit() -> None:
    with pytest.raises(ValueError, match="at most 65536"):
        rms_norm.configure(1, 65544)


@given(eighths=st.integers(1, 10_000))
def test_a_gates_blocks_cover_the_row(eighths: int) -> None:
    """A thread makes two vectors; no block is without work."""
    threads, blocks = swiglu.configure(8 * eighths)
    assert threads % 32 == 0
    assert 2 * threads * (blocks - 1) < eighths <= 2 * threads * blocks
