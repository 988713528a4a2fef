"""Sampling on the device against the sampler that defines it.

Where the judge finds only one answer that rounding allows, the device must give it; elsewhere one
that is possible. Greedy rows, ties and top_k know no rounding.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ixc_cuda.sampling import SamplingState, sample
from ixc_runtime.sampling import sampler
from ixc_runtime.sampling.sampler import SamplingRow
from tests.fakes.sampling_judge import PLAIN, judge

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
VOCABS = (320, 1001, 49152, 92544)

USUAL = replace(PLAIN, top_k=50, top_p=0.8)
GREEDY = replace(PLAIN, temperature=0.0)


def random_logits(
    rows: int, vocab: int, dtype: torch.dtype, seed: int, spread: float = 3.0
) -> Tensor:
    """Like a model's: a broad bell, and a few tokens far above it. Rows padded to whole vectors."""
    generator = torch.Generator().manual_seed(seed)
    padded = torch.zeros(rows, -(-vocab // 8) * 8)
    padded[:, vocab:] = torch.nan  # nobody may look there
    logits = padded[:, :vocab]
    logits.copy_(torch.randn(rows, vocab, generator=generator) * spread)
    for row in logits:
        few = torch.randint(vocab, (20,), generator=generator)
        row[few] += torch.rand(20, generator=generator) * 15
    return padded.to("cuda", dtype)[:, :vocab]


def draw(
    logits: Tensor, rows: Sequence[SamplingRow], state: SamplingState | None = None
) -> list[int | None]:
    """One token a row, as `sampler.sample` returns them."""
    state = state or admitted(rows, logits.shape[1])
    state.stage(range(len(rows)), [row.position for row in rows])
    out_ids = torch.full((len(rows),), -7, device="cuda")
    out_finite = torch.zeros(len(rows), dtype=torch.bool, device="cuda")
    sample(logits, state, len(rows), out_ids=out_ids, out_finite=out_finite)
    return [
        token_id if finite else None
        for token_id, finite in zip(out_ids.tolist(), out_finite.tolist(), strict=True)
    ]


def admitted(rows: Sequence[SamplingRow], vocab: int) -> SamplingState:
    state = SamplingState(num_slots=len(rows), vocab=vocab, device=torch.device("cuda"))
    for slot, row in enumerate(rows):
        state.admit(slot, row)
    return state


def errors_of(logits: Tensor, rows: Sequence[SamplingRow]) -> tuple[list[str], float]:
    """What is wrong with the tokens drawn, and the share of rows with one possible answer."""
    before = logits.clone()
    drawn = draw(logits, rows)
    wrong = [] if torch.equal(before, logits) else ["the logits were changed"]
    clear = 0
    for index, (row, token_id) in enumerate(zip(rows, drawn, strict=True)):
        raw = logits[index].float().cpu()
        if token_id is None or not 0 <= token_id < logits.shape[1]:
            wrong.append(f"row {index}: {token_id}, {row}")
            continue
        verdict = judge(raw, row, token_id)
        clear += verdict.clear is not None
        expected = verdict.clear
        if expected is not None:
            (defined,) = sampler.sample(raw[None], [row])
            assert defined is not None and defined.token_id == expected, "the judge errs"
        if not verdict.possible or (expected is not None and token_id != expected):
            wrong.append(f"row {index}: {token_id}, expected {expected}: {row}")
    return wrong, clear / len(rows)


def random_row(source: random.Random, vocab: int) -> SamplingRow:
    """Any setting may be on or off; now and then an extreme one."""
    history = Counter(source.choices(range(vocab), k=source.choice((0, 1, 30, 400))))
    edited = source.sample(range(vocab), 64)
    return SamplingRow(
        temperature=source.choice((0.0, 1e-4, 0.3, 0.7, 1.0, 1.0, 1.7, 20.0)),
        top_p=source.choice((1.0, 1.0, 0.8, 0.95, 0.3, 1e-6, 0.9999)),
        top_k=source.choice((0, 0, 50, 1, 3, 200, 256, 257, 5000, vocab, 2**31 - 1)),
        min_p=source.choice((0.0, 0.0, 0.05, 0.5, 1e-5, 1.0)),
        repetition_penalty=source.choice((1.0, 1.0, 1.3, 0.8)),
        presence_penalty=source.choice((0.0, 0.0, 0.5, -2.0)),
        frequency_penalty=source.choice((0.0, 0.0, 0.1)),
        seed=source.randrange(2**64),
        position=source.randrange(2**17),
        sample=source.choice((0, 1, 5)),
        generated=dict(history),
        logit_bias=tuple(
            (token_id, source.uniform(-10, 10)) for token_id in edited[: source.choice((0, 3, 60))]
        ),
        banned=tuple(edited[-source.choice((1, 4)) :]) if source.random() < 0.3 else (),
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize("num_rows", [1, 3, 17, 40, 80, 150])
def test_any_settings(num_rows: int, vocab: int, dtype: torch.dtype) -> None:
    """As defined, whatever the settings and however many blocks work on a row."""
    source = random.Random(f"{num_rows} {vocab} {dtype}")
    rows = [random_row(source, vocab) for _ in range(num_rows)]
    wrong, clear = errors_of(random_logits(num_rows, vocab, dtype, seed=num_rows), rows)
    assert not wrong
    assert clear > 0.6 or num_rows < 17


@settings(deadline=None, max_examples=150)
@given(
    vocab=st.integers(65, 3000),
    temperature=st.floats(1e-5, 100),
    top_p=st.floats(1e-6, 1),
    top_k=st.integers(0, 400),
    min_p=st.floats(0, 1),
    seed=st.integers(0, 2**64 - 1),
    position=st.integers(0, 2**32 - 1),
    spread=st.floats(0, 30),
    dtype=st.sampled_from(DTYPES),
)
def test_drawn_settings(
    vocab: int,
    temperature: float,
    top_p: float,
    top_k: int,
    min_p: float,
    seed: int,
    position: int,
    spread: float,
    dtype: torch.dtype,
) -> None:
    """As defined, at any numbers, on peaked, flat and constant rows."""
    row = replace(
        PLAIN,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        seed=seed,
        position=position,
    )
    wrong, _ = errors_of(random_logits(1, vocab, dtype, seed % 2**31, spread), [row])
    assert not wrong


def test_neighbours() -> None:
    """A row's token does not depend on the rows beside it, or on how many there are."""
    source = random.Random(5)
    rows = [random_row(source, 92544) for _ in range(150)]
    logits = random_logits(150, 92544, torch.bfloat16, seed=2)
    together = draw(logits, rows)
    for index in (0, 17, 149):
        assert draw(logits[index : index + 1], [rows[index]]) == [together[index]]
    assert draw(logits[:40], rows[:40]) == together[:40]
    assert draw(logits, rows) == together


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_rows", [2, 200])
def test_equal_logits(num_rows: int, dtype: torch.dtype) -> None:
    """Greedy takes the lowest id of equals; top_k keeps all that equal the k-th."""
    logits = random_logits(num_rows, 92544, dtype, seed=1).clamp(max=2)
    expected = logits.float().cpu().argmax(1).tolist()
    assert draw(logits, [GREEDY] * num_rows) == expected
    wrong, _ = errors_of(logits, [replace(USUAL, seed=seed) for seed in range(num_rows)])
    assert not wrong
    flat = torch.full_like(logits, -3.5)
    assert draw(flat, [GREEDY] * num_rows) == [0] * num_rows
    wrong, _ = errors_of(flat, [replace(USUAL, seed=seed) for seed in range(num_rows)])
    assert not wrong


@pytest.mark.parametrize("num_rows", [1, 200])
@pytest.mark.parametrize("row", [PLAIN, USUAL, GREEDY], ids=["plain", "usual", "greedy"])
def test_rows_that_are_not_finite(row: SamplingRow, num_rows: int) -> None:
    """NaN, +inf or nothing but -inf anywhere: no token; one finite logit: that one."""
    for place in (0, 4097, 92543):
        for value, expected in ((torch.nan, None), (torch.inf, None), (-torch.inf, 8)):
            logits = random_logits(num_rows, 92544, torch.bfloat16, seed=3)
            logits[:, place] = value
            if expected is not None:
                logits[:] = value
                logits[:, place] = -300.0
            result = draw(logits, [row] * num_rows)
            assert result == [None if expected is None else place] * num_rows
    nothing = torch.full((num_rows, 92544), -torch.inf, device="cuda")
    assert draw(nothing, [row] * num_rows) == [None] * num_rows


def test_bans_of_everything_but_one() -> None:
    """What is banned never comes; where all is banned there is no token to draw."""
    logits = random_logits(2, 64, torch.bfloat16, seed=1)
    all_but_one = tuple(token_id for token_id in range(64) if token_id != 41)
    assert draw(logits, [replace(PLAIN, banned=all_but_one)] * 2) == [41, 41]
    assert draw(logits, [replace(PLAIN, banned=tuple(range(64)))] * 2) == [None, None]


def test_absent_rows() -> None:
    """Rows without a slot are left alone, and get token 0, which any embedding has."""
    state = admitted([GREEDY] * 4, 320)
    logits = random_logits(4, 320, torch.bfloat16, seed=1)
    logits[1] = torch.nan
    out_ids = torch.full((4,), -7, device="cuda")
    out_finite = torch.zeros(4, dtype=torch.bool, device="cuda")
    state.stage([3, -1, 2], [0, 0, 0])
    sample(logits, state, 4, out_ids=out_ids, out_finite=out_finite)
    best = logits.float().argmax(1).tolist()
    assert out_ids.tolist() == [best[0], 0, best[2], 0]
    assert out_finite.tolist() == [True] * 4


def test_counts_within_a_graph() -> None:
    """A captured step replayed with staged settings goes on as the CPU's sampler, step by step."""
    vocab, num_rows, steps = 49152, 12, 40
    source = random.Random(7)
    rows = [
        replace(
            USUAL,
            seed=source.randrange(2**64),
            temperature=source.choice((0.0, 1.0)),
            repetition_penalty=1.2,
            presence_penalty=0.3,
            frequency_penalty=0.7,
            generated={5: 2, 77: 1} if index % 2 else {},
        )
        for index in range(num_rows)
    ]
    state = admitted(rows, vocab)
    logits = torch.zeros(num_rows, vocab, device="cuda", dtype=torch.bfloat16)
    out_ids = torch.zeros(num_rows, dtype=torch.int64, device="cuda")
    out_finite = torch.zeros(num_rows, dtype=torch.bool, device="cuda")
    # Slots are not rows: the last sequence comes first.
    slots = list(reversed(range(num_rows)))
    state.stage([-1], [0])
    sample(logits, state, num_rows, out_ids=out_ids, out_finite=out_finite)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        sample(logits, state, num_rows, out_ids=out_ids, out_finite=out_finite)
    histories = [Counter(rows[slot].generated) for slot in slots]
    for step in range(steps):
        # Few tokens lead, so that penalties decide.
        logits.copy_(random_logits(num_rows, vocab, torch.bfloat16, seed=step % 3))
        state.stage(slots, [step] * num_rows)
        graph.replay()
        for index, (slot, token_id) in enumerate(zip(slots, out_ids.tolist(), strict=True)):
            row = replace(rows[slot], position=step, generated=dict(histories[index]))
            verdict = judge(logits[index].float().cpu(), row, token_id)
            assert verdict.possible and verdict.clear in (None, token_id)
            histories[index][token_id] += 1
    for index, slot in enumerate(slots):
        counted = state.counts[slot].nonzero().flatten().tolist()
        assert {each: int(state.counts[slot, each]) for each in counted} == dict(histories[index])


@pytest.mark.parametrize("num_rows", [4, 256])
@pytest.mark.parametrize("row", [PLAIN, replace(PLAIN, top_p=0.9), replace(PLAIN, top_k=12)])
def test_distribution(row: SamplingRow, num_rows: int) -> None:
    """Frequencies over many positions are the probabilities: chi-square within six sigma."""
    vocab, draws = 96, 8192
    logits = torch.randn(1, vocab, generator=torch.Generator().manual_seed(4)).bfloat16()
    expected = sampler._filter((logits.float() - logits.max().float())[0], row).double()
    expected /= expected.sum()
    state = admitted([replace(row, seed=99)] * num_rows, vocab)
    batch = logits.cuda().repeat(num_rows, 1)
    out_ids = torch.zeros(num_rows, dtype=torch.int64, device="cuda")
    out_finite = torch.zeros(num_rows, dtype=torch.bool, device="cuda")
    seen = []
    for first in range(0, draws, num_rows):
        state.stage(range(num_rows), range(first, first + num_rows))
        sample(batch, state, num_rows, out_ids=out_ids, out_finite=out_finite)
        seen.append(out_ids.clone())
    counted = torch.cat(seen).bincount(minlength=vocab).cpu().double()
    possible = expected > 0
    assert counted[~possible].sum() == 0
    wanted = expected[possible] * draws
    chi_square = float(((counted[possible] - wanted) ** 2 / wanted).sum())
    freedom = int(possible.sum()) - 1
    assert abs(chi_square - freedom) < 6 * (2 * freedom) ** 0.5
