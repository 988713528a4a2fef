"""Keeps an engine running: when it dies another is started, when it hangs it is killed for that.

    running ── dies, or is silent too long ──► everyone is told ──► started again ──► running

Knows the link to the engine and the questions that go over it; what frames say is its owner's
business, and so is who waits for them.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable

from ixc_runtime.engine_process.link import EngineLink, open_link
from ixc_runtime.engine_process.messages import (
    Answer,
    Ask,
    EngineConfig,
    Frame,
    FromEngine,
    Query,
    Question,
    Ready,
    ToEngine,
)
from ixc_runtime.errors import EngineLost, RuntimeFault
from ixc_runtime.watchdog import Watchdog

_log = logging.getLogger(__name__)
_RESTART_SECONDS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)


class Supervisor:
    """Reads from a started engine from the first moment; `close` ends it, and the engine.

    `config` is what the next engine will be started with; `welcome` gets that one's first words.
    `hear` gets each frame. `lose` is told when nothing more will come of what was sent. `is_owed`
    says whether anybody waits for a frame: an engine process that owes one and says nothing for
    `step_timeout_seconds` is killed and replaced; None waits for ever. A thread cannot be killed,
    and is not watched.
    """

    def __init__(
        self,
        config: EngineConfig,
        link: EngineLink,
        *,
        in_process: bool,
        step_timeout_seconds: float | None,
        hear: Callable[[Frame], None],
        lose: Callable[[EngineLost], None],
        is_owed: Callable[[], bool],
        welcome: Callable[[Ready], None],
    ) -> None:
        self.config = config
        self._in_process = in_process
        self._link: EngineLink | None = link
        self._hear = hear
        self._lose = lose
        self._is_owed = is_owed
        self._welcome = welcome
        self._watchdog = Watchdog(step_timeout_seconds) if step_timeout_seconds else None
        self._questions: dict[int, asyncio.Future[Answer]] = {}
        self._question_ids = itertools.count()
        self._listeners: list[Callable[[bool], None]] = []
        self._task = asyncio.create_task(self._supervise(), name="engine supervisor")

    async def close(self) -> None:
        """Stop the engine; whoever waits for it is told that it is lost."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        link, self._link = self._link, None
        self._lose_everything()
        if link is not None:
            await link.close()

    # ---- the engine, as it is now

    @property
    def is_alive(self) -> bool:
        return self._link is not None

    @property
    def process_id(self) -> int | None:
        """Of the engine process; None while it restarts, or when it is a thread of this one."""
        return self._link.process_id if self._link else None

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """Call `listener(is_alive)` whenever the engine goes down or comes back."""
        self._listeners.append(listener)

    def require_alive(self) -> None:
        """Raises EngineLost while there is no engine."""
        self._require_link()

    def send(self, message: ToEngine) -> None:
        """Raises EngineLost while there is no engine."""
        self._require_link().send(message)

    def send_if_alive(self, message: ToEngine) -> None:
        """For what concerns nobody once the engine that it was meant for is gone."""
        if self._link is not None:
            self._link.send(message)

    async def ask(self, question: Question) -> Answer:
        """Raises EngineLost when no answer will come."""
        link = self._require_link()
        question_id = next(self._question_ids)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._questions[question_id] = future
        link.send(Ask(question_id, question))
        return await future

    # ---- its life

    async def _supervise(self) -> None:
        while True:
            link = self._link
            assert link is not None, "set before each round"
            try:
                async with self._watched(link):
                    while True:
                        message = await link.receive()
                        if self._watchdog is not None:
                            self._watchdog.heard()
                        self._dispatch(message)
            except EngineLost:
                _log.error("the engine process has ended; restarting it")
            self._link = None
            self._lose_everything()
            self._announce(False)
            await link.close()
            self._link = await self._restart()
            self._announce(True)

    def _dispatch(self, message: FromEngine) -> None:
        match message:
            case Frame():
                self._hear(message)
            case Answer(question_id=question_id):
                future = self._questions.pop(question_id, None)
                if future is not None and not future.done():
                    future.set_result(message)
            case _:
                raise AssertionError("what is said while starting comes first, once")

    @contextlib.asynccontextmanager
    async def _watched(self, link: EngineLink) -> AsyncIterator[None]:
        """Kill this engine if it hangs meanwhile; its link then ends as if it had crashed."""
        if self._watchdog is None or link.process_id is None:
            yield
            return
        watching = asyncio.create_task(self._kill_when_hung(self._watchdog, link))
        try:
            yield
        finally:
            watching.cancel()

    async def _kill_when_hung(self, watchdog: Watchdog, link: EngineLink) -> None:
        await watchdog.until_hung(
            is_owed=lambda: self._is_owed() or bool(self._questions),
            ask=lambda: link.send(Ask(next(self._question_ids), Query.LOAD)),
        )
        _log.error("the engine has been silent over a step for %g s; killing it", watchdog.seconds)
        link.kill()

    async def _restart(self) -> EngineLink:
        for attempt in itertools.count():
            await asyncio.sleep(_RESTART_SECONDS[min(attempt, len(_RESTART_SECONDS) - 1)])
            try:
                link, ready = await open_link(self.config, in_process=self._in_process)
            except RuntimeFault as fault:
                _log.error("the engine did not start again: %s", fault.message)
            else:
                self._welcome(ready)
                return link
        raise AssertionError("unreachable")

    def _announce(self, is_alive: bool) -> None:
        for listener in self._listeners:
            listener(is_alive)

    def _require_link(self) -> EngineLink:
        if self._link is None:
            raise EngineLost("the engine is restarting")
        return self._link

    def _lose_everything(self) -> None:
        fault = EngineLost("the engine process ended while this was under way")
        for future in self._questions.values():
            if not future.done():
                future.set_exception(fault)
        self._questions.clear()
        self._lose(fault)
