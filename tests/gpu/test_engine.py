"""The whole engine on a GPU in half precision, beside the plain operations in float32 on the CPU.

Judged by teacher forcing: at every position of an answer, the token that was taken must be one of
the reference's best, within what half precision may move a logit.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ixc_cuda.device import device_info
from ixc_runtime.config import load_config
from ixc_runtime.engine_process.messages import AdapterSource, EngineConfig
from ixc_runtime.engine_process.planning import bytes_per_token
from ixc_runtime.engine_process.process import make_core
from ixc_runtime.engine_process.user_adapters import read_adapter
from ixc_runtime.model.decoder import Model
from ixc_runtime.model.loader import load_model
from ixc_runtime.request import SamplingParams
from ixc_runtime.weights.peft import load_peft_adapter
from tests.fakes.engine_driver import EngineDriver, Picture
from tests.fakes.step_driver import IMAGE_TOKEN, Lane, StepDriver
from tests.fakes.tiny_checkpoint import TinyModel, write_tiny_checkpoint
from tests.fakes.tiny_peft import TinyAdapter, write_tiny_adapter

MAX_BATCH = 40
VOCAB = 1000
# Of a logit, in standard deviations of the row's logits.
TOLERANCE = 0.15

# Heads of 128 in groups of four as in the 7B model, and of 64 in groups of three as in the demo's.
SHAPES = {
    "heads of 128": {"hidden": 1024, "heads": 8, "kv_heads": 2, "intermediate": 1536},
    "heads of 64": {"hidden": 576, "heads": 9, "kv_heads": 3, "intermediate": 1544},
}
PROMPTS: dict[str, tuple[list[int | Picture], str]] = {
    "short": ([1, 5, 9], "base"),
    "long": ([1, *(7 + 13 * i % 300 for i in range(700))], "base"),
    "web": ([1, 5, 9, 30, 31, 32, 33], "web"),
    "write": ([1, 5, 9, 30, 31], "write"),
    "picture": ([1, Picture(seed=1), 40, 41], "base"),
    "two pictures": ([1, 7, Picture(seed=1, wide=2), 40, Picture(seed=2, high=2), 41], "web"),
}


@pytest.fixture(scope="module", params=SHAPES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(
        tmp_path_factory.mktemp("tiny"), **SHAPES[request.param], vocab=VOCAB, dtype="bfloat16"
    )


@pytest.fixture(scope="module")
def user_adapters(
    folder: Path, reference: Model, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, AdapterSource]:
    """Of other ranks and linears than the model's own; the reference has them from now on."""
    config = load_config(folder)
    sizes = TinyModel(
        hidden=config.hidden_size,
        heads=config.num_heads,
        kv_heads=config.num_kv_heads,
        intermediate=config.intermediate_size,
        vocab=VOCAB,
    )
    chosen = {
        "narrow": TinyAdapter(model=sizes, rank=4, alpha=2.0, linears=("feed_forward.w3",)),
        "wide": TinyAdapter(model=sizes, rank=40, alpha=10.0, seed=2),
    }
    sources = {}
    for name, adapter in chosen.items():
        written = write_tiny_adapter(tmp_path_factory.mktemp(name), adapter)
        sources[name] = AdapterSource(name=name, folder=str(written))
        reference.add_adapter(name, load_peft_adapter(written, config))
    return sources


@pytest.fixture(scope="module")
def reference(folder: Path) -> Model:
    return load_model(folder)


@pytest.fixture(scope="module", params=["bfloat16", "float16"])
def model(folder: Path, request: pytest.FixtureRequest) -> Model:
    from ixc_runtime.ops.cuda import CudaOps

    assert device_info(0).capability >= (8, 0)
    ops = CudaOps(load_config(folder), max_sequences=MAX_BATCH)
    return load_model(folder, device="cuda", dtype=request.param, ops=ops)


def make_engine(model: Model, **options: object) -> EngineDriver:
    config = EngineConfig(
        model="",
        device="cuda",
        max_batch=MAX_BATCH,
        max_context=2048,
        kv_bytes=65536 * bytes_per_token(model.config, 2),
        **options,  # type: ignore[arg-type]
    )
    core, _ = make_core(model, config, digest="digest")
    return EngineDriver(core)


