"""How models and users' adapters come to be served and cease to be: the operator's side of it.

    name ─► folder under its root ─► room in memory? ─► an engine of its own ─► served
What was loaded at run time is written down, and loaded again when the server starts again.

Knows folders and engines' start; who may use what is loaded is `models`' business.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from ixc_runtime import Loading, ModelFolder, free_host_bytes, look_at_model_folder
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
from ixc_service.startup_plan import size_text

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
    """Either root is None on a server without it. `loaded_bytes` says what a model will take;
    `patience_seconds` is for those who use an adapter that is to go.
    """

    def __init__(
        self,
        models: Models,
        start: StartEngine,
        *,
        models_root: ModelsRoot | None,
        adapters_root: NamedFolders | None,
        loaded_bytes: Callable[[ModelFolder], int],
        record: Path,
        patience_seconds: float,
        free_bytes: Callable[[], int] = free_host_bytes,
    ) -> None:
        self._models = models
        self._start = start
        self._models_root = models_root
        self._adapters_root = adapters_root
        self._loaded_bytes = loaded_bytes
        self._record = record
        self._patience_seconds = patience_seconds
        self._free_bytes = free_bytes
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
                await asyncio.to_thread(self._check_memory, folder)
                engine = await self._start(folder, model_id, on_loading)
            return self._models.add(engine)

    def model_folder(self, model_id: str) -> Path:
        if self._models_root is None:
            raise NotOffered("the server has no models root", feature="models_root")
        try:
            return self._models_root.folder(model_id)
        except CheckpointMissing:
            raise ModelNotFound(model_name(model_id)[:128]) from None

    def _check_memory(self, folder: Path) -> None:
        try:
            required = self._loaded_bytes(look_at_model_folder(folder))
        except CheckpointMissing as fault:  # the folder is there: it is a file of it that is not
            raise CheckpointInvalid(fault.message, **fault.metadata) from None
        free = self._free_bytes()
        if required > free:
            raise MemoryLow(
                f"the model takes {size_text(required)}, {size_text(free)} are free",
                required=required,
                free=free,
            )

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

        Raises AdapterNotFound, what is wrong with it, or AdapterIdTaken if another has that name.
        """
        served = self._models.get(model)
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

    def unload_adapter(self, model: str, name: str, *, allow_missing: bool) -> ServedModel:
        """Takes nothing new for it from now on; raises AdapterNotFound if none was loaded so."""
        served = self._models.get(model)
        try:
            served.engine.unload_adapter(name, seconds=self._patience_seconds)
        except AdapterUnavailable:
            if not allow_missing:
                raise AdapterNotFound(adapter_name(name)[:128]) from None
        else:
            emit(_log, "adapter_unloaded", model=served.id, name=name)
        return served

    def _adapter_folder(self, adapter_id: str) -> Path:
        """One that there is, and room for. Reads the disk."""
        if self._adapters_root is None:
            raise NotOffered("the server has no adapters root", feature="adapters_root")
        try:
            folder = self._adapters_root.folder(adapter_id)
        except CheckpointMissing:
            raise AdapterNotFound(adapter_name(adapter_id)[:128]) from None
        self._check_adapter_memory(folder)
        return folder

    def _check_adapter_memory(self, folder: Path) -> None:
        """By the size of its files; what is wrong with them is for the engine to find."""
        required = sum(each.stat().st_size for each in folder.iterdir() if each.is_file())
        free = self._free_bytes()
        if required > free:
            raise MemoryLow(
                f"the adapter takes {size_text(required)}, {size_text(free)} are free",
                required=required,
                free=free,
            )

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
