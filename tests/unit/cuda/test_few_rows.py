"""How a linear layer of few rows is laid out over a GPU, without one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixc_cuda import few_rows, row_ring
from ixc_cuda.compiler import KERNELS
from ixc_cuda.few_rows import INSTANTIATIONS, Configuration, configure, pays, supports

H200 = {"multiprocessors": 132, "shared_bytes": 227 << 10}
A100 = {"multiprocessors": 108, "shared_bytes": 163 << 10}


def h200(rows: int, n: int, k: int, *, norm: bool = False) -> Configuration:
    return configure(rows, n, k, norm=norm, **H200)


@pytest.mark.parametrize(
    ("n", "k", "tiles_a_block"),
    [(6144, 4096, 3), (4096, 4096, 2), (28672, 4096, 14), (4096, 14336, 2), (92544, 4096, 44)],
)
@pytest.mark.parametrize("rows", [2, 8])
def test_the_7b_models_layers_leave_no_ragged_end(
    rows: int, n: int, k: int, tiles_a_block: int
) -> None:
    """Blocks work equally long, but for one tile, on nearly all multiprocessors."""
    config = h200(rows, n, k)
    blocks = config.clusters * config.slices
    assert 128 <= blocks <= 132
    # A block takes part in `slices` times as many tiles, each a `slices`th as long.
    assert -(-n // 16) / blocks == pytest.approx(tiles_a_block, rel=0.005)


@given(
    rows=st.integers(1, 16),
    n=st.integers(1, 100_000),
    eighths=st.integers(1, 2048),
    norm=st.booleans(),
)
def test_a_block_has_a_multiprocessor_for_itself(
    rows: int, n: int, eighths: int, norm: bool
) -> None:
    """Were there room for two, some would get two and others none; and the ring is a deep one."""
    config = h200(rows, n, 8 * eighths, norm=norm)
    assert (228 << 10) // (config.shared_bytes + 1024) == 1
    assert config.shared_bytes <= (227 - 8) << 10
    assert 5 <= config.stages <= 6


@pytest.mark.parametrize(("slices", "clusters"), [(1, 132), (2, 66), (4, 30), (8, 15)])
def test_clusters_find_room(slices: int, clusters: int) -> None:
    """As many as the driver says of an H200: more would have to wait for the others to end."""
    capacity = 4096 * slices
    assert h200(16, 1_000_000, capacity).slices == slices
    assert 0.9 * clusters <= h200(16, 1_000_000, capacity).clusters <= clusters


@given(rows=st.integers(1, 16), n=st.integers(1, 100_000), eighths=st.integers(1, 2048))
def test_every_tile_has_a_cluster_and_none_is_idle(rows: int, n: int, eighths: int) -> None:
    """Clusters take tiles in turns, as many at once as they have blocks."""
    config = h200(rows, n, 8 * eighths)
    groups = -(-n // (16 * config.slices))
    assert 1 <= config.clusters <= min(groups, 132 // config.slices)


@given(rows=st.integers(2, 16), eighths=st.integers(1, 8192))
def test_what_is_supported_has_a_kernel(rows: int, eighths: int) -> None:
    """Where rows fit, the instantiation for them is one of those that are compiled."""
    k = 8 * eighths
    for architecture, gpu in (("sm_90", H200), ("sm_80", A100)):
        if supports(rows, k, clusters=architecture == "sm_90"):
            config = configure(rows, 64, k, norm=True, **gpu)
            name = f"few_rows<__half, {config.columns}, {config.slices}>"
            [found] = [each for each in INSTANTIATIONS if each.name == name]
            assert architecture in found.architectures
            # No slice is empty, and none exceeds what a block's registers hold.
            width = -(-k // (32 * config.slices)) * 32
            assert 0 < k - (config.slices - 1) * width <= width
            assert width <= (8192 if rows <= 8 else 4096)


@pytest.mark.parametrize("rows", [0, 17])
def test_other_numbers_of_rows_are_the_matrix_librarys(rows: int) -> None:
    """A step of no rows never gets here; one of many is bound by arithmetic."""
    assert not supports(rows, 4096, clusters=True)


@pytest.mark.parametrize(("rows", "longest"), [(8, 65536), (16, 32768)])
def test_rows_that_are_too_long_are_the_matrix_librarys(rows: int, longest: int) -> None:
    """The model's longest, 14336, fit."""
    assert supports(rows, longest, clusters=True)
    assert not supports(rows, longest + 8, clusters=True)
    assert not supports(rows, 4097, clusters=True)


def test_what_pays_is_supported_and_less() -> None:
    """Nine rows and more can be done, but not as fast as by the matrix library."""
    assert pays(8, 14336, clusters=True)
    assert not pays(9, 4096, clusters=True)
    assert not pays(8, 14336, clusters=False)


def test_before_clusters_shorter_rows_fit() -> None:
    """A block then has a whole row of x."""
    assert supports(1, 16384, clusters=False)  # a kernel of its own
    assert not supports(1, 16392, clusters=False)
    assert supports(8, 8192, clusters=False)
    assert not supports(8, 8200, clusters=False)
    assert supports(9, 4096, clusters=False)
    assert not supports(9, 4104, clusters=False)


def test_python_and_the_source_agree() -> None:
    """What the launcher reckons with are the constants of the kernel."""
    text = "".join(
        (KERNELS / f"include/{name}.cuh").read_text(encoding="utf-8")
        for name in ("row_operand", "row_ring", "weight_tiles")
    )
    literal = dict(re.findall(r"constexpr int (\w+) = (\d+);", text))
    assert int(literal["WINDOW"]) == few_rows._WINDOW
    assert int(literal["X_REGISTERS"]) == few_rows._X_REGISTERS
    names = {"WARPS": "WARPS", "RING_ROWS": "TILE", "CHUNK": "CHUNK"}
    names["RING_BARRIER_BYTES"] = "BARRIER_BYTES"
    assert {theirs: int(literal[theirs]) for theirs in names} == {
        theirs: getattr(row_ring, ours) for theirs, ours in names.items()
    }
