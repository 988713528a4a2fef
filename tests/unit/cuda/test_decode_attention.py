"""Which kernel decoding asks for, how much room it takes, and what it refuses."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ixc_cuda.decode_attention import (
    HEAD_DIMS,
    INSTANTIATIONS,
    MAX_GROUP,
    MAX_QUERY_ROWS,
    DecodePlan,
    DecodeWorkspace,
    decode_attention,
    num_workers,
    passes_for,
    plan_decode,
)

KV_HEADS, GROUP, HEAD_DIM = 2, 4, 64


def workspace(max_batch: int = 4, max_query_rows: int = 2) -> DecodeWorkspace:
    return DecodeWorkspace(
        max_batch=max_batch,
        max_query_rows=max_query_rows,
        kv_heads=KV_HEADS,
        group=GROUP,
        head_dim=HEAD_DIM,
        multiprocessors=132,
        device="cpu",
    )


@given(st.integers(1, MAX_QUERY_ROWS * MAX_GROUP))
def test_passes_hold_all_rows(rows: int) -> None:
    """None is idle, and pages are read more than once only for more than 24 rows."""
    found = passes_for(rows)
    room = 8 * found.query_tiles
    assert room * (found.passes - 1) < rows <= room * found.passes
    assert (found.passes == 1) == (rows <= 24)


@pytest.mark.parametrize(
    ("rows", "query_tiles"), [(3, 1), (4, 1), (8, 1), (9, 2), (24, 3), (32, 2)]
)
def test_few_rows_take_the_narrow_kernel(rows: int, query_tiles: int) -> None:
    assert passes_for(rows).query_tiles == query_tiles


def test_every_kernel_that_may_be_asked_for_is_listed() -> None:
    listed = {each.name for each in INSTANTIATIONS}
    for rows in range(1, MAX_QUERY_ROWS * MAX_GROUP + 1):
        tiles = passes_for(rows).query_tiles
        for head_dim in HEAD_DIMS:
            for dtype in ("__nv_bfloat16", "__half"):
                pages = f"PlainPages<{dtype}, {head_dim}>"
                assert f"decode_attention<{pages}, {head_dim}, {tiles}>" in listed
    assert "decode_plan" in listed


@pytest.mark.parametrize(("rows", "blocks"), [(1, 3), (8, 3), (9, 2), (64, 2)])
def test_workers_of_all_heads_fill_the_chip_once(rows: int, blocks: int) -> None:
    """One more a head would not fit beside the others, and run alone when they are done."""
    for multiprocessors in (1, 108, 132):
        for kv_heads in (1, 3, 8, 64):
            workers = num_workers(multiprocessors, kv_heads, rows)
            assert workers == 1 or workers * kv_heads <= blocks * multiprocessors
            assert (workers + 1) * kv_heads > blocks * multiprocessors


def test_workspace_has_room_for_two_partial_results_a_worker() -> None:
    small, large = workspace(max_query_rows=1), workspace(max_query_rows=2)
    for room in (small, large):
        rows = 2 * room.workers * KV_HEADS * GROUP * room.max_query_rows
        assert room.sums.shape == (rows, HEAD_DIM)
        assert room.stats.shape == (rows, 2)
    assert small.num_bytes >= small.sums.nbytes + small.stats.nbytes


@pytest.mark.parametrize(
    "unfit", [{"head_dim": 80}, {"group": 9}, {"group": 0}, {"max_query_rows": 9}]
)
def test_unfit_models_are_refused_with_the_value(unfit: dict[str, int]) -> None:
    fit = {"max_batch": 1, "max_query_rows": 1, "kv_heads": 1, "group": 4, "head_dim": 128}
    (value,) = unfit.values()
    with pytest.raises(ValueError, match=f": {value};"):
        DecodeWorkspace(**{**fit, **unfit}, multiprocessors=132, device="cpu")


def test_no_sequences_are_no_work() -> None:
    """Nothing is launched, so this passes without a GPU."""
    room = workspace()
    lengths = torch.empty(0, dtype=torch.int32)
    plan = plan_decode(lengths, room)
    pages = torch.empty(1, 16, KV_HEADS, HEAD_DIM, dtype=torch.bfloat16)
    decode_attention(
        torch.empty(0, KV_HEADS, GROUP, HEAD_DIM, dtype=torch.bfloat16),
        pages,
        pages,
        torch.empty(0, 1, dtype=torch.int32),
        lengths,
        plan,
        out=torch.empty(0, KV_HEADS * GROUP * HEAD_DIM, dtype=torch.bfloat16),
    )


def test_more_sequences_than_there_is_room_for() -> None:
    with pytest.raises(ValueError, match="5 sequences; the workspace is for 4"):
        plan_decode(torch.ones(5, dtype=torch.int32), workspace(max_batch=4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": torch.empty(2, 2, 4, 64)}, "dtype torch.float32"),
        ({"keys": torch.empty(3, 16, 2, 64, dtype=torch.float16)}, "keys is torch.float16"),
        ({"page_tables": torch.zeros(2, 1, dtype=torch.int64)}, "page_tables is torch.int64"),
        ({"page_tables": torch.zeros(3, 1, dtype=torch.int32)}, "3 page tables"),
        ({"queries": torch.empty(2, 2, 3, 64, dtype=torch.bfloat16)}, r"\(2, 4, 64\)"),
        ({"queries": torch.empty(3, 2, 4, 64, dtype=torch.bfloat16)}, "3 query rows"),
        ({"queries": torch.empty(6, 2, 4, 64, dtype=torch.bfloat16)}, "2 at most"),
        ({"values": torch.empty(3, 16, 1, 64, dtype=torch.bfloat16)}, r"\(3, 16, 1, 64\)"),
        ({"out": torch.empty(2, 511, dtype=torch.bfloat16)}, r"out has shape \(2, 511\)"),
        (
            {"values": torch.empty(3, 16, 64, 2, dtype=torch.bfloat16).transpose(2, 3)},
            "values is not contiguous",
        ),
        (
            {
                "keys": torch.empty(3, 24, 2, 64, dtype=torch.bfloat16),
                "values": torch.empty(3, 24, 2, 64, dtype=torch.bfloat16),
            },
            "page size: 24",
        ),
    ],
)
def test_unfit_tensors_are_refused_before_anything_runs(
    changes: dict[str, torch.Tensor], message: str
) -> None:
    pages = torch.empty(3, 16, KV_HEADS, HEAD_DIM, dtype=torch.bfloat16)
    given = {
        "queries": torch.empty(2, KV_HEADS, GROUP, HEAD_DIM, dtype=torch.bfloat16),
        "keys": pages,
        "values": pages,
        "page_tables": torch.zeros(2, 1, dtype=torch.int32),
        "context_lengths": torch.ones(2, dtype=torch.int32),
        "out": torch.empty(2, KV_HEADS * GROUP * HEAD_DIM, dtype=torch.bfloat16),
    }
    plan = DecodePlan(workspace=workspace(), num_sequences=2)
    with pytest.raises(ValueError, match=message):
        decode_attention(**{**given, **changes}, plan=plan)
