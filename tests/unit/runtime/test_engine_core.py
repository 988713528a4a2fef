"""The engine on a tiny real model: what runs together, what is shared, what is given back."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ixc_runtime.engine_process.messages import EngineConfig
from ixc_runtime.engine_process.moments import HostMoment
from ixc_runtime.engine_process.planning import bytes_per_token
from ixc_runtime.engine_process.process import make_core
from ixc_runtime.engine_process.runner import MakeRunner, PlainRunner
from ixc_runtime.model.decoder import Model
from ixc_runtime.model.kv_arena import KvArena
from ixc_runtime.model.loader import load_model
from ixc_runtime.request import FinishReason, SamplingParams
from tests.fakes.ahead_runner import AheadRunner
from tests.fakes.engine_driver import EngineDriver, Picture
from tests.fakes.tiny_checkpoint import write_tiny_checkpoint

WARM = SamplingParams(temperature=0.9, top_p=0.95, seed=11)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), max_positions=512))


RUNNERS = {"plain": PlainRunner, "ahead": AheadRunner}


@pytest.fixture(params=RUNNERS)
def engine(model: Model, request: pytest.FixtureRequest) -> Callable[..., EngineDriver]:
    """Makes an engine of its own on the shared model; options are EngineConfig's.

    Every test runs with tokens that come back at once, and with such that come a step later.
    """
    runner = RUNNERS[request.param]

    def make(*, num_pages: int = 64, **options: object) -> EngineDriver:
        return make_engine(model, num_pages=num_pages, runner=runner, **options)

    return make


def make_engine(
    model: Model, *, num_pages: int = 64, runner: MakeRunner = PlainRunner, **options: object
) -> EngineDriver:
    page_size = 4
    config = EngineConfig(
        model="",
        page_size=page_size,
        max_context=num_pages * page_size,
        kv_bytes=num_pages * page_size * bytes_per_token(model.config, 4),
        **options,  # type: ignore[arg-type]
    )
    core, _ = make_core(model, config, digest="digest", make_runner=runner)
    return EngineDriver(core)


PROMPTS: dict[str, tuple[list[int | Picture], dict[str, object]]] = {
    "text": ([1, 5, 9, 30, 31, 32, 33, 7, 8, 2, 3], {}),
    "web": ([1, 5, 9, 30, 31, 32, 33], {"adapter": "web"}),
    "write": ([1, 5, 9, 30, 31, 32, 33], {"adapter": "write"}),
    "picture": ([1, Picture(seed=1), 40, 41], {}),
    "two pictures": ([1, 7, Picture(seed=1, wide=2), 40, Picture(seed=2, high=2), 41], {}),
    "sampled": ([1, 80, 81, 82], {"sampling": WARM}),
    "sampled web": ([1, 80, 81, 82], {"sampling": WARM, "adapter": "web"}),
    "penalised": (
        [1, 90, 91],
        {"sampling": SamplingParams(temperature=0.7, repetition_penalty=1.3, top_k=20, seed=3)},
    ),
    # Greedy, it would say 25, 225, 149, 161: what may come next depends on what came before.
    "worded": ([1, Picture(seed=1), 40, 41], {"bad_word_ids": [[25, 225], [149, 161, 243]]}),
}


def broken(batch: object, arena: object) -> torch.Tensor:
    """In place of a model's forward."""
    raise RuntimeError("broken on purpose")


