"""The rotary base of a sequence, from its prompt's length alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from ixc_runtime.config import ModelConfig, load_config
from ixc_runtime.model.rope import rotary_base
from tests.fakes.tiny_checkpoint import write_tiny_checkpoint


@pytest.fixture
def config(tmp_path: Path) -> ModelConfig:
    """The published model's rotary constants."""
    tiny = load_config(write_tiny_checkpoint(tmp_path, tower=None))
    return replace(
        tiny,
        head_dim=128,
        rope_theta=1e6,
        rope_scaling_factor=2.0,
        max_position_embeddings=24576,
    )


@pytest.mark.parametrize("length", [1, 100, 24576])
def test_up_to_the_native_length(config: ModelConfig, length: int) -> None:
    """The config's own base, exactly."""
    assert rotary_base(config, length) == 1e6


def test_beyond_the_native_length(config: ModelConfig) -> None:
    """The published formula; it starts where the native range ends and only grows."""
    assert pytest.approx(rotary_base(config, 49152), rel=1e-12) == 1e6 * 3.0 ** (128 / 126)
    bases = [rotary_base(config, length) for length in (24577, 30000, 60000, 98304)]
    assert sorted(bases) == bases
    assert pytest.approx(bases[0], rel=1e-3) == 1e6


def test_without_scaling(config: ModelConfig) -> None:
    """A config without rope_scaling keeps its base at any length."""
    assert rotary_base(replace(config, rope_scaling_factor=None), 1 << 20) == 1e6
