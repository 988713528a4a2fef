"""Users' adapters as the front end knows them, beside an engine that answers when the test says."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from ixc_runtime.adapter_desk import AdapterDesk
from ixc_runtime.engine_process.messages import (
    Answer,
    DropAdapter,
    EngineConfig,
    Question,
    Refusal,
    TakeAdapter,
)
from ixc_runtime.errors import AdapterInvalid
from ixc_runtime.model_info import AdapterInfo, EngineLoad
from tests.fakes.fake_engine import INFO

FOLDER = Path("adapters", "cats")
LOAD = EngineLoad(pages_total=1)


class HeldSupervisor:
    """Questions wait in `asked` until the test answers them, in whatever order."""

    def __init__(self) -> None:
        self.config = EngineConfig(model="")
        self.asked: list[Question] = []
        self._answers: list[asyncio.Future[Answer]] = []

    def require_alive(self) -> None:
        pass

    async def ask(self, question: Question) -> Answer:
        self.asked.append(question)
        self._answers.append(asyncio.get_running_loop().create_future())
        return await self._answers[-1]

    def answer(self, number: int, *, digest: str = "d", refusal: Refusal | None = None) -> None:
        question, adapter = self.asked[number], None
        if isinstance(question, TakeAdapter) and refusal is None:
            name = question.source.name
            adapter = AdapterInfo(name=name, digest=digest, rank=1, num_bytes=1)
        self._answers[number].set_result(
            Answer(question_id=number, load=LOAD, adapter=adapter, refusal=refusal)
        )


@pytest_asyncio.fixture
async def errors() -> AsyncIterator[list[str]]:
    """What the event loop complains of, such as a fault that nobody has looked at."""
    found: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: found.append(context["message"]))
    yield found
    loop.set_exception_handler(None)


@pytest.fixture
def supervisor() -> HeldSupervisor:
    return HeldSupervisor()


@pytest.fixture
def desk(supervisor: HeldSupervisor) -> AdapterDesk:
    return AdapterDesk(supervisor, INFO)  # type: ignore[arg-type]


async def settled() -> None:
    """Every task has gone as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_adapter_whose_caller_has_gone(
    desk: AdapterDesk, supervisor: HeldSupervisor
) -> None:
    """The caller is let go at once; what the engine then has can be asked for, and unloaded."""
    loading = asyncio.create_task(desk.load("cats", FOLDER))
    await settled()
    loading.cancel()
    await settled()
    assert loading.cancelled()
    supervisor.answer(0)
    await settled()

    desk.require("cats")
    assert [source.name for source in supervisor.config.adapters] == ["cats"]
    desk.unload("cats", seconds=1.0)
    await settled()
    assert supervisor.asked[1] == DropAdapter("cats")
    supervisor.answer(1)
    await settled()
    assert desk.info.user_adapters == ()


async def test_a_refusal_whose_caller_has_gone(
    desk: AdapterDesk, supervisor: HeldSupervisor, errors: list[str]
) -> None:
    """Cancelled is cancelled, nobody is told of a fault without an owner, and the next may load."""
    loading = asyncio.create_task(desk.load("cats", FOLDER))
    await settled()
    loading.cancel()
    supervisor.answer(0, refusal=Refusal(reason="ADAPTER_INVALID", message="no", metadata={}))
    await settled()
    assert loading.cancelled()
    del loading
    assert desk.info.user_adapters == ()

    again = asyncio.create_task(desk.load("cats", FOLDER))
    await settled()
    supervisor.answer(1, refusal=Refusal(reason="ADAPTER_INVALID", message="no", metadata={}))
    with pytest.raises(AdapterInvalid):
        await again
    assert errors == []


async def test_the_engine_takes_one_at_a_time(
    desk: AdapterDesk, supervisor: HeldSupervisor
) -> None:
    """Also behind one whose caller has gone; who gives up while waiting has asked for nothing."""
    names = ("cats", "dogs", "lions")
    first, second, third = (asyncio.create_task(desk.load(name, FOLDER)) for name in names)
    await settled()
    first.cancel()
    second.cancel()
    await settled()
    assert len(supervisor.asked) == 1
    supervisor.answer(0)
    await settled()
    assert len(supervisor.asked) == 2
    supervisor.answer(1)

    assert (await third).name == "lions"
    assert [each.name for each in desk.info.user_adapters] == ["cats", "lions"]


async def test_one_that_is_unloaded_while_it_is_loaded_again(
    desk: AdapterDesk, supervisor: HeldSupervisor
) -> None:
    """The same again was no news; it is not shown any more, for the engine lets it go."""
    first = asyncio.create_task(desk.load("cats", FOLDER))
    await settled()
    supervisor.answer(0)
    await first
    again = asyncio.create_task(desk.load("cats", FOLDER))
    await settled()
    desk.unload("cats", seconds=1.0)
    await settled()
    supervisor.answer(1)
    supervisor.answer(2)
    await settled()

    assert (await again).name == "cats"
    assert [type(question) for question in supervisor.asked] == [
        TakeAdapter,
        TakeAdapter,
        DropAdapter,
    ]
    assert desk.info.user_adapters == ()
    assert supervisor.config.adapters == ()


async def test_a_name_that_is_leaving_is_loaded_when_it_is_gone(
    desk: AdapterDesk, supervisor: HeldSupervisor
) -> None:
    """However many wait for it: none asks the engine before it has let the old one go."""
    first = asyncio.create_task(desk.load("cats", FOLDER))
    await settled()
    supervisor.answer(0)
    await first
    desk.unload("cats", seconds=1.0)
    again = [asyncio.create_task(desk.load("cats", FOLDER)) for _ in range(2)]
    await settled()
    assert supervisor.asked[1:] == [DropAdapter("cats")]
    supervisor.answer(1)
    await settled()
    supervisor.answer(2, digest="other")
    await settled()
    supervisor.answer(3, digest="other")

    assert [(await each).digest for each in again] == ["other"] * 2
    assert [each.digest for each in desk.info.user_adapters] == ["other"]