def submit(driver: EngineDriver, name: str) -> None:
    prompt, options = PROMPTS[name]
    driver.submit(name, prompt, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def alone(model: Model) -> dict[str, list[int]]:
    """Each prompt's ids, run by itself in one chunk on a fresh engine."""
    ids = {}
    for name in PROMPTS:
        driver = make_engine(model, max_step_tokens=512)
        submit(driver, name)
        ids[name] = driver.run()[name].ids
    return ids


def test_the_prompts_differ_in_what_they_produce(alone: dict[str, list[int]]) -> None:
    """The tests below would prove nothing if every request had the same answer."""
    assert len({tuple(ids) for ids in alone.values()}) == len(alone)


@given(
    order=st.permutations(list(PROMPTS)),
    step_tokens=st.integers(8, 60),
    tiles=st.integers(1, 4),
    arrivals=st.lists(st.integers(0, 6), min_size=len(PROMPTS), max_size=len(PROMPTS)),
    reuse=st.booleans(),
    feature_bytes=st.sampled_from([0, 1 << 20]),
    runner=st.sampled_from(list(RUNNERS.values())),
)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_ids_do_not_depend_on_batch_chunking_or_cache(
    model: Model,
    alone: dict[str, list[int]],
    order: list[str],
    step_tokens: int,
    tiles: int,
    arrivals: list[int],
    reuse: bool,
    feature_bytes: int,
    runner: MakeRunner,
) -> None:
    """Any order of arrival, any chunk size, cached or not, one step ahead or not: every request's
    ids are its own.
    """
    driver = make_engine(
        model,
        num_pages=128,
        max_batch=8,
        max_step_tokens=step_tokens,
        tiles_per_step=tiles,
        reuse_prefixes=reuse,
        feature_bytes=feature_bytes,
        runner=runner,
    )
    for name, steps in zip(order, arrivals, strict=True):
        submit(driver, name)
        for _ in range(steps):
            driver.step()

    assert {name: outcome.ids for name, outcome in driver.run().items()} == alone


def test_a_repeated_prompt_is_cached_and_answers_the_same(
    engine: Callable[..., EngineDriver], alone: dict[str, list[int]]
) -> None:
    """All but the last token comes from the cache, pictures included, and no tile is encoded."""
    driver = engine()
    submit(driver, "two pictures")
    driver.run()
    prompt, options = PROMPTS["two pictures"]
    driver.submit("again", prompt, **options)  # type: ignore[arg-type]
    again = driver.run()["again"]

    assert again.ids == alone["two pictures"]
    assert again.started is not None and again.prompt is not None
    assert again.started.cached_tokens == 39
    assert again.prompt.encoded_tiles == 0
    assert driver.num_renderings == 2


def test_a_second_turn_computes_only_what_is_new(engine: Callable[..., EngineDriver]) -> None:
    """The answer's own tokens are cached too, up to the last one, which was never computed."""
    driver = engine()
    first = [1, 5, 6, 7, 8, 9]
    answer = driver.ids("first", first, max_output=10)
    driver.submit("second", [*first, *answer, 20, 21, 22])
    outcome = driver.run()["second"]

    assert outcome.started is not None
    assert outcome.started.cached_tokens >= (len(first) + len(answer) - 1) // 4 * 4


def test_another_adapter_or_tenant_shares_no_page(engine: Callable[..., EngineDriver]) -> None:
    """Cached values depend on the adapter, and must not tell one tenant of another."""
    driver = engine()
    prompt = list(range(1, 20))
    for name, options in {
        "first": {},
        "web": {"adapter": "web"},
        "tenant": {"scope": "tenant"},
        "same": {},
    }.items():
        driver.ids(name, prompt, **options)
    cached = {
        name: outcome.started.cached_tokens
        for name, outcome in driver.outcomes.items()
        if outcome.started
    }

    assert cached == {"first": 0, "web": 0, "tenant": 0, "same": 18}


def test_one_picture_wanted_by_many_is_rendered_and_encoded_once(
    engine: Callable[..., EngineDriver],
) -> None:
    """Requests that wait for the same picture share its encoding."""
    driver = engine(max_batch=4, tiles_per_step=1)
    for index in range(4):
        driver.submit(f"{index}", [1, 10 + index, Picture(seed=5), 40])
    outcomes = driver.run()

    assert driver.num_renderings == 1
    assert all(outcome.finished for outcome in outcomes.values())


def test_tiles_count_for_whom_they_were_encoded(engine: Callable[..., EngineDriver]) -> None:
    """A picture that is there already counts for nothing, one that comes twice counts once."""
    driver = engine()
    first, second = Picture(seed=5, wide=2), Picture(seed=6)
    driver.ids("twice", [1, first, 40, first, 41])
    driver.ids("again", [7, first, 40])
    driver.ids("partly", [8, first, 40, second, 41])
    told = {name: outcome.prompt for name, outcome in driver.outcomes.items() if outcome.prompt}

    assert {name: prompt.encoded_tiles for name, prompt in told.items()} == {
        "twice": 3,
        "again": 0,
        "partly": 2,
    }
    assert told["again"].vision_seconds == 0.0
    assert min(told["twice"].vision_seconds, told["partly"].vision_seconds) > 0.0


def test_pictures_wait_for_their_prompts_as_pixels(engine: Callable[..., EngineDriver]) -> None:
    """Features take the device's memory: without a budget only those of the prompt whose turn it
    is are there, and every prompt has its turn.
    """
    driver = engine(max_batch=6, max_step_tokens=8, tiles_per_step=26, feature_bytes=0)
    pictures = [Picture(seed=seed, wide=2) for seed in range(6)]
    for index, picture in enumerate(pictures):
        driver.submit(f"{index}", [1, picture, 40, Picture(seed=90 + index), 41])
    most = 0
    while driver.step():
        most = max(most, sum(driver.core._images.has(picture.key) for picture in pictures))

    assert driver.num_renderings == 12
    assert all(outcome.finished for outcome in driver.outcomes.values())
    assert most <= 2  # of a prompt that is through, and of the next


def test_pictures_that_were_encoded_while_others_were_waited_for(
    engine: Callable[..., EngineDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times that overlap leave less than nothing for the prompt: none is told, not a negative."""
    monkeypatch.setattr(HostMoment, "seconds_since", lambda until, since: 1000.0)
    driver = engine()
    driver.submit("one", [1, Picture(seed=5), 40])
    prompt = driver.run()["one"].prompt

    assert prompt is not None
    assert prompt.vision_seconds == 1000.0
    assert prompt.prefill_seconds == 0.0


def test_pictures_are_cut_when_their_turn_comes(
    engine: Callable[..., EngineDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles take the device's memory, so those of pictures that wait are not there yet."""
    driver = engine(max_batch=4, tiles_per_step=1)
    vision = driver.core.model.vision
    assert vision is not None
    cuts: list[torch.Tensor] = []
    cut = type(vision).cut

    def counted(pixels: torch.Tensor) -> torch.Tensor:
        cuts.append(pixels)
        return cut(vision, pixels)

    monkeypatch.setattr(vision, "cut", counted)
    for index in range(4):
        driver.submit(f"{index}", [1, Picture(seed=20 + index), 40])
    driver.step()
    driver.step()

    assert driver.num_renderings == 4
    assert len(cuts) == 1
    assert all(outcome.finished for outcome in driver.run().values())
    assert len(cuts) == 4


def test_a_request_waits_until_its_worst_case_fits(engine: Callable[..., EngineDriver]) -> None:
    """Two requests of 10 pages on 16: the second starts when the first is over, and both end."""
    driver = engine(num_pages=16)
    for name in ("first", "second"):
        driver.submit(name, [1, 2, 3, 4], max_output=37)
    driver.step()

    assert driver.core.load.running == 1
    assert driver.core.load.waiting == 1
    assert all(len(outcome.ids) == 37 for outcome in driver.run().values())


@pytest.mark.parametrize("after_steps", [0, 1, 2, 3, 5, 8])
def test_a_cancel_at_any_stage_gives_every_page_back(
    engine: Callable[..., EngineDriver], after_steps: int
) -> None:
    """Queued, encoding, prefilling or decoding: the page count returns to where it began."""
    driver = engine(max_step_tokens=8, tiles_per_step=1, max_batch=2)
    for index in range(3):
        driver.submit(f"{index}", [1, 2, Picture(seed=index, wide=2), 3, 4], max_output=30)
    for _ in range(after_steps):
        driver.step()
    for index in range(3):
        driver.cancel(f"{index}")
    outcomes = driver.run()

    assert {outcome.finished and outcome.finished.reason for outcome in outcomes.values()} == {
        FinishReason.CANCELLED
    }
    assert driver.core.load.pages_used == 0
    assert (driver.core.load.running, driver.core.load.waiting) == (0, 0)


def test_a_picture_that_cannot_be_rendered_fails_its_own_requests_only(
    engine: Callable[..., EngineDriver], alone: dict[str, list[int]]
) -> None:
    """The neighbour's ids are those of a quiet run."""
    from ixc_runtime.engine_process.messages import PixelsFailed

    driver = engine()
    submit(driver, "text")
    bad = Picture(seed=66)
    driver._supply = lambda picture: driver.core.pixels_failed(  # type: ignore[method-assign]
        PixelsFailed(key=picture.key, reason="MEDIA_UNDECODABLE", message="not a picture")
    )
    driver.submit("bad", [1, bad, 2])
    outcomes = driver.run()

    assert outcomes["bad"].failed is not None
    assert outcomes["bad"].failed.reason == "MEDIA_UNDECODABLE"
    assert outcomes["text"].ids == alone["text"]
    assert driver.core.load.pages_used == 0


def test_a_stop_token_ends_the_answer_and_is_not_part_of_it(
    engine: Callable[..., EngineDriver], alone: dict[str, list[int]]
) -> None:
    """The third id as a stop id: two ids remain, and the reason says which one stopped."""
    third = alone["text"][2]
    assert third not in alone["text"][:2]
    driver = engine()
    prompt, _ = PROMPTS["text"]
    driver.submit("stop", prompt, stop_token_ids=[third])
    outcome = driver.run()["stop"]

    assert outcome.ids == alone["text"][:2]
    assert outcome.finished is not None
    assert (outcome.finished.reason, outcome.finished.stop_token_id) == (FinishReason.STOP, third)


def test_min_output_tokens_holds_a_stop_token_back(
    engine: Callable[..., EngineDriver], alone: dict[str, list[int]]
) -> None:
    """Until then the stop id cannot be sampled at all."""
    first = alone["text"][0]
    driver = engine()
    prompt, _ = PROMPTS["text"]
    sampling = SamplingParams(temperature=0.0, min_output_tokens=4)
    driver.submit("min", prompt, stop_token_ids=[first], sampling=sampling)
    ids = driver.run()["min"].ids

    assert len(ids) >= 4
    assert first not in ids[:4]


def test_ids_that_the_vocabulary_does_not_have_touch_nobody(
    engine: Callable[..., EngineDriver], alone: dict[str, list[int]]
) -> None:
    """A model's stop ids may lie beyond it: they cannot come, so there is nothing to ban."""
    driver = engine()
    submit(driver, "web")
    prompt, _ = PROMPTS["text"]
    sampling = SamplingParams(temperature=0.0, min_output_tokens=4, logit_bias=((-1, 100.0),))
    driver.submit("odd", prompt, stop_token_ids=[100_000], sampling=sampling, top_logprobs=1000)
    outcomes = driver.run()

    assert outcomes["odd"].ids == alone["text"]
    assert len(outcomes["odd"].logprobs[0].top) == driver.core.model.config.vocab_size
    assert outcomes["web"].ids == alone["web"]


def test_bad_words_of_one_and_of_two_tokens_never_come(
    engine: Callable[..., EngineDriver], alone: dict[str, list[int]]
) -> None:
    """A single id is banned always; of a pair, the second right after the first."""
    one, two = alone["text"][:2]
    driver = engine()
    prompt, _ = PROMPTS["text"]
    driver.submit("bad", prompt, bad_word_ids=[[one]], max_output=12)
    driver.submit("pair", prompt, bad_word_ids=[[one, two]], max_output=12)
    outcomes = driver.run()

    assert one not in outcomes["bad"].ids
    assert outcomes["pair"].ids[0] == one
    pairs = list(zip(outcomes["pair"].ids, outcomes["pair"].ids[1:], strict=False))
    assert (one, two) not in pairs


def test_a_bad_word_of_two_tokens_holds_nobody_else_back(model: Model) -> None:
    """One step ahead, its request alone sits every second step out, until its token is back."""
    driver = make_engine(model, runner=AheadRunner)
    prompt, _ = PROMPTS["text"]
    driver.submit("pair", prompt, bad_word_ids=[[7, 8]], max_output=12)
    driver.submit("free", prompt, max_output=12)
    heard = []
    while driver.step():
        heard.append({name: len(outcome.ids) for name, outcome in driver.outcomes.items()})
    heard = heard[1:]  # the first step's tokens come with the second

    assert [each["free"] for each in heard[:12]] == list(range(1, 13))
    assert [each["pair"] for each in heard[:12]] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert driver.run()["pair"].finished is not None


def test_logprobs_name_the_sampled_token_and_the_best(engine: Callable[..., EngineDriver]) -> None:
    """Greedy: the sampled token is the first of the top ones, with the same figure."""
    driver = engine()
    driver.submit("logprobs", [1, 2, 3], top_logprobs=3)
    outcome = driver.run()["logprobs"]

    assert len(outcome.logprobs) == len(outcome.ids)
    for entry in outcome.logprobs:
        assert len(entry.top) == 3
        assert entry.top[0] == (entry.token_id, pytest.approx(entry.logprob))


def test_an_output_that_is_not_finite_fails_one_sequence(
    engine: Callable[..., EngineDriver],
    alone: dict[str, list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NaN in one row is reported as ENGINE_FAULT for that row; neighbours are untouched."""
    driver = engine()
    submit(driver, "web")
    submit(driver, "text")
    forward = driver.core.model.forward

    def poisoned(batch: object, arena: object) -> torch.Tensor:
        logits = forward(batch, arena)  # type: ignore[arg-type]
        logits[0] = torch.nan
        return logits

    with monkeypatch.context() as patch:
        patch.setattr(driver.core.model, "forward", poisoned)
        driver.step()
    outcomes = driver.run()

    assert outcomes["web"].failed is not None
    assert outcomes["web"].failed.reason == "ENGINE_FAULT"
    assert outcomes["text"].ids == alone["text"]


def test_pages_of_an_output_that_is_not_finite_are_not_found_again(
    engine: Callable[..., EngineDriver],
    alone: dict[str, list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What made it so may be in the pages: the same prompt is computed anew."""
    driver = engine()
    submit(driver, "text")
    forward = driver.core.model.forward
    with monkeypatch.context() as patch:
        patch.setattr(driver.core.model, "forward", lambda *given: forward(*given) * torch.nan)
        driver.run()

    assert driver.core.load.pages_indexed == 0
    submit(driver, "text")
    assert driver.run()["text"].ids == alone["text"]


def test_a_cached_prefix_that_is_spoilt_fails_one_request_only(
    engine: Callable[..., EngineDriver],
    alone: dict[str, list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it has found is forgotten with it: the next one computes the same prompt anew."""
    driver = engine()
    forward = driver.core.model.forward
    arenas = []

    def watched(batch: object, arena: KvArena) -> torch.Tensor:
        arenas.append(arena)
        return forward(batch, arena)

    monkeypatch.setattr(driver.core.model, "forward", watched)
    submit(driver, "web")
    driver.run()
    arenas[0].keys[:] = torch.nan
    arenas[0].values[:] = torch.nan

    submit(driver, "web")
    assert driver.run()["web"].failed is not None
    submit(driver, "web")
    assert driver.run()["web"].ids == alone["web"]


def test_a_step_that_raises_fails_its_sequences_and_the_engine_goes_on(
    engine: Callable[..., EngineDriver],
    alone: dict[str, list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pages come back, and the next request is served."""
    driver = engine()
    submit(driver, "web")
    with monkeypatch.context() as patch:
        patch.setattr(driver.core.model, "forward", broken)
        driver.step()

    assert driver.core.load.pages_used == 0
    assert driver.outcomes["web"].failed is not None
    submit(driver, "text")
    assert driver.run()["text"].ids == alone["text"]


def test_a_step_that_raises_leaves_the_queue_going(
    engine: Callable[..., EngineDriver],
    alone: dict[str, list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever waits for the failed one's place is not left until the next message arrives."""
    driver = engine(max_batch=1)
    submit(driver, "web")
    submit(driver, "text")
    with monkeypatch.context() as patch:
        patch.setattr(driver.core.model, "forward", broken)
        assert driver.step()

    assert driver.run()["text"].ids == alone["text"]
    assert driver.outcomes["web"].failed is not None


# What a request may break on its way, and which of the prompts breaks it.
STAGES = {"cut": "picture", "encode_tiles": "picture", "assemble": "picture", "copy_page": "text"}


def break_stage(driver: EngineDriver, stage: str, patch: pytest.MonkeyPatch) -> None:
    if stage == "copy_page":
        # A prompt that agrees with a cached page in some slots, so that the page is copied.
        driver.ids("cached", PROMPTS["text"][0][:9])
        patch.setattr(driver.core.scheduler.cache, "_copy_page", broken)
    else:
        patch.setattr(driver.core.model.vision, stage, out_of_memory)


def out_of_memory(*given: object) -> torch.Tensor:
    raise torch.OutOfMemoryError("out of memory on purpose")


@pytest.mark.parametrize("stage", STAGES)
def test_what_goes_wrong_with_one_request_fails_that_one(
    engine: Callable[..., EngineDriver],
    alone: dict[str, list[int]],
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
) -> None:
    """ENGINE_FAULT; neighbours go on, the queue too, pages come back, and the same works later."""
    name = STAGES[stage]
    driver = engine(max_batch=2)
    with monkeypatch.context() as patch:
        break_stage(driver, stage, patch)
        for each in ("web", name, "write"):
            submit(driver, each)
        outcomes = driver.run()

    assert outcomes[name].failed is not None
    assert outcomes[name].failed.reason == "ENGINE_FAULT"
    assert {each: outcomes[each].ids for each in ("web", "write")} == {
        each: alone[each] for each in ("web", "write")
    }
    assert driver.core.load.pages_used == 0
    submit(driver, name)
    assert driver.run()[name].ids == alone[name]


@pytest.mark.parametrize("stage", [*STAGES, "forward"])
def test_a_device_that_is_lost_ends_the_engine(
    engine: Callable[..., EngineDriver], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """No later step could do better, so the process goes and its supervisor starts another."""
    driver = engine()
    if stage == "forward":
        monkeypatch.setattr(driver.core.model, "forward", broken)
    else:
        break_stage(driver, stage, monkeypatch)
    monkeypatch.setattr(driver.core._runner, "is_usable", lambda: False)
    submit(driver, STAGES.get(stage, "text"))
    with pytest.raises(RuntimeError, match="on purpose"):
        driver.run()


class CardModel:
    """As much of a model on a GPU as is asked when a step has failed."""

    device = torch.device("cuda")


def test_a_device_is_lost_when_it_cannot_be_waited_for(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a GPU the plain runner asks too, as it runs float32 there; a CPU is never lost."""

    def lost(device: torch.device) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    core = make_engine(model).core
    runner = core._runner
    assert isinstance(runner, PlainRunner)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "_model", CardModel())
        patch.setattr(torch.cuda, "synchronize", lambda device: None)
        assert runner.is_usable()
        patch.setattr(torch.cuda, "synchronize", lost)
        assert not runner.is_usable()
    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    assert runner.is_usable()


@pytest.mark.parametrize("stage", ["encode_tiles", "forward"])
def test_what_a_failed_piece_of_work_had_in_hand_is_let_go(
    engine: Callable[..., EngineDriver], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """At once, without a collection of garbage: too little memory may be what went wrong."""
    driver = engine()
    made: list[weakref.ref[torch.Tensor]] = []

    def full(*given: object) -> torch.Tensor:
        in_hand = torch.zeros(10)
        made.append(weakref.ref(in_hand))
        return out_of_memory(in_hand)

    owner = driver.core.model if stage == "forward" else driver.core.model.vision
    monkeypatch.setattr(owner, stage, full)
    submit(driver, "picture")
    gc.collect()
    gc.disable()
    try:
        failed = driver.run()["picture"].failed
        assert failed is not None
        assert [each() for each in made] == [None]
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("prompt", "options", "reason"),
    [
        ([1, 2, 3], {"max_output": 1000}, "KV_CACHE_FULL"),
        ([], {}, "ENGINE_FAULT"),
        ([1, 2, 3], {"adapter": "nobody's"}, "ADAPTER_UNAVAILABLE"),
    ],
)
def test_a_request_that_should_never_have_been_sent(
    engine: Callable[..., EngineDriver],
    alone: dict[str, list[int]],
    prompt: list[int],
    options: dict[str, object],
    reason: str,
) -> None:
    """It fails by itself, whatever the front end has overlooked."""
    driver = engine()
    submit(driver, "text")
    driver.submit("wrong", prompt, **options)  # type: ignore[arg-type]
    outcomes = driver.run()

    assert outcomes["wrong"].failed is not None
    assert outcomes["wrong"].failed.reason == reason
    assert outcomes["text"].ids == alone["text"]


def test_a_long_prompt_gets_a_larger_rotary_base_and_shares_nothing_with_a_short_one(
    engine: Callable[..., EngineDriver],
) -> None:
    """Beyond the native context the base follows the prompt's length, so pages do not match."""
    driver = engine(num_pages=400)
    long = [1 + n % 300 for n in range(600)]
    driver.ids("short", long[:100])
    driver.submit("long", long)
    outcome = driver.run()["long"]

    assert outcome.started is not None
    assert outcome.started.cached_tokens == 0
    assert outcome.finished is not None


def test_the_newest_of_a_full_queue_starts_last(
    tmp_path: Path, engine: Callable[..., EngineDriver]
) -> None:
    """First come, first served: with a batch of one the order of ends is that of arrival."""
    driver = engine(max_batch=1)
    for index in range(4):
        driver.submit(f"{index}", [1, 2 + index], max_output=3)
    ends = []
    while driver.step():
        ends += [
            name
            for name, outcome in driver.outcomes.items()
            if outcome.is_over and name not in ends
        ]

    assert ends == ["0", "1", "2", "3"]
