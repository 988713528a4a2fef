"""How a time on a GPU is judged, and what is written down of it."""

import json
from pathlib import Path

import pytest

from ixc_cuda.device import DeviceInfo
from tests.bench.gpu import Ceilings, Context, Row, Timing, write_rows

CONTEXT = Context(
    device=DeviceInfo(
        name="Some GPU",
        capability=(9, 0),
        multiprocessors=132,
        shared_bytes=232_448,
        l2_bytes=60 << 20,
        memory_bytes=140 << 30,
    ),
    ceilings=Ceilings(
        copy_bytes_per_second=4e12,
        read_bytes_per_second=4e12,
        bf16_operations_per_second=800e12,
    ),
)
TIMING = Timing(median=20.0, spread=0.5, least=19.5)


def test_bytes_bound_a_row_that_moves_much() -> None:
    """40 MB at 4 TB/s take 10 us; half of that is reached in 20."""
    row = CONTEXT.row("read", TIMING, num_bytes=40_000_000, operations=800_000_000)
    assert (row.floor, row.ratio, row.rate) == (10.0, 0.5, "2.00 TB/s")


def test_operations_bound_a_row_that_computes_much() -> None:
    row = CONTEXT.row("product", TIMING, num_bytes=4_000_000, operations=12_000_000_000)
    assert row.floor == pytest.approx(15.0)
    assert row.ratio == pytest.approx(0.75)
    assert row.rate == "600 TFLOP/s"


def test_row_without_a_floor_has_no_share() -> None:
    row = CONTEXT.row("launch", TIMING)
    assert (row.value, row.unit, row.floor, row.ratio) == (20.0, "us", None, None)


@pytest.mark.parametrize(("num_bytes", "sets"), [(1, 64), (60 << 20, 4), (1 << 40, 2)])
def test_buffers_exceed_the_cache_but_not_the_memory(num_bytes: int, sets: int) -> None:
    """Three times the L2, by at least two sets and at most 64."""
    assert CONTEXT.num_sets(num_bytes) == sets


def test_file_says_how_its_figures_came_about(tmp_path: Path) -> None:
    rows = [CONTEXT.row("read", TIMING, num_bytes=40_000_000)]
    write_rows(tmp_path / "results" / "kernels.json", CONTEXT, rows, {"repeats": 20})
    document = json.loads((tmp_path / "results" / "kernels.json").read_text())
    assert set(document) >= {"command", "measured", "machine", "versions", "ceilings", "rows"}
    assert set(document["versions"]) >= {"torch", "cupy-cuda13x", "driver"}
    assert document["gpu"]["name"] == "Some GPU"
    assert [Row(**row) for row in document["rows"]] == rows
