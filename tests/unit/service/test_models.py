"""The models of a server: whoever holds one keeps its engine, as far as patience goes."""

import asyncio

import msgspec
import pytest

from ixc_service.errors import ModelInUse, ModelNotFound, ModelNotLoaded
from ixc_service.models import Models, ModelState
from tests.fakes.fake_engine import INFO, FakeEngine


def engine(name: str) -> FakeEngine:
    return FakeEngine(info=msgspec.structs.replace(INFO, name=name, digest=name))


def two_models(*, patience_seconds: float = 60.0) -> Models:
    models = Models(
        engine("one"),
        patience_seconds=patience_seconds,
        is_known=lambda model_id: model_id == "three",
    )
    models.add(engine("two"))
    return models


async def test_a_held_model_is_closed_when_it_is_let_go() -> None:
    """Not before the last holder has left, and then without delay."""
    models = two_models()
    two = await models.get("models/two")
    with two.held():
        with two.held():
            leaving = models.dismiss(two)
        done, _ = await asyncio.wait({leaving}, timeout=0)
        assert not done
        assert models.state("two") is ModelState.UNLOADING
        assert not isinstance(two.engine, FakeEngine) or not two.engine.is_closed
    await leaving
    assert isinstance(two.engine, FakeEngine) and two.engine.is_closed
    assert models.state("two") is None
    assert [served.id for served in models.served] == ["one"]


async def test_a_holder_who_takes_too_long() -> None:
    """Its engine is closed all the same; what runs on it is lost with it."""
    models = two_models(patience_seconds=0.0)
    two = await models.get("models/two")
    with two.held():
        await models.dismiss(two)
        assert isinstance(two.engine, FakeEngine) and two.engine.is_closed


async def test_leaving_twice_is_leaving_once() -> None:
    """The second wish joins the first."""
    models = two_models()
    two = await models.get("models/two")
    assert models.dismiss(two) is models.dismiss(two)


async def test_the_default_cannot_leave() -> None:
    """Until another is the default."""
    models = two_models()
    with pytest.raises(ModelInUse):
        models.dismiss(models.default)
    one = models.default
    models.make_default(await models.get("models/two"))
    await models.dismiss(one)
    assert (await models.get("")).id == "two"


async def test_what_is_not_there() -> None:
    """What could be loaded is told from what means nothing; facts fall back on the default's."""
    models = two_models()
    with pytest.raises(ModelNotLoaded, match="models/three is not loaded"):
        await models.get("models/three")
    for name in ("models/four", "models/", "two", "models/two/", "adapters/two"):
        with pytest.raises(ModelNotFound):
            await models.get(name)
        assert models.facts(name) is models.default.info
    with models.announced("four"):
        assert models.state("four") is ModelState.LOADING
        with pytest.raises(ModelNotLoaded):
            await models.get("models/four")


async def test_changes_are_told() -> None:
    """Coming, going, and engines that die or return, with what is alive at that moment."""
    models = two_models()
    heard: list[dict[str, bool]] = []
    models.on_change(lambda reason: heard.append(models.liveness))
    two = await models.get("models/two")
    assert isinstance(two.engine, FakeEngine)
    two.engine.die()
    two.engine.come_back()
    await models.dismiss(two)
    assert heard == [
        {"models/one": True, "models/two": False},
        {"models/one": True, "models/two": True},
        {"models/one": True},
        {"models/one": True},
    ]


async def test_closing_ends_every_engine() -> None:
    """Also of those that were leaving, and were being waited for."""
    models = two_models()
    two = await models.get("models/two")
    engines = [served.engine for served in models.served]
    with two.held():
        models.dismiss(two)
        await models.close()
    assert all(isinstance(each, FakeEngine) and each.is_closed for each in engines)
