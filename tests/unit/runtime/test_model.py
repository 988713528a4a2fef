"""The model in steps: what a row computes depends on its own sequence alone."""

from pathlib import Path

import pytest
import torch

from ixc_runtime.model.adapters import IMAGE, plan_routes
from ixc_runtime.model.decoder import Model
from ixc_runtime.model.kv_arena import KvArena
from ixc_runtime.model.loader import load_model
from tests.fakes.step_driver import IMAGE_TOKEN, Lane, StepDriver
from tests.fakes.tiny_checkpoint import write_tiny_checkpoint

PROMPT = [1, 50, 9, 200, 31, 77, 4, 18, 260, 3, 90, 12]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(write_tiny_checkpoint(tmp_path_factory.mktemp("model")))


def features(count: int, hidden: int = 64) -> torch.Tensor:
    return torch.randn(count, hidden, generator=torch.Generator().manual_seed(3))


def test_greedy_ids_do_not_depend_on_chunking(model: Model) -> None:
    """Prompts prefilled whole, in fives or one by one continue alike."""
    whole = StepDriver(model).greedy(Lane(tokens=list(PROMPT)), 12)
    for chunk in (1, 5):
        lane = Lane(tokens=list(PROMPT))
        assert whole == StepDriver(model).greedy(lane, 12, chunk=chunk)


def test_neighbours_do_not_change_a_row(model: Model) -> None:
    """Alone, or beside other adapters, images, bases and lengths: the same logits."""

    def lane() -> Lane:
        return Lane(tokens=list(PROMPT), adapter="web")

    alone = StepDriver(model).step((lane(), len(PROMPT)))[0]
    image = [5, *[IMAGE_TOKEN] * 9, 7]
    others = [
        Lane(tokens=[4, 5, 6]),
        Lane(tokens=PROMPT * 3, adapter="write"),
        Lane(tokens=image, features=features(9), adapter="web", base=123.0),
    ]
    running = [others[0], lane(), *others[1:]]
    beside = StepDriver(model).step(*((each, each.left) for each in running))[1]
    torch.testing.assert_close(beside, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("adapter", ["web", "write"])
def test_adapters_change_the_answer(model: Model, adapter: str) -> None:
    """Each adapter is really applied."""
    base, adapted = (
        StepDriver(model).step((Lane(tokens=list(PROMPT), adapter=name), len(PROMPT)))[0]
        for name in ("base", adapter)
    )
    assert (base - adapted).abs().max() > 0.1


def test_only_wanted_rows_have_logits(model: Model) -> None:
    """A chunk that reaches no end yields nothing, and its keys are in the cache all the same."""
    driver = StepDriver(model)
    lane = Lane(tokens=list(PROMPT))
    batch = driver.batch((lane, 6))
    none = torch.empty(0, dtype=torch.int64)
    fields = {name: getattr(batch, name) for name in batch.__slots__}
    assert model.forward(type(batch)(**fields | {"output_rows": none}), driver.arena).shape == (
        0,
        320,
    )
    lane.done = 6
    continued = driver.step((lane, 6))[0]
    whole = StepDriver(model).step((Lane(tokens=list(PROMPT)), 12))[0]
    torch.testing.assert_close(continued, whole[6:], rtol=1e-4, atol=1e-4)


def test_a_copied_page_serves_another_sequence(model: Model) -> None:
    """Pages hold everything of a prefix: a copy of them continues as the original does."""
    driver = StepDriver(model, page_size=4)
    first = Lane(tokens=list(PROMPT))
    driver.step((first, 8))
    second = Lane(tokens=list(PROMPT), done=8, pages=[60, 61])
    for source, target in zip(first.pages, second.pages, strict=True):
        driver.arena.copy_page(source, target)
    ours, theirs = driver.step((second, 4), (first, 4))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_bytes_of_a_page(model: Model) -> None:
    """What the plan counts is what the arena takes."""
    arena = KvArena(model.config, num_pages=3, page_size=8, dtype=torch.bfloat16)
    counted = KvArena.bytes_per_page(model.config, dtype=torch.bfloat16, page_size=8)
    assert 3 * counted == arena.keys.nbytes + arena.values.nbytes


def test_bfloat16(tmp_path: Path) -> None:
    """A model computed in bfloat16 stays near the float32 one, and answers in float32."""
    folder = write_tiny_checkpoint(tmp_path, dtype="bfloat16")
    exact, rounded = (
        StepDriver(load_model(folder, dtype=dtype)).step((Lane(tokens=list(PROMPT)), 12))[0]
        for dtype in ("float32", "bfloat16")
    )
    assert torch.float32 == rounded.dtype
    assert (exact - rounded).abs().max() < 0.1 * exact.abs().max()


def test_absent_adapter(model: Model) -> None:
    """The engine checks what a request names; the model refuses rather than leaves it out."""
    driver = StepDriver(model)
    batch = driver.batch((Lane(tokens=[1, 2], adapter="poetry"), 2))
    with pytest.raises(ValueError, match="poetry"):
        plan_routes(batch, frozenset({"web", IMAGE}))
