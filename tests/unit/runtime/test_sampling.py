"""The next token: each rule as documented, draws that depend on nothing but seed and position."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ixc_runtime.request import SamplingParams
from ixc_runtime.sampling.philox import philox4x32, uniform
from ixc_runtime.sampling.sampler import SamplingRow, sample
from ixc_runtime.sampling.settings import NEUTRAL, merged, violations


def row(**changes: object) -> SamplingRow:
    plain: dict[str, object] = {
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": 7,
        "position": 0,
        "generated": {},
    }
    return SamplingRow(**(plain | changes))  # type: ignore[arg-type]


def choose(logits: list[float], **changes: object) -> int | None:
    [token] = sample(torch.tensor([logits]), [row(**changes)])
    return token and token.token_id


def support(logits: list[float], **changes: object) -> set[int | None]:
    """Every token that 400 positions draw."""
    return {choose(logits, temperature=1.0, position=n, **changes) for n in range(400)}


def test_philox_gives_the_published_words() -> None:
    """Known answers of Random123's own test vectors, philox4x32 with 10 rounds."""
    pi = ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0))

    assert philox4x32((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert philox4x32(*pi) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)


@given(seed=st.integers(0, 2**64 - 1), position=st.integers(0, 2**20))
def test_a_draw_is_a_number_below_one(seed: int, position: int) -> None:
    """Exactly in [0, 1), for every seed of 64 bits."""
    assert 0.0 <= uniform(seed=seed, position=position) < 1.0


def test_draws_are_uniform() -> None:
    """Ten bins of 20,000 draws pass a chi-squared test (99.9 % point for 9 degrees: 27.9)."""
    bins = [0] * 10
    for position in range(20_000):
        bins[int(uniform(seed=1, position=position) * 10)] += 1

    assert sum((count - 2000) ** 2 / 2000 for count in bins) < 27.9


def test_temperature_zero_takes_the_largest() -> None:
    """Greedy, whatever the other settings say about drawing."""
    assert choose([0.0, 3.0, 2.0], top_k=1, top_p=0.1) == 1


def test_repetition_penalty_divides_positive_and_multiplies_negative() -> None:
    """The reference's rule, on tokens generated before and on no others."""
    assert choose([2.0, 1.5], generated={0: 1}, repetition_penalty=2.0) == 1
    assert choose([-1.0, -1.5], generated={0: 1}, repetition_penalty=2.0) == 1
    assert choose([2.0, 1.5], generated={}, repetition_penalty=2.0) == 0


def test_frequency_counts_and_presence_does_not() -> None:
    """Frequency is taken off once for each occurrence, presence once."""
    assert choose([3.0, 2.0], generated={0: 3}, frequency_penalty=0.4) == 1
    assert choose([3.0, 2.0], generated={0: 3}, presence_penalty=0.4) == 0


def test_bias_and_bans_change_the_choice() -> None:
    """A bias is added; a banned token cannot come however large its logit."""
    assert choose([0.0, 1.0], logit_bias=((0, 5.0),)) == 0
    assert choose([9.0, 1.0], banned=(0,)) == 1


def test_top_k_keeps_the_largest_and_their_equals() -> None:
    """Ties at the k-th place all stay, so nothing depends on how a sort breaks them."""
    assert support([2.0, 1.0, 1.0, 0.0], top_k=2) == {0, 1, 2}


def test_top_p_keeps_the_shortest_run_that_reaches_it() -> None:
    """Probabilities 0.5, 0.3, 0.2: 0.6 needs two of them, 0.5 one."""
    logits = [math.log(0.5), math.log(0.3), math.log(0.2)]

    assert support(logits, top_p=0.6) == {0, 1}
    assert support(logits, top_p=0.49) == {0}
    assert support(logits, top_p=1.0) == {0, 1, 2}


def test_min_p_is_relative_to_the_most_probable() -> None:
    """0.2 is less than half of 0.5, 0.3 is not."""
    logits = [math.log(0.5), math.log(0.3), math.log(0.2)]

    assert support(logits, min_p=0.5) == {0, 1}


def test_draws_follow_the_probabilities() -> None:
    """20,000 positions: each token's share is within 4 standard errors of its probability."""
    probabilities = [0.5, 0.3, 0.15, 0.05]
    logits = torch.tensor([[math.log(p) for p in probabilities]])
    counts = [0] * 4
    for position in range(20_000):
        [token] = sample(logits, [row(temperature=1.0, position=position)])
        assert token is not None
        counts[token.token_id] += 1
    for count, p in zip(counts, probabilities, strict=True):
        assert abs(count / 20_000 - p) < 4 * math.sqrt(p * (1 - p) / 20_000)


def test_a_tiny_temperature_is_greedy_and_finite() -> None:
    """Dividing by almost nothing must not overflow."""
    assert choose([1.0, 2.0, 0.0], temperature=1e-38) == 1


def test_a_large_nucleus_is_found_too() -> None:
    """A flat row of 5,000 tokens: top_p 0.9 keeps more than the first guess looks at."""
    flat = torch.zeros(1, 5000) - torch.arange(5000) * 1e-6
    drawn = {
        token.token_id
        for position in range(3000)
        for token in sample(flat, [row(temperature=1.0, top_p=0.9, position=position)])
        if token
    }

    assert max(drawn) > 4000
    assert max(drawn) < 4520


def test_a_row_that_is_not_finite_is_reported_and_harms_no_other() -> None:
    """NaN in one sequence is that sequence's fault alone."""
    logits = torch.tensor([[math.nan, 1.0], [0.0, 1.0]])
    bad, good = sample(logits, [row(), row()])

    assert bad is None
    assert good is not None
    assert good.token_id == 1


def test_logprobs_are_the_models_own() -> None:
    """Natural logs before temperature and filters, the sampled token's and the best n."""
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    [token] = sample(logits, [row(top_logprobs=2, temperature=0.5, banned=(2,), top_k=1)])
    expected = logits.log_softmax(-1)[0].tolist()

    assert token is not None and token.logprob is not None
    assert token.token_id == 1
    assert token.logprob.logprob == pytest.approx(expected[1])
    assert [token_id for token_id, _ in token.logprob.top] == [2, 1]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_row_does_not_see_its_neighbours(data: st.DataObject) -> None:
    """The same row alone and in any batch gives the same token."""
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    logits = torch.randn(5, 40, generator=generator) * 3
    rows = [
        row(
            temperature=data.draw(st.sampled_from([0.0, 0.7, 1.3])),
            top_p=data.draw(st.sampled_from([0.3, 0.8, 1.0])),
            top_k=data.draw(st.sampled_from([0, 3, 10])),
            seed=data.draw(st.integers(0, 2**64 - 1)),
            position=n,
        )
        for n in range(5)
    ]
    together = sample(logits, rows)
    alone = [sample(logits[n : n + 1], [rows[n]])[0] for n in range(5)]

    assert together == alone


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", 2.0),
        ("repetition_penalty", 0.0),
        ("presence_penalty", math.inf),
        ("seed", 2**64),
        ("stop_sequences", ("",)),
        ("stop_token_ids", (100,)),
        ("logit_bias", ((100, 1.0),)),
        ("logit_bias", ((1, math.nan),)),
    ],
)
def test_a_setting_out_of_range_is_named(field: str, value: object) -> None:
    """The error names the field, as the contract spells it."""
    found = violations(SamplingParams(**{field: value}), vocab_size=100)  # type: ignore[arg-type]

    assert [fault.field for fault in found] == [f"sampling.{field}"]


def test_all_violations_come_at_once() -> None:
    """A caller mends everything in one go."""
    found = violations(SamplingParams(temperature=-1, top_p=2, seed=-1), vocab_size=10)

    assert len(found) == 3


def test_the_first_layer_that_says_something_wins() -> None:
    """Request over session over model over neutral; zero is something said."""
    request = SamplingParams(temperature=0.0)
    model = SamplingParams(temperature=1.0, top_p=0.8, stop_sequences=("x",))
    effective = merged(request, SamplingParams(), model, NEUTRAL)

    assert (effective.temperature, effective.top_p, effective.top_k) == (0.0, 0.8, 0)
    assert effective.stop_sequences == ("x",)
