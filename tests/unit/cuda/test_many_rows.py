"""How a linear layer of many rows is laid out over a GPU, without one."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixc_cuda import many_rows
from ixc_cuda.compiler import KERNELS
from ixc_cuda.few_rows import pays as few_rows_pay
from ixc_cuda.many_rows import INSTANTIATIONS, Configuration, configure, kernel_name, pays, supports

H200 = {"multiprocessors": 132, "shared_bytes": 227 << 10}
HOPPER = (9, 0)
LAYERS = [
    (6144, 4096, False),
    (4096, 4096, False),
    (14336, 4096, True),
    (4096, 14336, False),
    (92544, 4096, False),
]

any_rows = st.integers(1, 128)
any_outputs = st.integers(1, 12_500).map(lambda eighths: 8 * eighths)
any_k = st.integers(1, 2048).map(lambda eighths: 8 * eighths)


def h200(rows: int, outputs: int, k: int, *, swiglu: bool = False) -> Configuration:
    return configure(rows, outputs, k, swiglu=swiglu, **H200)


@pytest.mark.parametrize(("outputs", "k", "swiglu"), LAYERS)
@pytest.mark.parametrize("rows", [2, 8, 32, 64, 128])
def test_the_7b_models_layers_leave_no_ragged_end(
    rows: int, outputs: int, k: int, swiglu: bool
) -> None:
    """Blocks work equally long, but for one tile, on nearly all multiprocessors."""
    config = h200(rows, outputs, k, swiglu=swiglu)
    blocks = config.clusters * config.cut.slices
    assert any(0.96 * at_once <= blocks <= at_once for at_once in (132, 264))
    rounds = -(-outputs // config.cut.outputs) / config.clusters
    assert rounds > 0.97 * math.ceil(rounds)


@given(rows=any_rows, outputs=any_outputs, k=any_k, swiglu=st.booleans())
def test_what_is_supported_has_a_kernel(rows: int, outputs: int, k: int, swiglu: bool) -> None:
    """The instantiation for it is one of those that are compiled, for Hopper alone."""
    assert supports(rows, outputs, k, capability=HOPPER)
    config = h200(rows, outputs, k, swiglu=swiglu)
    assert config.cut.swiglu == swiglu
    name = kernel_name("__half", config.row_groups, config.cut)
    [found] = [each for each in INSTANTIATIONS if each.name == name]
    assert found.architectures == ("sm_90a",)


@given(rows=any_rows, outputs=any_outputs, k=any_k, swiglu=st.booleans())
def test_every_tile_has_a_cluster_and_every_slice_has_columns(
    rows: int, outputs: int, k: int, swiglu: bool
) -> None:
    """Clusters take tiles in turns, and those of several blocks have one tile each."""
    config = h200(rows, outputs, k, swiglu=swiglu)
    tiles = -(-outputs // config.cut.outputs)
    assert 1 <= config.clusters <= tiles
    assert config.cut.slices == 1 or config.clusters == tiles
    assert config.cut.slices <= -(-k // 64)
    assert rows <= config.box_rows < rows + 8
    assert config.box_rows <= 64 * config.row_groups


@given(rows=any_rows, outputs=any_outputs, k=any_k, swiglu=st.booleans())
def test_a_block_or_two_fit_a_multiprocessor(rows: int, outputs: int, k: int, swiglu: bool) -> None:
    """With much of the weights in flight, and room for small kernels beside them."""
    config = h200(rows, outputs, k, swiglu=swiglu)
    blocks = (228 << 10) // (config.shared_bytes + 1024)
    assert blocks in (1, 2)
    assert blocks * (config.shared_bytes + 1024) <= (228 - 4) << 10
    in_flight = config.stages * config.cut.tile * 128
    assert in_flight >= (48 << 10 if blocks == 2 else 72 << 10)


@given(rows=any_rows, outputs=any_outputs, k=any_k, swiglu=st.booleans())
def test_the_ring_holds_what_blocks_exchange(rows: int, outputs: int, k: int, swiglu: bool) -> None:
    """Sums of all slices, in float32, of every row of the products; and rows that x lacks."""
    config = h200(rows, outputs, k, swiglu=swiglu)
    ring = config.shared_bytes - 16 * config.stages
    assert ring % 1024 == 0
    if config.cut.slices > 1:
        assert ring >= 4 * config.cut.tile * 64 * config.row_groups
    assert config.box_rows + config.cut.tile >= 64 * config.row_groups


@pytest.mark.parametrize(
    ("rows", "outputs", "k", "capability"),
    [
        (0, 64, 64, HOPPER),
        (129, 64, 64, HOPPER),
        (32, 60, 64, HOPPER),
        (32, 64, 60, HOPPER),
        (32, 64, 64, (8, 0)),
        (32, 64, 64, (9, 1)),
    ],
)
def test_what_has_no_kernel(rows: int, outputs: int, k: int, capability: tuple[int, int]) -> None:
    """More rows, widths that the copy engine cannot take, other GPUs."""
    assert not supports(rows, outputs, k, capability=capability)
    assert not pays(rows, outputs, k, capability=capability)


def test_small_matrices_are_the_matrix_librarys() -> None:
    """The demo's layers take as long as a launch, whoever computes them."""
    assert supports(32, 1536, 576, capability=HOPPER)
    assert not pays(32, 1536, 576, capability=HOPPER)
    assert all(pays(32, outputs, k, capability=HOPPER) for outputs, k, _ in LAYERS)


def test_one_row_is_few_rows() -> None:
    """As are a few of a small matrix."""
    assert few_rows_pay(1, 4096, clusters=True)
    assert not pays(1, 4096, 4096, capability=HOPPER)
    assert pays(2, 4096, 4096, capability=HOPPER)
    assert few_rows_pay(8, 576, clusters=True)
    assert not pays(8, 1536, 576, capability=HOPPER)


def test_python_and_the_source_agree() -> None:
    """What the launcher reckons with are the constants of the kernel."""
    text = "".join(
        (KERNELS / name).read_text(encoding="utf-8")
        for name in ("many_rows.cu", "include/shared_products.cuh")
    )
    literal = dict(re.findall(r"constexpr int (\w+) = (\d+);", text))
    names = {
        "GROUP_ROWS": "_GROUP_ROWS",
        "ROW_ELEMENTS": "_ROW_ELEMENTS",
        "BARRIER_BYTES": "_BARRIER_BYTES",
        "PATTERN_ROWS": "_PATTERN_ROWS",
    }
    assert {theirs: int(literal[theirs]) for theirs in names} == {
        theirs: getattr(many_rows, ours) for theirs, ours in names.items()
    }
    [shared] = re.findall(r"ROW_GROUPS \* PARTS \* WIDTH <= (\d+) \? 2 : 1", text)
    assert many_rows.may_share(1, many_rows.Cut(width=int(shared)))
    assert not many_rows.may_share(1, many_rows.Cut(width=int(shared) + 8))
