"""The adapters that users bring to a running engine: taken in, counted while used, let go.

The engine reads them itself, from folders it is told; what is here is the front end's knowledge of
them: which there are, which generation uses which, and what a restarted engine has to read again.
"""

import asyncio
import contextlib
from pathlib import Path

import msgspec

from ixc_runtime.engine_process.messages import AdapterSource, DropAdapter, Ready, TakeAdapter
from ixc_runtime.errors import (
    AdapterUnavailable,
    EngineLost,
    FieldInvalid,
    fault_from_reason,
)
from ixc_runtime.model_info import AdapterInfo, ModelInfo
from ixc_runtime.supervisor import Supervisor


class AdapterDesk:
    """One engine's. `info` is its model with the adapters that can be asked for now."""

    def __init__(self, supervisor: Supervisor, info: ModelInfo) -> None:
        self._supervisor = supervisor
        self.info = info
        self._users: dict[str, str] = {}  # generation -> adapter
        self._left = asyncio.Event()
        self._taking: asyncio.Task[AdapterInfo] | None = None  # one at a time
        self._leaving: dict[str, asyncio.Task[None]] = {}

    # ---- who uses which

    def require(self, adapter: str) -> None:
        if adapter not in self.info.adapters:
            raise AdapterUnavailable(
                f"this model has no adapter {adapter!r}",
                adapter=adapter,
                available=",".join(self.info.adapters),
            )

    def enter(self, generation_id: str, adapter: str) -> None:
        self._users[generation_id] = adapter

    def leave(self, generation_id: str) -> None:
        if self._users.pop(generation_id, None) is not None:
            self._left.set()

    def everyone_left(self) -> None:
        self._users.clear()
        self._left.set()

    # ---- which there are

    async def load(self, name: str, folder: Path) -> AdapterInfo:
        """Have the engine read the PEFT folder; requests may ask for it by `name` from then on.

        What is there already under this name, with the same weights, is there: no error. Raises
        AdapterIdTaken if its weights are others, FieldInvalid for a name of the checkpoint's own,
        CheckpointError if the folder is not fit for this model, EngineLost if the engine ends or is
        not up.
        """
        if name in self._own:
            raise FieldInvalid("name", f"{name!r} is an adapter of the model's own")
        while (before := self._taking or self._leaving.get(name)) is not None:
            await asyncio.wait({before})
        source = AdapterSource(name=name, folder=str(folder))
        self._taking = asyncio.create_task(self._take(source), name=f"load adapter {name}")
        self._taking.add_done_callback(self._taken)
        # Whoever asked may go: the engine takes it all the same, and what is not known here could
        # never be let go.
        return await asyncio.shield(self._taking)

    async def _take(self, source: AdapterSource) -> AdapterInfo:
        answer = await self._supervisor.ask(TakeAdapter(source))
        if answer.refusal is not None:
            why = answer.refusal
            raise fault_from_reason(why.reason, why.message, why.metadata)
        assert answer.adapter is not None, "TakeAdapter brings an adapter or a refusal"
        if source.name not in self._leaving:  # else it was there, and has been unloaded meanwhile
            digest = answer.adapter.digest
            self._put(answer.adapter, msgspec.structs.replace(source, digest=digest))
        return answer.adapter

    def _taken(self, taking: asyncio.Task[AdapterInfo]) -> None:
        self._taking = None
        if not taking.cancelled():
            taking.exception()  # perhaps there is nobody left to hear of it

    def unload(self, name: str, *, seconds: float) -> None:
        """Nobody may ask for it from now on; generations that use it have `seconds` to end.

        Those still there then fail with AdapterUnavailable. Raises FieldInvalid for a name of the
        checkpoint's own, AdapterUnavailable if there is none of that name, EngineLost if the engine
        is not up: the one that is starting may be reading it.
        """
        if name in self._own:
            raise FieldInvalid("name", f"{name!r} is an adapter of the model's own")
        self.require(name)
        self._supervisor.require_alive()
        self._take_away(name)
        task = asyncio.create_task(self._drain(name, seconds), name=f"unload adapter {name}")
        self._leaving[name] = task
        task.add_done_callback(lambda _: self._leaving.pop(name))

    async def _drain(self, name: str, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while name in self._users.values():
                    self._left.clear()
                    await self._left.wait()
        # An engine that is lost meanwhile comes back without it.
        with contextlib.suppress(EngineLost):
            await self._supervisor.ask(DropAdapter(name))

    async def close(self) -> None:
        leaving = tuple(self._leaving.values())
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)

    def restarted(self, ready: Ready) -> None:
        """The engine is a new one: what it could not read again is gone."""
        self.info = ready.info
        names = {each.name for each in ready.info.user_adapters}
        self._remember(
            tuple(each for each in self._supervisor.config.adapters if each.name in names)
        )

    # ---- the accounts

    @property
    def _own(self) -> tuple[str, ...]:
        """The checkpoint's, and the base."""
        users = {each.name for each in self.info.user_adapters}
        return tuple(name for name in self.info.adapters if name not in users)

    def _put(self, adapter: AdapterInfo, source: AdapterSource) -> None:
        self._take_away(adapter.name)
        self._show((*self.info.user_adapters, adapter))
        self._remember((*self._supervisor.config.adapters, source))

    def _take_away(self, name: str) -> None:
        self._show(tuple(each for each in self.info.user_adapters if each.name != name))
        self._remember(
            tuple(each for each in self._supervisor.config.adapters if each.name != name)
        )

    def _show(self, adapters: tuple[AdapterInfo, ...]) -> None:
        names = sorted(each.name for each in adapters)
        self.info = msgspec.structs.replace(
            self.info, adapters=(*self._own, *names), user_adapters=adapters
        )

    def _remember(self, sources: tuple[AdapterSource, ...]) -> None:
        """What the next engine is to begin with."""
        self._supervisor.config = msgspec.structs.replace(self._supervisor.config, adapters=sources)
