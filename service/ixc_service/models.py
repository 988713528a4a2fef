"""The models that this server answers with: which there are, and who uses them.

Each has an engine of its own. Whoever works with a model holds it. One that is leaving takes
nothing new, and its engine is closed when the last holder has let go, or has been given enough
time. One model is the default: it answers requests that name none, and cannot leave.

Knows engines and names; how models come to be loaded is `model_desk`'s business.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from enum import Enum

from ixc_runtime import ModelInfo
from ixc_runtime.errors import RuntimeFault
from ixc_service.engine_port import EnginePort
from ixc_service.errors import (
    ModelInUse,
    ModelNotFound,
    ModelNotLoaded,
    SessionWeightsChanged,
)
from ixc_service.identifiers import model_id_of, model_name, session_name
from ixc_service.log_events import emit
from ixc_service.store import SessionRecord

_log = logging.getLogger(__name__)


class ModelState(Enum):
    """Of a model that is not just a folder."""

    LOADING = "loading"
    LOADED = "loaded"
    UNLOADING = "unloading"


class ServedModel:
    """A model that is loaded. To be `held` by everything that counts on its engine."""

    def __init__(self, engine: EnginePort) -> None:
        self.engine = engine
        self.id = engine.info.name
        self.is_leaving = False
        self._num_holders = 0
        self._let_go = asyncio.Event()

    @property
    def info(self) -> ModelInfo:
        return self.engine.info

    @property
    def is_held(self) -> bool:
        return self._num_holders > 0

    @contextlib.contextmanager
    def held(self) -> Iterator[EnginePort]:
        self._num_holders += 1
        try:
            yield self.engine
        finally:
            self._num_holders -= 1
            if not self._num_holders:
                self._let_go.set()

    async def until_free(self) -> None:
        while self.is_held:
            self._let_go.clear()
            await self._let_go.wait()


class Models:
    """`patience_seconds`: how long those who hold a model may take once it is leaving.

    `is_known` tells the ids that could be loaded from those that mean nothing. It may read a disk,
    and is called on a thread of its own.
    """

    def __init__(
        self,
        default: EnginePort,
        *,
        patience_seconds: float,
        is_known: Callable[[str], bool] = lambda model_id: False,
    ) -> None:
        self._patience_seconds = patience_seconds
        self._is_known = is_known
        self._served: dict[str, ServedModel] = {}
        self._loading: set[str] = set()
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._letting_go: set[asyncio.Task[None]] = set()  # each waits for a model's last holder
        self._listeners: list[Callable[[str], None]] = []
        self.default = self.add(default)

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Calls `listener(reason)` when models come or go, or their engines do."""
        self._listeners.append(listener)

    async def close(self) -> None:
        """Closes every engine; what still runs on them is lost."""
        for waiting in self._letting_go:
            waiting.cancel()
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)
        await asyncio.gather(*(served.engine.close() for served in self._served.values()))

    # ---- finding

    @property
    def served(self) -> list[ServedModel]:
        """Ordered by name; those that are leaving are still among them."""
        return sorted(self._served.values(), key=lambda served: served.id)

    @property
    def loading(self) -> list[str]:
        return sorted(self._loading)

    def state(self, model_id: str) -> ModelState | None:
        """None: just a folder, if even that."""
        if model_id in self._loading:
            return ModelState.LOADING
        served = self._served.get(model_id)
        if served is None:
            return None
        return ModelState.UNLOADING if served.is_leaving else ModelState.LOADED

    def look_up(self, model_id: str) -> ServedModel | None:
        """One that is there, if only to end what it has begun."""
        return self._served.get(model_id)

    def find(self, model_id: str) -> ServedModel | None:
        """One that takes new work."""
        served = self.look_up(model_id)
        return None if served is None or served.is_leaving else served

    def find_named(self, name: str) -> ServedModel | None:
        """The model for new work of a request that names this one, or none."""
        return self.find(model_id_of(name) or "") if name else self.default

    async def get(self, name: str) -> ServedModel:
        """As `find_named`, without a wait if it is there. Raises ModelNotLoaded, ModelNotFound."""
        served = self.find_named(name)
        if served is None:
            raise await self.absence(name)
        return served

    def facts(self, name: str) -> ModelInfo:
        """What a request for this model is checked against; the default's where it is not there.

        Lets all that is wrong with a request be told at once; `get` then says what it has to say.
        """
        return (self.find(model_id_of(name) or "") or self.default).info

    async def absence(self, name: str) -> RuntimeFault:
        """Why there is no such model to work with."""
        if await self._is_known_here(model_id_of(name) or ""):
            return ModelNotLoaded(f"{name[:128]} is not loaded", model=name)
        return ModelNotFound(name[:128])

    def find_for(self, session: SessionRecord) -> ServedModel | None:
        """The model a session goes on with: the one with its weights, whatever it is called."""
        by_name = self.find(session.model)
        candidates = ([by_name] if by_name else []) + self.served
        for served in candidates:
            if served.info.digest == session.weights_digest and not served.is_leaving:
                return served
        return None

    async def get_for(self, session: SessionRecord) -> ServedModel:
        """As `find_for`, without a wait if it is there. Raises SessionWeightsChanged, or what keeps
        its model from being there.
        """
        if served := self.find_for(session):
            return served
        named = self.find(session.model)
        if named is None and await self._is_known_here(session.model):
            name = model_name(session.model)
            raise ModelNotLoaded(f"the session's model, {name}, is not loaded", model=name)
        current = named or self.default
        raise SessionWeightsChanged(
            "the session was made with other weights",
            session=session_name(session.session_id),
            session_digest=session.weights_digest[:16],
            server_digest=current.info.digest[:16],
        )

    async def _is_known_here(self, model_id: str) -> bool:
        if self.state(model_id) is not None:
            return True
        return await asyncio.to_thread(self._is_known, model_id)

    @property
    def liveness(self) -> dict[str, bool]:
        """Whether its engine is up, by the name of each model that takes new work."""
        return {
            model_name(served.id): served.engine.is_alive
            for served in self.served
            if not served.is_leaving
        }

    def with_pictures(self) -> ServedModel | None:
        """One that takes pictures, the default if it does: uploads belong to no model."""
        able = (each for each in [self.default, *self.served] if each.info.tile_size is not None)
        return next(able, None)

    # ---- coming and going

    @contextlib.contextmanager
    def announced(self, model_id: str) -> Iterator[None]:
        """While it is being loaded."""
        self._loading.add(model_id)
        try:
            yield
        finally:
            self._loading.remove(model_id)

    def add(self, engine: EnginePort) -> ServedModel:
        served = ServedModel(engine)
        assert served.id not in self._served, "looked at before it was loaded"
        self._served[served.id] = served
        engine.on_change(
            lambda is_alive: self._tell(
                f"the engine of {served.id} is {'back' if is_alive else 'down'}"
            )
        )
        self._tell(f"{served.id} is loaded")
        return served

    def make_default(self, served: ServedModel) -> None:
        self.default = served
        self._tell(f"{served.id} is the default")

    def dismiss(self, served: ServedModel) -> asyncio.Task[None]:
        """It takes nothing new from now on; the task ends when it is gone.

        Raises ModelInUse if it is the default.
        """
        if served is self.default:
            raise ModelInUse(
                f"{model_name(served.id)} is the default model; load another as the default first",
                model=model_name(served.id),
            )
        if (leaving := self._leaving.get(served.id)) is not None:
            return leaving
        served.is_leaving = True
        self._tell(f"{served.id} is leaving")
        letting_go = asyncio.create_task(served.until_free())
        self._letting_go.add(letting_go)
        letting_go.add_done_callback(self._letting_go.discard)
        task = asyncio.create_task(self._close(served, letting_go), name=f"unload {served.id}")
        self._leaving[served.id] = task
        task.add_done_callback(lambda _: self._leaving.pop(served.id))
        return task

    async def _close(self, served: ServedModel, letting_go: asyncio.Task[None]) -> None:
        await asyncio.wait({letting_go}, timeout=self._patience_seconds)
        if letting_go.cancel():
            emit(_log, "model_still_held", level=logging.WARNING, model=served.id)
        try:
            await served.engine.close()
        finally:
            del self._served[served.id]
            self._tell(f"{served.id} is unloaded")

    def _tell(self, reason: str) -> None:
        for listener in self._listeners:
            listener(reason)
