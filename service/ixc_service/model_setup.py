"""From settings to the models of a server: the roots, who may load from them, what was loaded."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ixc_runtime.config import CONFIG_NAME
from ixc_runtime.errors import CheckpointError, CheckpointMissing, DiskFault
from ixc_runtime.models_root import ModelsRoot, NamedFolders
from ixc_service.catalogue import Catalogue
from ixc_service.engine_port import EnginePort
from ixc_service.limits import Limits
from ixc_service.model_desk import ModelDesk, StartEngine
from ixc_service.models import Models
from ixc_service.settings import Settings, SettingsError

RECORD_NAME = "models.json"


def first_model(settings: Settings) -> tuple[Path, str]:
    """Folder and name of the model that a server starts with. Raises what keeps it from it.

    Not with a name that another model in the models root has: requests would mean the one and
    jobs, once the first is unloaded, the other.
    """
    if settings.model is None:
        raise SettingsError("model: name the folder of a checkpoint, as in --model FOLDER")
    if not settings.model.expanduser().is_dir():
        raise CheckpointMissing(f"no such folder: {settings.model}")
    ((name, folder),) = outside_models(settings).items()
    if settings.models_root is not None:
        namesake = settings.models_root.expanduser() / name
        # A folder that is no model, as this repository's models/demo, is in nobody's way.
        if (namesake / CONFIG_NAME).is_file() and not namesake.samefile(folder):
            raise SettingsError(
                f"model: {folder} would be served as models/{name}, which the models root has "
                "already; give it another name, as in --model-name NAME"
            )
    return folder, name


def outside_models(settings: Settings) -> Mapping[str, Path]:
    """The model that the server was started with, by the name it is served under."""
    if settings.model is None:
        return {}
    folder = settings.model.expanduser()
    return {settings.model_name or folder.resolve().name: folder}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSetup:
    """`models_root` None: the server makes and loads no models."""

    models: Models
    desk: ModelDesk
    catalogue: Catalogue
    models_root: ModelsRoot | None


@contextlib.asynccontextmanager
async def open_models(
    settings: Settings,
    engine: EnginePort,
    start: StartEngine,
    data_dir: Path,
    *,
    stop: asyncio.Event,
) -> AsyncIterator[ModelSetup]:
    """`engine` as the default, and what was loaded beside it before the server last stopped, as
    far as that goes until `stop` is set. Closes every engine at the end, `engine` too.
    """
    root = ModelsRoot(settings.models_root.expanduser()) if settings.models_root else None
    adapters = settings.adapters_root
    patience_seconds = _patience_seconds(settings.limits)
    models = Models(
        engine,
        patience_seconds=patience_seconds,
        is_known=lambda model_id: root is not None and _holds(root, model_id),
    )
    try:
        desk = ModelDesk(
            models,
            start,
            models_root=root,
            adapters_root=NamedFolders(adapters.expanduser(), "adapters") if adapters else None,
            record=data_dir / RECORD_NAME,
            patience_seconds=patience_seconds,
        )
        await _restored(desk, stop)
        yield ModelSetup(
            models=models, desk=desk, catalogue=Catalogue(models, root), models_root=root
        )
    finally:
        await models.close()


async def _restored(desk: ModelDesk, stop: asyncio.Event) -> None:
    restoring = asyncio.ensure_future(desk.restore())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({restoring, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if restoring.done():
            restoring.result()
    finally:
        stopping.cancel()
        restoring.cancel()
        await asyncio.gather(restoring, stopping, return_exceptions=True)


def _patience_seconds(limits: Limits) -> float:
    """As long as anything that has begun may take."""
    return limits.max_queue_wait_seconds + limits.max_generation_timeout_seconds


def _holds(root: ModelsRoot, model_id: str) -> bool:
    try:
        root.model(model_id)
    except (CheckpointError, DiskFault):
        return False
    return True
