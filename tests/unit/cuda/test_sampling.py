"""The device's sampler without a device: configurations, what is staged, and the tests' judge."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from ixc_cuda.sampling import (
    EDIT,
    ROW_ENTRY,
    SLOT_SETTINGS,
    SamplingState,
    configure,
    sample,
)
from ixc_runtime.sampling import sampler
from ixc_runtime.sampling.sampler import SamplingRow
from tests.fakes.sampling_judge import judge

H200 = {"multiprocessors": 132, "capability": (9, 0)}
A100 = {"multiprocessors": 108, "capability": (8, 0)}
CPU = torch.device("cpu")

ROW = SamplingRow(
    temperature=0.7,
    top_p=0.8,
    top_k=50,
    min_p=0.1,
    repetition_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    seed=2**64 - 2,
    position=0,
    generated={},
)


@pytest.mark.parametrize(
    ("rows", "blocks"), [(1, 8), (15, 8), (16, 4), (30, 4), (31, 2), (66, 2), (67, 1), (256, 1)]
)
def test_few_rows_get_several_blocks_each(rows: int, blocks: int) -> None:
    """As many as find a multiprocessor each."""
    assert configure(rows, 92544, **H200).blocks_per_row == blocks
    assert configure(rows, 92544, **A100).blocks_per_row == 1


def test_shared_memory_fits_two_blocks() -> None:
    """Also with the marks of the largest vocabulary; 228 KiB less one a block on Hopper."""
    most = configure(256, 131072, **H200).shared_bytes
    assert 2 * (most + 1024) <= 228 * 1024
    assert configure(1, 92544, **H200).shared_bytes == 70400 + 92544 // 8


def staged(state: SamplingState) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        state.row_entries.numpy().view(ROW_ENTRY),
        state.settings.numpy().view(SLOT_SETTINGS),
        state.edits.numpy().view(EDIT),
    )


def test_a_step_is_staged() -> None:
    """Rows name their slots; settings stand at the slots, whatever the order of the rows."""
    state = SamplingState(num_slots=4, vocab=320, device=CPU)
    state.admit(2, ROW)
    state.admit(0, replace(ROW, temperature=0.0, seed=5, sample=3, top_k=2**31 - 1))
    state.stage([2, -1, 0], [17, 0, 4])
    entries, settings, _ = staged(state)
    assert entries["slot"].tolist() == [2, -1, 0, -1]
    assert entries["position"].tolist() == [17, 0, 4, 0]
    assert settings["seed"].tolist() == [5, 0, 2**64 - 2, 0]
    assert settings[2]["temperature"] == np.float32(0.7)
    assert settings[2]["top_p"] == 0.8
    assert settings[0]["temperature"] == 0
    assert (settings[0]["sample"], settings[0]["top_k"]) == (3, 2**31 - 1)


def test_a_temperature_that_float32_does_not_know() -> None:
    """Too small for float32, it is still no greedy row."""
    state = SamplingState(num_slots=1, vocab=320, device=CPU)
    state.admit(0, replace(ROW, temperature=1e-60))
    state.stage([0], [0])
    assert staged(state)[1][0]["temperature"] > 0


def test_biases_and_bans_are_merged_in_order_of_id() -> None:
    """A ban wins over a bias; bans change from step to step, biases stay."""
    state = SamplingState(num_slots=3, vocab=320, device=CPU)
    state.admit(1, replace(ROW, logit_bias=((9, 2.5), (300, -1.0), (4, 0.5)), banned=(300, 7)))
    state.admit(2, replace(ROW, banned=(1,)))
    state.stage([2, 1], [0, 0])
    _, settings, edits = staged(state)
    first, count = settings[1]["edits_begin"], settings[1]["num_edits"]
    assert (settings[2]["edits_begin"], settings[2]["num_edits"], first, count) == (0, 1, 1, 4)
    assert edits[first : first + count].tolist() == [
        (4, 0.5),
        (7, -np.inf),
        (9, 2.5),
        (300, -np.inf),
    ]
    state.ban(1, ())
    state.ban(2, ())
    state.stage([2, 1], [1, 1])
    _, settings, edits = staged(state)
    assert settings["num_edits"].tolist() == [0, 3, 0]
    assert edits[:3].tolist() == [(4, 0.5), (9, 2.5), (300, -1.0)]


def test_a_new_sequence_in_a_used_slot() -> None:
    """Nothing of the last one stays: neither edits nor counts."""
    state = SamplingState(num_slots=2, vocab=320, device=CPU)
    before = replace(ROW, repetition_penalty=1.3, generated={5: 2, 33: 1, 319: 70000})
    state.admit(1, replace(before, logit_bias=((9, 2.5),)))
    assert state.counts[1].nonzero().flatten().tolist() == [5, 33, 319]
    assert state.counts[1, 319] == 70000
    assert (state.seen[1].numpy().view(np.uint32)[[0, 1, 9]] == [1 << 5, 1 << 1, 1 << 31]).all()
    assert not state.counts[0].any() and not state.seen[0].any()
    state.admit(1, replace(before, generated={}))
    state.stage([1], [0])
    assert staged(state)[1][1]["num_edits"] == 0
    assert staged(state)[1][1]["penalised"] == 1
    assert not state.counts.any() and not state.seen.any()


def test_what_the_vocabulary_does_not_have_is_left_out() -> None:
    """A model's stop ids may lie beyond it: they never come, and need no ban."""
    state = SamplingState(num_slots=1, vocab=320, device=CPU)
    state.admit(0, replace(ROW, logit_bias=((320, 5.0), (7, 2.0)), banned=(-1, 9, 100_000)))
    state.stage([0], [0])
    assert staged(state)[1][0]["num_edits"] == 2
    assert staged(state)[2]["id"][:2].tolist() == [7, 9]


