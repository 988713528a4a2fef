"""How a linear layer of a single row is laid out over a GPU, without one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixc_cuda.one_row import INSTANTIATIONS, LONGEST, configure

H200 = {"multiprocessors": 132, "shared_bytes": 227 << 10}
A100 = {"multiprocessors": 108, "shared_bytes": 163 << 10}


@pytest.mark.parametrize(
    ("n", "k", "stages"),
    [(6144, 4096, 6), (4096, 4096, 6), (28672, 4096, 6), (4096, 14336, 5), (92544, 4096, 6)],
)
def test_the_7b_models_layers_have_deep_rings(n: int, k: int, stages: int) -> None:
    """On all multiprocessors."""
    config = configure(n, k, **H200)
    assert (config.blocks, config.stages) == (132, stages)


@pytest.mark.parametrize("gpu", [H200, A100])
@given(n=st.integers(1, 100_000), eighths=st.integers(1, LONGEST // 8))
def test_a_block_has_a_multiprocessor_for_itself(gpu: dict[str, int], n: int, eighths: int) -> None:
    """Whatever the length of the row, every column of which has a thread that brings it."""
    config = configure(n, 8 * eighths, **gpu)
    assert config.stages >= 3
    assert config.shared_bytes <= gpu["shared_bytes"] < 2 * config.shared_bytes + 2048
    assert config.parts * 8 * 256 >= 8 * eighths
    assert 1 <= config.blocks <= min(gpu["multiprocessors"], -(-n // 16))
    assert any(f", {config.parts}>" in each.name for each in INSTANTIATIONS)