def reference_logits(
    reference: Model, prompt: Sequence[int | Picture], adapter: str, ids: Sequence[int]
) -> Tensor:
    """(ids, vocab): what the reference thinks at each position of the answer."""
    tokens: list[int] = []
    features: list[Tensor] = []
    for part in prompt:
        if isinstance(part, int):
            tokens.append(part)
            continue
        assert reference.vision is not None
        pixels = torch.from_numpy(part.pixels(56))
        maps = reference.vision.encode_tiles(reference.vision.cut(pixels))
        features.append(reference.vision.assemble(maps, part.wide, part.high))
        tokens += [IMAGE_TOKEN] * len(features[-1])
    driver = StepDriver(reference, num_pages=128)
    lane = Lane(
        tokens=[*tokens, *ids[:-1]],
        features=torch.cat(features) if features else None,
        adapter=adapter,
    )
    return driver.step((lane, lane.left))[0][len(tokens) - 1 :]


def worst_margin(logits: Tensor, ids: Sequence[int]) -> float:
    """How far a taken token's logit was below the best, in standard deviations of the row."""
    best = logits.max(dim=-1).values
    taken = logits.gather(1, torch.tensor(ids).unsqueeze(1)).squeeze(1)
    return float(((best - taken) / logits.std(dim=-1)).max())


@pytest.mark.parametrize("name", PROMPTS)
def test_alone_the_answer_is_the_references(model: Model, reference: Model, name: str) -> None:
    """Kernels for few rows, captured graphs, device sampling: greedy tokens are the reference's."""
    prompt, adapter = PROMPTS[name]
    driver = make_engine(model)
    ids = driver.ids(name, prompt, adapter=adapter, max_output=24)

    assert len(ids) == 24
    assert worst_margin(reference_logits(reference, prompt, adapter, ids), ids) < TOLERANCE


def test_together_every_answer_is_the_references(model: Model, reference: Model) -> None:
    """Prompts in chunks beside others that decode, adapters mixed in one batch of 36."""
    driver = make_engine(model, max_step_tokens=128)
    for copy in range(6):
        for name, (prompt, adapter) in PROMPTS.items():
            driver.submit(f"{name} {copy}", prompt, adapter=adapter, max_output=20 + copy)
    outcomes = driver.run()

    for name, (prompt, adapter) in PROMPTS.items():
        for copy in range(6):
            ids = outcomes[f"{name} {copy}"].ids
            assert len(ids) == 20 + copy
            margin = worst_margin(reference_logits(reference, prompt, adapter, ids), ids)
            assert margin < TOLERANCE, f"{name} {copy}"


def test_users_adapters_come_and_go_beside_running_answers(
    model: Model, reference: Model, user_adapters: dict[str, AdapterSource]
) -> None:
    """Each row takes its own of five; a name that comes back with other weights has those."""
    driver = make_engine(model)
    prompt = [1, 5, 9, 30, 31]
    for name in ("base", "web", "write"):
        driver.submit(name, prompt, adapter=name, max_output=30)
    for _ in range(5):
        driver.step()
    for source in user_adapters.values():
        driver.core.add_adapter(read_adapter(source, model, driver.core.adapter_room))
    for name in user_adapters:
        driver.submit(name, prompt, adapter=name, max_output=20)
    outcomes = driver.run()
    for name, outcome in outcomes.items():
        expected = reference_logits(reference, prompt, name, outcome.ids)
        assert worst_margin(expected, outcome.ids) < TOLERANCE, name
    assert outcomes["wide"].ids != outcomes["base"].ids[:20]

    driver.core.remove_adapter("wide")
    narrow = AdapterSource(name="wide", folder=user_adapters["narrow"].folder)
    driver.core.add_adapter(read_adapter(narrow, model, driver.core.adapter_room))
    ids = driver.ids("again", prompt, adapter="wide", max_output=20)
    assert worst_margin(reference_logits(reference, prompt, "narrow", ids), ids) < TOLERANCE
    for name in user_adapters:
        driver.core.remove_adapter(name)


