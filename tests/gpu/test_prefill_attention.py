"""Prefill attention against float64, with NaN wherever nothing may be read or written."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ixc_cuda.prefill_attention import plan_prefill, prefill_attention

AMPERE, HOPPER = (8, 0), (9, 0)

# Norm of a row's error over the row's. Probabilities and outputs are rounded to the type: half a
# unit in the last place is 0.2 % in bf16, 0.02 % in fp16.
TOLERANCE = {torch.bfloat16: 0.01, torch.float16: 0.0015}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Sequences of (rows, context) in scattered pages; unused slots and pages are NaN."""

    sequences: tuple[tuple[int, int], ...]
    page_size: int = 64
    head_dim: int = 128
    group: int = 4
    kv_heads: int = 2
    dtype: torch.dtype = torch.bfloat16
    seed: int = 0
    planned: tuple[int, ...] | None = None  # the sequences to compute; all by default


def errors_of(problem: Problem, capability: tuple[int, int], most_rows: int = 512) -> list[str]:
    """What is wrong with the result; of long sequences, `most_rows` rows are looked at."""
    generator = torch.Generator("cuda").manual_seed(problem.seed)
    kv_heads, group, dim = problem.kv_heads, problem.group, problem.head_dim
    starts = [0]
    for rows, _ in problem.sequences:
        starts.append(starts[-1] + rows)
    contexts = [context for _, context in problem.sequences]

    def normal(*shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=generator, device="cuda", dtype=torch.float32)
        return drawn.to(problem.dtype)

    needed = [-(-context // problem.page_size) for context in contexts]
    spare = 3
    order = torch.randperm(sum(needed) + spare, generator=generator, device="cuda").int()
    # Entries past a sequence's last page are not to be followed either.
    tables = torch.full((len(contexts), max(needed) + 1), 2**30, dtype=torch.int32, device="cuda")
    pages = (len(order), problem.page_size, kv_heads, dim)
    keys, values = (torch.full(pages, float("nan"), device="cuda").to(problem.dtype) for _ in "kv")
    given_keys, given_values = [], []
    taken = 0
    for sequence, context in enumerate(contexts):
        own = order[taken : taken + needed[sequence]]
        taken += needed[sequence]
        tables[sequence, : len(own)] = own
        slots = torch.arange(context, device="cuda")
        where = own[slots // problem.page_size].long() * problem.page_size
        where += slots % problem.page_size
        for arena, given_ in ((keys, given_keys), (values, given_values)):
            written = normal(context, kv_heads, dim)
            arena.view(-1, kv_heads, dim)[where] = written
            given_.append(written)
    queries = normal(starts[-1], kv_heads, group, dim) * 2
    out = torch.full_like(queries.flatten(1), float("nan"))
    plan = plan_prefill(
        starts, contexts, tables, problem.page_size, group=group, sequences=problem.planned
    )
    for _ in range(2):  # the second time finds the counter as the first one left it
        prefill_attention(queries, keys, values, plan, out=out, capability=capability)
    torch.cuda.synchronize()

    errors = []
    for sequence, (rows, context) in enumerate(problem.sequences):
        mine = out[starts[sequence] : starts[sequence + 1]].view(rows, kv_heads, group, dim)
        if problem.planned is not None and sequence not in problem.planned:
            if not mine.isnan().all():
                errors.append(f"sequence {sequence} was not to be written")
            continue
        looked_at = sample(rows, most_rows)
        expected = reference(
            queries[starts[sequence] : starts[sequence + 1]][looked_at],
            given_keys[sequence],
            given_values[sequence],
            looked_at + (context - rows),
        )
        error = (mine[looked_at].double() - expected).norm(dim=-1) / expected.norm(dim=-1)
        wrong = ~(error < TOLERANCE[problem.dtype])
        if wrong.any():
            row, head, member = wrong.nonzero()[0].tolist()
            errors.append(
                f"sequence {sequence} {(rows, context)}: {int(wrong.sum())} of {wrong.numel()} "
                f"wrong, first row {int(looked_at[row])} head {head}.{member} by "
                f"{error[row, head, member]:.3g}; worst {error.nan_to_num(1e9).max():.3g}, "
                f"nan {int(mine.isnan().sum())}"
            )
    if int(plan.next_piece):
        errors.append(f"the counter is left at {int(plan.next_piece)}")
    return errors


def sample(rows: int, most: int) -> Tensor:
    """All rows, or else the first, the last and some between, of every remainder."""
    if rows <= most:
        return torch.arange(rows, device="cuda")
    step = rows / (most - 64)
    spread = [int(i * step) for i in range(most - 64)]
    chosen = sorted({*range(32), *spread, *range(rows - 32, rows)})
    return torch.tensor(chosen, device="cuda")


def reference(queries: Tensor, keys: Tensor, values: Tensor, positions: Tensor) -> Tensor:
    """(rows, kv_heads, group, dim) in float64, each row seeing slots up to its position."""
    out = torch.empty(queries.shape, dtype=torch.float64, device=queries.device)
    hidden = torch.arange(len(keys), device=keys.device) > positions[:, None, None]
    for head in range(queries.shape[1]):
        scores = queries[:, head].double() @ keys[:, head].double().T
        scores *= queries.shape[-1] ** -0.5
        probabilities = scores.masked_fill_(hidden, float("-inf")).softmax(-1)
        out[:, head] = probabilities @ values[:, head].double()
    return out


SHAPES = [
    ((1, 1),),
    ((15, 15),),
    ((16, 16),),
    ((17, 17),),
    ((127, 127), (128, 128), (129, 129)),
    ((1000, 1000),),
    ((1, 1000), (31, 1000), (32, 1000), (33, 1024), (1, 1025)),
    ((64, 4096), (1, 1), (300, 333), (2, 4095), (0, 70), (5, 5)),
    ((512, 512),) * 8,
    ((1500, 2048), (3, 3), (257, 8191)),
]


@pytest.mark.parametrize("capability", [AMPERE, HOPPER], ids=["sm80", "sm90"])
@pytest.mark.parametrize("page_size", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("sequences", SHAPES, ids=str)
def test_equals_float64_in_any_pages(
    sequences: tuple[tuple[int, int], ...], page_size: int, capability: tuple[int, int]
) -> None:
    """Lengths around every edge, chunks over earlier context, neighbours of any size."""
    assert errors_of(Problem(sequences=sequences, page_size=page_size), capability) == []


@pytest.mark.parametrize("capability", [AMPERE, HOPPER], ids=["sm80", "sm90"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("group", [3, 4])
def test_every_kernel_equals_float64(
    group: int, head_dim: int, dtype: torch.dtype, capability: tuple[int, int]
) -> None:
    """Each instantiation, at uneven lengths."""
    sequences = ((1, 1), (43, 43), (42, 300), (85, 85), (700, 1111))
    problem = Problem(sequences=sequences, group=group, head_dim=head_dim, dtype=dtype, kv_heads=3)
    assert errors_of(problem, capability) == []


@pytest.mark.parametrize("capability", [AMPERE, HOPPER], ids=["sm80", "sm90"])
def test_a_long_prompt_beside_short_ones(capability: tuple[int, int]) -> None:
    """32k slots, where sums are long and work is uneven."""
    problem = Problem(sequences=((7, 7), (32768, 32768), (1, 32768), (600, 20000)), kv_heads=1)
    assert errors_of(problem, capability) == []


@pytest.mark.parametrize("capability", [AMPERE, HOPPER], ids=["sm80", "sm90"])
def test_rows_of_other_sequences_are_left_alone(capability: tuple[int, int]) -> None:
    """A plan of some sequences writes their rows only."""
    problem = Problem(sequences=((40, 90), (1, 500), (33, 33), (1, 7)), planned=(0, 2))
    assert errors_of(problem, capability) == []


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    lengths = st.one_of(st.integers(1, 40), st.integers(1, 300), st.integers(1, 3000))
    sequences = []
    for _ in range(draw(st.integers(1, 6))):
        context = draw(lengths)
        sequences.append((draw(st.integers(0, context)), context))
    if not any(rows for rows, _ in sequences):
        sequences.append((1, 1))
    return Problem(
        sequences=tuple(sequences),
        page_size=draw(st.sampled_from([16, 32, 64, 128, 256])),
        head_dim=draw(st.sampled_from([64, 128])),
        group=draw(st.sampled_from([3, 4])),
        kv_heads=draw(st.integers(1, 4)),
        dtype=draw(st.sampled_from([torch.bfloat16, torch.float16])),
        seed=draw(st.integers(0, 2**31)),
    )


@given(problems(), st.sampled_from([AMPERE, HOPPER]))
@settings(max_examples=60, deadline=None)
def test_drawn_steps_equal_float64(problem: Problem, capability: tuple[int, int]) -> None:
    """Whatever sequences, pages and heads meet in a step."""
    assert errors_of(problem, capability) == []
