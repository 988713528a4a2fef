"""When an engine counts as hung."""

import asyncio
from collections.abc import Callable

import pytest

from ixc_runtime.watchdog import Watchdog


class Engine:
    """What a watchdog can see of one. `answers`: whether a question is answered."""

    def __init__(self, watchdog: Watchdog, *, is_owed: bool = True, answers: bool = False) -> None:
        self.watchdog = watchdog
        self.is_owed = is_owed
        self.answers = answers
        self.num_questions = 0

    def ask(self) -> None:
        self.num_questions += 1
        if self.answers:
            self.watchdog.heard()

    async def hangs_within(self, seconds: float, meanwhile: Callable[[], None]) -> bool:
        watching = asyncio.create_task(
            self.watchdog.until_hung(is_owed=lambda: self.is_owed, ask=self.ask)
        )
        for _ in range(100):
            meanwhile()
            done, _ = await asyncio.wait({watching}, timeout=seconds / 100)
            if done:
                return True
        watching.cancel()
        return False


def nothing() -> None:
    pass


async def test_an_engine_that_says_nothing_though_asked_hangs() -> None:
    """It is asked once, and given the rest of the patience to answer."""
    engine = Engine(Watchdog(0.1))
    assert await engine.hangs_within(2.0, nothing)
    assert engine.num_questions == 1


async def test_an_engine_that_owes_nothing_may_be_silent() -> None:
    """Idle is not hung, and idle engines are left alone."""
    engine = Engine(Watchdog(0.02), is_owed=False)
    assert not await engine.hangs_within(0.2, nothing)
    assert engine.num_questions == 0


async def test_an_engine_that_answers_is_not_hung() -> None:
    """As when its sequences wait for pixels: no step, but an answer."""
    engine = Engine(Watchdog(0.02), answers=True)
    assert not await engine.hangs_within(0.2, nothing)
    assert engine.num_questions >= 2


async def test_an_engine_that_steps_is_never_asked() -> None:
    """Frames are proof enough; a busy engine gets no questions."""
    engine = Engine(Watchdog(0.4))
    assert not await engine.hangs_within(1.0, engine.watchdog.heard)
    assert engine.num_questions == 0


def test_no_patience_is_refused() -> None:
    """Zero would kill every engine."""
    with pytest.raises(ValueError, match="above 0"):
        Watchdog(0.0)