def test_what_cannot_be_staged_or_sampled() -> None:
    """The reason names the value and the limit."""
    state = SamplingState(num_slots=1, vocab=320, device=CPU, most_edits=3)
    state.admit(0, replace(ROW, banned=(1, 2, 3, 4)))
    with pytest.raises(ValueError, match="more than 3 biases"):
        state.stage([0], [0])
    with pytest.raises(ValueError, match="131072 can be sampled"):
        SamplingState(num_slots=1, vocab=131073, device=CPU)
    out = {"out_ids": torch.zeros(1, dtype=torch.int64), "out_finite": torch.zeros(1).bool()}
    with pytest.raises(ValueError, match="expected rows of 320"):
        sample(torch.zeros(1, 321), state, 1, **out)
    with pytest.raises(ValueError, match="at most 1 can be staged"):
        sample(torch.zeros(2, 320), state, 2, **out)
    with pytest.raises(ValueError, match="apart"):
        sample(torch.zeros(1, 321)[:, 1:], state, 1, **out)
    odd = SamplingState(num_slots=1, vocab=321, device=CPU)
    with pytest.raises(ValueError, match="ends before a multiple of 8"):
        sample(torch.zeros(1, 321), odd, 1, **out)
    with pytest.raises(ValueError, match=r"out_ids is torch.int32"):
        sample(torch.zeros(1, 320), state, 1, **out | {"out_ids": torch.zeros(1).int()})


def test_the_judge_agrees_with_the_sampler() -> None:
    """What the CPU's sampler draws is possible, and the clear answer where there is one."""
    source = random.Random(3)
    clear = 0
    for seed in range(60):
        vocab = source.choice((320, 5000))
        row = SamplingRow(
            temperature=source.choice((0.0, 0.3, 1.0, 20.0)),
            top_p=source.choice((1.0, 0.8, 0.3)),
            top_k=source.choice((0, 50, 1)),
            min_p=source.choice((0.0, 0.05)),
            repetition_penalty=source.choice((1.0, 1.3)),
            presence_penalty=0.0,
            frequency_penalty=source.choice((0.0, 0.1)),
            seed=seed,
            position=seed,
            generated=dict(Counter(source.choices(range(vocab), k=50))),
            banned=(3,),
        )
        logits = torch.randn(1, vocab, generator=torch.Generator().manual_seed(seed)) * 4
        (drawn,) = sampler.sample(logits, [row])
        assert drawn is not None
        verdict = judge(logits[0], row, drawn.token_id)
        assert verdict.possible and verdict.clear in (None, drawn.token_id)
        clear += verdict.clear is not None
        # A banned token is never possible.
        assert not judge(logits[0], row, 3).possible
    assert clear > 50
