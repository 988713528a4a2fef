"""The floors of the 7B model are those that its goals were derived from."""

import json
from math import prod
from pathlib import Path

import pytest

from ixc_runtime.checkpoint.shards import TensorEntry
from ixc_runtime.config import load_config
from ixc_runtime.model.inventory import take_inventory
from tests.bench.engine_floors import Floors
from tests.bench.full_size_checkpoint import Sizes, config_of, shapes_of


@pytest.fixture
def floors(tmp_path: Path) -> Floors:
    sizes = Sizes()
    (tmp_path / "config.json").write_text(json.dumps(config_of(sizes)))
    config = load_config(tmp_path)
    entries = {
        name: TensorEntry(
            name=name,
            dtype="BF16",
            shape=shape,
            file=tmp_path,
            offset=0,
            num_bytes=2 * prod(shape),
        )
        for name, shape in shapes_of(sizes)
    }
    return Floors(
        config=config,
        inventory=take_inventory(config, entries),
        item_bytes=2,
        bytes_per_second=4.3e12,
        operations_per_second=790e12,
    )


@pytest.mark.parametrize(
    ("batch", "context", "milliseconds"),
    [(1, 512, 3.44), (32, 512, 3.92), (128, 512, 5.42), (256, 512, 8.76), (64, 4096, 11.4)],
)
def test_decode(floors: Floors, batch: int, context: int, milliseconds: float) -> None:
    """Milliseconds of a step on an H200."""
    assert floors.decode_step(batch, context) * 1e3 == pytest.approx(milliseconds, rel=0.005)


@pytest.mark.parametrize(("tokens", "milliseconds"), [(2048, 37.9), (8192, 167.2), (32768, 935.5)])
def test_prefill(floors: Floors, tokens: int, milliseconds: float) -> None:
    """All at the rate of large products, attention too."""
    assert floors.prefill(tokens) * 1e3 == pytest.approx(milliseconds, rel=0.01)


def test_many_prompts(floors: Floors) -> None:
    """54,000 tokens a second at 256 prompts of 512."""
    assert 256 * 512 / floors.prefill(512, sequences=256) == pytest.approx(54000, rel=0.04)


def test_pictures(floors: Floors) -> None:
    """1.25 TFLOP a tile; image tokens cost a twelfth more than others."""
    assert floors.tiles(25) * 790e12 == pytest.approx(31.2e12, rel=0.01)
    dearer = floors.prefill(10101, image_tokens=10101) - floors.prefill(10101)
    assert dearer * 790e12 == pytest.approx(2 * 0.604e9 * 10101, rel=0.01)