@pytest.mark.parametrize("after_steps", [1, 2, 5])
def test_an_adapter_that_goes_while_a_step_with_it_is_on_its_way(
    model: Model, reference: Model, user_adapters: dict[str, AdapterSource], after_steps: int
) -> None:
    """Its request fails, the neighbour's answer is right, and so is that of the next in its slot,
    whose weights may lie where the old ones lay.
    """
    driver = make_engine(model)
    prompt = [1, 5, 9, 30, 31]
    wide = user_adapters["wide"]
    driver.core.add_adapter(read_adapter(wide, model, driver.core.adapter_room))
    driver.submit("neighbour", prompt, adapter="web", max_output=30)
    driver.submit("gone", prompt, adapter="wide", max_output=30)
    for _ in range(after_steps):
        driver.step()
    driver.core.remove_adapter("wide")
    other = AdapterSource(name="other", folder=user_adapters["narrow"].folder)
    driver.core.add_adapter(read_adapter(other, model, driver.core.adapter_room))
    driver.submit("other", prompt, adapter="other", max_output=20)
    outcomes = driver.run()
    driver.core.remove_adapter("other")

    assert outcomes["gone"].failed is not None
    for name, adapter in (("neighbour", "web"), ("other", "narrow")):
        ids = outcomes[name].ids
        margin = worst_margin(reference_logits(reference, prompt, adapter, ids), ids)
        assert margin < TOLERANCE, name


def test_the_time_of_the_tower_is_the_devices(model: Model) -> None:
    """Not that of launching it, which is the same for any number of tiles."""
    driver = make_engine(model)
    for name, high in (("warm", 1), ("one", 2), ("many", 16)):
        driver.submit(name, [1, Picture(seed=high, high=high), 40], max_output=1)
        driver.run()
    seconds = {}
    for name in ("one", "many"):
        prompt = driver.outcomes[name].prompt
        assert prompt is not None
        seconds[name] = prompt.vision_seconds
        assert prompt.prefill_seconds > 0.0
    assert 0.0 < seconds["one"] < seconds["many"] < 1.0


def test_the_same_request_is_answered_the_same(model: Model) -> None:
    """Sampled with a seed, cached prefix or not: equal ids when the batch is the same."""
    warm = SamplingParams(temperature=0.9, top_p=0.9, top_k=40, repetition_penalty=1.2, seed=5)
    prompt, _ = PROMPTS["short"]
    runs = [make_engine(model).ids("a", prompt, sampling=warm, max_output=40) for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 5


def test_stops_bans_and_biases_hold_on_the_device(model: Model) -> None:
    """Stop ids end an answer, bad words of one and two tokens never come, a bias decides."""
    prompt, _ = PROMPTS["short"]
    plain = make_engine(model).ids("plain", prompt, max_output=12)
    one, two, third = plain[0], plain[1], next(i for i in plain[2:] if i not in plain[:2])
    driver = make_engine(model)
    driver.submit("stop", prompt, stop_token_ids=[third], max_output=12)
    driver.submit("bad", prompt, bad_word_ids=[[one]], max_output=12)
    driver.submit("pair", prompt, bad_word_ids=[[one, two]], max_output=12)
    held = SamplingParams(temperature=0.0, min_output_tokens=6)
    driver.submit("held", prompt, stop_token_ids=[one], sampling=held, max_output=12)
    biased = SamplingParams(temperature=0.0, logit_bias=((77, 100.0),))
    driver.submit("biased", prompt, sampling=biased, max_output=4)
    outcomes = driver.run()

    stop = outcomes["stop"].finished
    assert stop is not None
    assert stop.stop_token_id == third
    assert one not in outcomes["bad"].ids
    pair = outcomes["pair"].ids
    assert (one, two) not in pairwise(pair)
    assert one not in outcomes["held"].ids[:6]
    assert outcomes["biased"].ids == [77] * 4


def test_logprobs_are_those_of_the_logits(model: Model, reference: Model) -> None:
    """Within half precision, for the token taken and the best three."""
    prompt, _ = PROMPTS["short"]
    driver = make_engine(model)
    driver.submit("logprobs", prompt, top_logprobs=3, max_output=10)
    outcome = driver.run()["logprobs"]
    expected = reference_logits(reference, prompt, "base", outcome.ids).log_softmax(-1)

    for entry, row in zip(outcome.logprobs, expected, strict=True):
        assert entry.logprob == pytest.approx(float(row[entry.token_id]), abs=0.1)
        for token_id, logprob in entry.top:
            assert logprob == pytest.approx(float(row[token_id]), abs=0.1)


@pytest.mark.parametrize("after_steps", [0, 1, 2, 5])
def test_a_cancel_gives_every_page_back(model: Model, after_steps: int) -> None:
    """Also while a step with the sequence in it is on its way."""
    driver = make_engine(model)
    for index in range(3):
        driver.submit(f"{index}", [1, 2, Picture(seed=index), 3, 4], max_output=50)
    for _ in range(after_steps):
        driver.step()
    for index in range(3):
        driver.cancel(f"{index}")
    driver.run()
    assert driver.core.load.pages_used == 0
