"""How prompt chunks are cut into tiles, which kernel takes them, and what it compiles to."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ixc_cuda.prefill_attention import (
    INSTANTIATIONS,
    TILE_ROWS,
    configure,
    cut_into_tiles,
    heads_at_once,
    plan_prefill,
)

LENGTHS = st.lists(
    st.integers(1, 400).flatmap(
        lambda context: st.tuples(st.integers(0, context), st.just(context))
    ),
    max_size=8,
)


@given(LENGTHS, st.sampled_from([32, 42]))
def test_tiles_hold_every_row_once(sequences: list[tuple[int, int]], positions: int) -> None:
    """Each with the context its last row sees."""
    starts = [0]
    for rows, _ in sequences:
        starts.append(starts[-1] + rows)
    contexts = [context for _, context in sequences]
    tiles = cut_into_tiles(starts, contexts, range(len(contexts)), positions).tolist()
    covered = {}
    for first, rows, context, sequence in tiles:
        assert 0 < rows <= positions
        for row in range(first, first + rows):
            covered[row] = (sequence, context - (first + rows - row))
    expected = {
        starts[s] + i: (s, context - rows + i)
        for s, (rows, context) in enumerate(sequences)
        for i in range(rows)
    }
    assert covered == expected
    assert sum(rows for _, rows, _, _ in tiles) == starts[-1]


def test_long_sequences_come_first_and_each_stays_together() -> None:
    """The small tiles fill the end, and who reads the same pages reads them at the same time."""
    tiles = cut_into_tiles((0, 40, 80, 120), (50, 900, 50), range(3), 32)
    assert tiles[:, 2:].tolist() == [[900, 1], [892, 1], [50, 0], [42, 0], [50, 2], [42, 2]]


@pytest.mark.parametrize(
    ("context", "heads"), [(512, 8), (2048, 8), (8192, 4), (32768, 1), (98304, 1)]
)
def test_as_many_heads_at_once_as_the_l2_holds(context: int, heads: int) -> None:
    """Keys and values of 128 in 16 bits; half of 60 MB is theirs."""
    assert heads_at_once(8, context * 512, 60 << 20) == heads


def test_three_heads_go_together_or_alone() -> None:
    """Only divisors leave no rest."""
    assert [heads_at_once(3, size, 60) for size in (10, 11, 31)] == [3, 1, 1]


def test_a_plan_of_some_sequences_leaves_the_others_out() -> None:
    """Those that decode go elsewhere; rows keep their numbers in the step."""
    plan = plan_prefill((0, 40, 41, 44), (50, 9, 3), tables(3, 1), 64, group=4, sequences=(0, 2))
    assert plan.tiles.tolist() == [[32, 8, 50, 0], [0, 32, 42, 0], [41, 3, 3, 2]]
    assert plan.num_rows == 44


def test_tables_become_what_the_kernels_read() -> None:
    """The engine counts pages in 64 bits, the kernels in 32."""
    plan = plan_prefill((0, 1), (1,), tables(1, 4).to(torch.int64), 16, group=3)
    assert plan.page_tables.dtype == torch.int32


@pytest.mark.parametrize("page_size", [8, 24, 0])
def test_odd_pages_are_refused(page_size: int) -> None:
    """A slot's page is found by shifting, and a copy brings no less than 16 slots."""
    with pytest.raises(ValueError, match=f"pages of {page_size} slots"):
        plan_prefill((0, 1), (1,), tables(1, 1), page_size, group=4)


@pytest.mark.parametrize(("starts", "contexts"), [((0, 5), (4,)), ((0, 5), (65,)), ((5, 0), (9,))])
def test_sequences_that_do_not_fit_are_refused(
    starts: tuple[int, ...], contexts: tuple[int, ...]
) -> None:
    """More rows than context, or more context than the table has pages for."""
    with pytest.raises(ValueError, match="sequence 0 has"):
        plan_prefill(starts, contexts, tables(1, 1), 64, group=4)


def test_hopper_gets_its_own_kernel_and_others_the_common_one() -> None:
    """Copies and products of 9.0 exist on 9.0 alone."""
    hopper = configure((9, 0), torch.bfloat16, 128, 4)
    assert hopper.name == "prefill_attention_sm90<__nv_bfloat16, 128, 4>"
    assert hopper.persistent
    for capability in ((8, 0), (8, 6), (8, 9), (9, 1)):
        common = configure(capability, torch.float16, 64, 3)
        assert common.name == "prefill_attention_sm80<__half, 64, 3>"
        assert not common.persistent


@pytest.mark.parametrize("head_dim", [64, 128])
def test_shared_memory_fits_the_smallest_block_of_its_architecture(head_dim: int) -> None:
    """227 KiB on 9.0; 99 KiB on 8.6 and 8.9, the least of 8.x."""
    assert configure((9, 0), torch.bfloat16, head_dim, 4).shared_bytes <= 227 << 10
    assert configure((8, 6), torch.bfloat16, head_dim, 4).shared_bytes <= 99 << 10


def test_every_configuration_is_compiled_in_advance() -> None:
    """What `configure` names is what the catalogue lists."""
    named = {
        (found.source, found.name)
        for capability in ((8, 0), (9, 0))
        for dtype in (torch.bfloat16, torch.float16)
        for head_dim in (64, 128)
        for group in (3, 4)
        for found in [configure(capability, dtype, head_dim, group)]
    }
    assert named == {(each.source, each.name) for each in INSTANTIATIONS}


@pytest.mark.parametrize(
    ("dtype", "head_dim", "group"),
    [(torch.float32, 128, 4), (torch.bfloat16, 96, 4), (torch.bfloat16, 128, 5)],
)
def test_shapes_without_a_kernel_are_refused(dtype: torch.dtype, head_dim: int, group: int) -> None:
    """With what was asked for and what there is."""
    with pytest.raises(ValueError, match=rf"no kernel for {dtype}, heads of {head_dim}, {group}"):
        configure((9, 0), dtype, head_dim, group)


@pytest.mark.parametrize("group", [3, 4])
def test_a_tile_holds_whole_positions(group: int) -> None:
    """All heads of a position stand in the same tile, and most rows are used."""
    assert TILE_ROWS // group * group > TILE_ROWS - group


def tables(sequences: int, pages: int) -> torch.Tensor:
    return torch.zeros(sequences, pages, dtype=torch.int32)
