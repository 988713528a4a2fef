"""Decode attention against float64, with NaN wherever nothing may be read or written."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ixc_cuda.decode_attention import DecodeWorkspace, decode_attention, plan_decode
from ixc_cuda.device import check_device

# Norm of a row's error over the row's. Probabilities and outputs are rounded to the type: half a
# unit in the last place is 0.2 % in bf16, 0.02 % in fp16.
TOLERANCE = {torch.bfloat16: 0.01, torch.float16: 0.0015}

LENGTHS = (1, 15, 16, 17, 63, 64, 65, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Sequences of some context lengths in scattered pages; unused slots and pages are NaN."""

    lengths: tuple[int, ...]
    query_rows: int = 1
    page_size: int = 64
    head_dim: int = 128
    group: int = 4
    kv_heads: int = 2
    dtype: torch.dtype = torch.bfloat16
    scale: float = 1.0  # of the queries: large ones make one slot outweigh all others
    seed: int = 0


class Inputs:
    """A problem's tensors, and what a sequence's keys and values are without pages."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        generator = torch.Generator("cuda").manual_seed(problem.seed)
        lengths, size = problem.lengths, problem.page_size
        kv_heads, dim = problem.kv_heads, problem.head_dim

        def normal(*shape: int) -> Tensor:
            drawn = torch.randn(shape, generator=generator, device="cuda", dtype=torch.float32)
            return drawn.to(problem.dtype)

        needed = [-(-length // size) for length in lengths]
        order = torch.randperm(sum(needed) + 3, generator=generator, device="cuda").int()
        # Entries past a sequence's last page are not to be followed either.
        shape = (len(lengths), max(needed) + 1)
        self.page_tables = torch.full(shape, 2**30, dtype=torch.int32, device="cuda")
        pages = (len(order), size, kv_heads, dim)
        self.keys, self.values = (
            torch.full(pages, float("nan"), device="cuda", dtype=problem.dtype) for _ in "kv"
        )
        self.gathered: list[tuple[Tensor, Tensor]] = []
        taken = 0
        for sequence, length in enumerate(lengths):
            own = order[taken : taken + needed[sequence]]
            taken += needed[sequence]
            self.page_tables[sequence, : needed[sequence]] = own
            slots = torch.arange(length, device="cuda")
            page, offset = own.long()[slots // size], slots % size
            pair = normal(length, kv_heads, dim), normal(length, kv_heads, dim)
            self.keys[page, offset], self.values[page, offset] = pair
            self.gathered.append(pair)
        rows = len(lengths) * problem.query_rows
        self.queries = normal(rows, kv_heads, problem.group, dim) * problem.scale
        self.lengths = torch.tensor(lengths, dtype=torch.int32, device="cuda")
        self.workspace = DecodeWorkspace(
            max_batch=len(lengths),
            max_query_rows=problem.query_rows,
            kv_heads=kv_heads,
            group=problem.group,
            head_dim=dim,
            multiprocessors=check_device(0).multiprocessors,
            device="cuda",
        )
        # What was not written must not be read.
        self.workspace.sums.fill_(float("nan"))
        self.workspace.stats.fill_(float("nan"))

    def attend(self) -> Tensor:
        rows = len(self.queries)
        out = torch.full_like(self.queries, float("nan")).view(rows, -1)
        plan = plan_decode(self.lengths, self.workspace)
        pages = (self.keys, self.values, self.page_tables)
        decode_attention(self.queries, *pages, self.lengths, plan, out=out)
        return out.view(self.queries.shape)

    def expected(self, sequence: int, length: int) -> Tensor:
        """One sequence's rows in float64; zeros for a row that sees nothing."""
        problem = self.problem
        rows = slice(sequence * problem.query_rows, (sequence + 1) * problem.query_rows)
        keys, values = (each[:length].double() for each in self.gathered[sequence])
        scores = torch.einsum("rhgd,shd->rhgs", self.queries[rows].double(), keys)
        scores /= problem.head_dim**0.5
        slots = torch.arange(len(keys), device="cuda")
        ends = torch.arange(problem.query_rows, device="cuda") + len(keys) - problem.query_rows
        hidden = slots > ends[:, None]
        scores.masked_fill_(hidden[:, None, None], -torch.inf)
        weights = scores.softmax(-1).nan_to_num(0.0)
        return torch.einsum("rhgs,shd->rhgd", weights, values)


