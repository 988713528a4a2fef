"""How models and users' adapters come to be served and cease to be: the operator's side of it.

    name ─► folder under its root ─► an engine of its own, if it finds room ─► served
What was loaded at run time is written down, and loaded again when the server starts again.

Knows folders and engines' start; what fits its device an engine says itself, and who may use what
is loaded is `models`' business.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from ixc_runtime import Loading, look_at_model_folder
from ixc_runtime.byte_sizes import size_text
from ixc_runtime.errors import (
    AdapterInvalid,
    AdapterUnavailable,
    CheckpointError,
    CheckpointInvalid,
    CheckpointMissing,
    MemoryLow,
    NotOffered,
    RuntimeFault,
)
from ixc_runtime.models_root import ModelsRoot, NamedFolders
from ixc_service.engine_port import EnginePort
from ixc_service.errors import (
    AdapterNotFound,
    ModelNotFound,
    OperationConflict,
    StoreUnavailable,
)
from ixc_service.identifiers import adapter_name, model_name
from ixc_service.log_events import emit
from ixc_service.models import Models, ModelState, ServedModel

_log = logging.getLogger(__name__)


class StartEngine(Protocol):
    """How a folder becomes an engine. Raises the fault that keeps it from becoming one."""

    async def __call__(
        self, folder: Path, model_id: str, on_loading: Callable[[Loading], None]
    ) -> EnginePort: ...


async def start_nothing(
    folder: Path, model_id: str, on_loading: Callable[[Loading], None]
) -> EnginePort:
    """Of a server that was given an engine and no way to make others."""
    raise NotOffered("this server starts no further models", feature="models_root")


class _Record(msgspec.Struct, frozen=True):
    """What the next start of the server is to load. `default` None: the one it is told."""

    models: list[str]
    default: str | None


class ModelDesk:
    """Either root is None on a server without it. `patience_seconds` is for those who use an
    adapter that is to go.
    """

    def __init__(
        self,
        models: Models,
        start: StartEngine,
        *,
        models_root: ModelsRoot | None,
        adapters_root: NamedFolders | None,
        record: Path,
        patience_seconds: float,
    ) -> None:
        self._models = models
        self._start = start
        self._models_root = models_root
        self._adapters_root = adapters_root
        self._record = record
        self._patience_seconds = patience_seconds
        self._one_load = asyncio.Lock()  # what is free for one is not free for another
        self._one_record = threading.Lock()
        self._loaded: list[str] = []  # at run time, oldest first; replaced, never changed

    # ---- models

    async def load(
        self,
        model_id: str,
        *,
        make_default: bool = False,
        on_loading: Callable[[Loading], None],
    ) -> ServedModel:
        """Serves a model of the models root, beside the others or as the default.

        One that is served already only becomes the default, if it is to. Raises OperationConflict
        while it comes or goes, ModelNotFound, MemoryLow, or what is wrong with the checkpoint.
        """
        served = self._models.find(model_id)
        if served is None:
            served = await self._load(model_id, on_loading)
            self._loaded = [*self._without(model_id), model_id]
        if make_default:
            self._models.make_default(served)
        remembering = asyncio.ensure_future(self._remember())
        try:
            await asyncio.shield(remembering)
        except asyncio.CancelledError:  # too late: it answers already
            await remembering
        return served

    async def _load(self, model_id: str, on_loading: Callable[[Loading], None]) -> ServedModel:
        folder = self.model_folder(model_id)
        if (state := self._models.state(model_id)) is not None:
            raise OperationConflict(f"the model is {state.value}", model=model_name(model_id))
        with self._models.announced(model_id):
            async with self._one_load:
                engine = await self._started(folder, model_id, on_loading)
            return self._models.add(engine)

    def model_folder(self, model_id: str) -> Path:
        if self._models_root is None:
            raise NotOffered("the server has no models root", feature="models_root")
        try:
            return self._models_root.folder(model_id)
        except CheckpointMissing:
            raise ModelNotFound(model_name(model_id)[:128]) from None

    async def _started(
        self, folder: Path, model_id: str, on_loading: Callable[[Loading], None]
    ) -> EnginePort:
        try:
            # What is plainly no model needs no process to be found out.
            await asyncio.to_thread(look_at_model_folder, folder)
            return await self._start(folder, model_id, on_loading)
        except CheckpointMissing as fault:  # the folder is there: it is a file of it that is not
            raise CheckpointInvalid(fault.message, **fault.metadata) from None
        except MemoryLow as fault:
            held = "; ".join(
                f"{model_name(served.id)} holds {size_text(served.engine.plan.total_bytes)} of "
                f"{served.engine.plan.device}"
                for served in self._models.served
            )
            raise MemoryLow(f"{fault.message}; {held}", **fault.metadata) from None

    async def unload(self, model_id: str) -> ModelState | None:
        """Takes nothing new for it from now on; its state then, None once it is gone.

        Raises ModelInUse for the default, ModelNotFound. What is just a folder stays one.
        """
        served = self._models.look_up(model_id)
        is_held = served is not None and served.is_held
        leaving = None if served is None else self._models.dismiss(served)
        if served is None and self._models.state(model_id) is None:
            self.model_folder(model_id)
        if model_id in self._loaded:
            self._loaded = self._without(model_id)
            await self._remember()  # first, for whoever asked may not wait for the rest
        if leaving is not None and not is_held:
            await asyncio.wait({leaving})
        return self._models.state(model_id)

    def _without(self, model_id: str) -> list[str]:
        return [each for each in self._loaded if each != model_id]

    # ---- users' adapters

    async def load_adapter(self, model: str, adapter_id: str, name: str) -> ServedModel:
        """Gives a served model the adapter of the adapters root, under `name`.

        Raises AdapterNotFound, what is wrong with it, AdapterIdTaken if another has that name, or
        MemoryLow if the engine has no room for it.
        """
        served = await self._models.get(model)
        folder = await asyncio.to_thread(self._adapter_folder, adapter_id)
        try:
            with served.held() as engine:
                await engine.load_adapter(name, folder)
        except CheckpointMissing as fault:  # the folder is there: it is a file of it that is not
            raise AdapterInvalid(fault.message, adapter=adapter_name(adapter_id)) from None
        except CheckpointError as fault:
            fault.metadata = {"adapter": adapter_name(adapter_id), **fault.metadata}
            raise
        emit(_log, "adapter_loaded", model=served.id, adapter=adapter_id, name=name)
        return served

    async def unload_adapter(self, model: str, name: str, *, allow_missing: bool) -> ServedModel:
        """Takes nothing new for it from now on; raises AdapterNotFound if none was loaded so."""
        served = await self._models.get(model)
        try:
            served.engine.unload_adapter(name, seconds=self._patience_seconds)
        except AdapterUnavailable:
            if not allow_missing:
                raise AdapterNotFound(adapter_name(name)[:128]) from None
        else:
            emit(_log, "adapter_unloaded", model=served.id, name=name)
        return served

    def _adapter_folder(self, adapter_id: str) -> Path:
        """Reads the disk."""
        if self._adapters_root is None:
            raise NotOffered("the server has no adapters root", feature="adapters_root")
        try:
            return self._adapters_root.folder(adapter_id)
        except CheckpointMissing:
            raise AdapterNotFound(adapter_name(adapter_id)[:128]) from None

    # ---- over a restart of the server

    async def restore(self) -> None:
        """Loads what the record names. What cannot be loaded now is logged, and tried next time."""
        try:
            record = msgspec.json.decode(self._record.read_bytes(), type=_Record)
        except FileNotFoundError:
            return
        self._loaded = record.models
        for model_id in record.models:
            try:
                served = self._models.find(model_id) or await self._load(model_id, _heedless)
                if model_id == record.default:
                    self._models.make_default(served)
            except RuntimeFault as fault:
                emit(
                    _log,
                    "model_not_restored",
                    level=logging.ERROR,
                    model=model_id,
                    reason=fault.reason,
                    message=fault.message,
                )

    async def _remember(self) -> None:
        try:
            await asyncio.to_thread(self._write_down)
        except OSError as error:
            raise StoreUnavailable("what is loaded could not be written down") from error

    def _write_down(self) -> None:
        """On a thread of its own, which a caller that is cancelled does not end: hence the lock,
        and the last one to write sees what is so then.
        """
        with self._one_record:
            default = self._models.default.id
            loaded = self._loaded
            record = _Record(models=loaded, default=default if default in loaded else None)
            _replace(self._record, msgspec.json.encode(record))


def _heedless(_: Loading) -> None:
    """Nobody watches how far it is."""


def _replace(path: Path, content: bytes) -> None:
    """Whole or not at all, also over a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