def errors_of(problem: Problem) -> list[str]:
    """What is wrong with the result."""
    inputs = Inputs(problem)
    outs = [inputs.attend() for _ in range(2)]
    errors = []
    if not torch.equal(*(out.view(torch.int16) for out in outs)):
        errors.append("the same inputs gave other bits the second time")
    if inputs.workspace.arrivals.any():
        errors.append("arrivals are not zero afterwards")
    rows = problem.query_rows
    for sequence, length in enumerate(problem.lengths):
        out = outs[0][sequence * rows : (sequence + 1) * rows]
        if length == 0:
            if not out.isnan().all():
                errors.append(f"sequence {sequence} is absent but was written")
            continue
        expected = inputs.expected(sequence, length)
        distance = (out.double() - expected).norm(dim=-1)
        wrong = ~(distance <= TOLERANCE[problem.dtype] * expected.norm(dim=-1))
        if wrong.any():
            row, head, query = wrong.nonzero()[0].tolist()
            errors.append(
                f"sequence {sequence} of {length} slots: {int(wrong.sum())} of {wrong.numel()} "
                f"rows wrong, first row {row}, KV head {head}, query {query}: distance "
                f"{distance[row, head, query]:.4g}, norm {expected[row, head, query].norm():.4g}"
            )
    return errors


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(
        st.one_of(st.just(0), st.integers(1, 200), st.integers(1, 100_000)),
        min_size=1,
        max_size=300,
    ),
    kv_heads=st.integers(1, 8),
)
def test_work_is_divided_evenly(lengths: list[int], kv_heads: int) -> None:
    """Every tile has one worker, workers differ by a tile at most, and spans name them rightly."""
    workspace = DecodeWorkspace(
        max_batch=len(lengths),
        max_query_rows=1,
        kv_heads=kv_heads,
        group=1,
        head_dim=64,
        multiprocessors=check_device(0).multiprocessors,
        device="cuda",
    )
    plan_decode(torch.tensor(lengths, dtype=torch.int32, device="cuda"), workspace)
    tiles = [(s, tile) for s, length in enumerate(lengths) for tile in range(-(-length // 64))]
    workers: dict[int, list[int]] = {}
    at = 0
    shares = [share for share in workspace.shares.tolist() if share[2]]
    for worker, (sequence, first_tile, count, length) in enumerate(shares):
        assert tiles[at] == (sequence, first_tile)
        assert length == lengths[sequence]
        for named, _ in tiles[at : at + count]:
            workers.setdefault(named, []).append(worker)
        at += count
    assert at == len(tiles)
    counts = [share[2] for share in shares]
    assert not counts or max(counts) - min(counts) <= 1
    spans = workspace.spans.tolist()
    for sequence, (first, count) in enumerate(spans):
        named = sorted(set(workers.get(sequence, [])))
        assert list(range(first, first + count)) == named


@pytest.mark.parametrize("page_size", [16, 64, 128])
@pytest.mark.parametrize("lengths", [*((each,) for each in LENGTHS), LENGTHS, (32_768,)])
def test_awkward_lengths(lengths: tuple[int, ...], page_size: int) -> None:
    assert errors_of(Problem(lengths=lengths, page_size=page_size)) == []


@pytest.mark.parametrize("lengths", [(0,), (0, 0, 70, 0, 1, 0), (3, 0, 40_000, 1, 0, 700, 5)])
def test_absent_and_huge_neighbours(lengths: tuple[int, ...]) -> None:
    """A sequence's result does not depend on its neighbours, and an absent one's is not written."""
    assert errors_of(Problem(lengths=lengths)) == []


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("group", [1, 3, 4, 8])
@pytest.mark.parametrize("query_rows", [1, 2, 3, 4, 5, 8])
def test_every_kernel(query_rows: int, group: int, head_dim: int, dtype: torch.dtype) -> None:
    """Each row sees one slot more than the row before it; some see nothing and become zeros."""
    problem = Problem(
        lengths=(1, 3, 17, 64, 65, 333, 2000),
        query_rows=query_rows,
        group=group,
        head_dim=head_dim,
        dtype=dtype,
        kv_heads=3,
    )
    assert errors_of(problem) == []


def test_more_sequences_than_workers() -> None:
    lengths = tuple(range(1, 600))
    assert errors_of(Problem(lengths=lengths, kv_heads=8, page_size=16)) == []


def test_scores_far_apart() -> None:
    """One slot outweighs all others by more than float32's smallest weight."""
    assert errors_of(Problem(lengths=(5, 64, 3000), query_rows=4, scale=30.0)) == []


@settings(max_examples=60, deadline=None)
@given(
    problem=st.builds(
        Problem,
        lengths=st.lists(
            st.one_of(st.integers(0, 70), st.integers(0, 5000)), min_size=1, max_size=40
        ).map(tuple),
        query_rows=st.integers(1, 8),
        page_size=st.sampled_from([16, 32, 64, 128, 256]),
        head_dim=st.sampled_from([64, 128]),
        group=st.integers(1, 8),
        kv_heads=st.integers(1, 4),
        dtype=st.sampled_from(list(TOLERANCE)),
        seed=st.integers(0, 1000),
    )
)
def test_drawn_shapes(problem: Problem) -> None:
    assert errors_of(problem) == []


def test_one_graph_serves_any_lengths() -> None:
    """A captured plan and attention are replayed with other lengths, some of them absent."""
    captured = Inputs(Problem(lengths=(500, 500, 500, 500)))
    out = torch.empty_like(captured.queries).view(4, -1)

    def step() -> None:
        plan = plan_decode(captured.lengths, captured.workspace)
        pages = (captured.keys, captured.values, captured.page_tables)
        decode_attention(captured.queries, *pages, captured.lengths, plan, out=out)

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for lengths in ((500, 1, 65, 0), (0, 0, 0, 3), (64, 500, 129, 500)):
        # The graph holds addresses: the new lengths go where the old ones were.
        captured.lengths.copy_(torch.tensor(lengths, dtype=torch.int32))
        graph.replay()
        for sequence, length in enumerate(lengths):
            if length:
                expected = captured.expected(sequence, length)
                got = out[sequence].view(expected.shape).double()
                assert (got - expected).norm() <= TOLERANCE[torch.bfloat16] * expected.norm()
