"""From settings to a running server, and from there to the end.

    settings ─► engine ready ─► port open ─► serving … SIGTERM ─► drained ─► exit 0

The port opens only once the engine is ready: there is never a half-ready server.
"""

import asyncio
import gc
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from ixc_runtime import Engine, EngineConfig, Loading, MediaLimits
from ixc_service.draining import StopSignals, drain
from ixc_service.limits import Limits
from ixc_service.log_events import emit
from ixc_service.model_setup import first_model
from ixc_service.server import serving
from ixc_service.settings import Settings
from ixc_service.startup_plan import plan_text

_log = logging.getLogger(__name__)


def engine_config(settings: Settings, folder: Path, name: str) -> EngineConfig:
    """Zero in the settings leaves the choice to the engine."""
    chosen: dict[str, object] = {
        name: value
        for name, value in (
            ("dtype", settings.dtype),
            ("max_context", settings.max_context),
            ("max_batch", settings.max_batch),
            ("max_step_tokens", settings.max_step_tokens),
            ("kv_bytes", settings.kv_bytes),
            ("adapter_bytes", settings.adapter_bytes),
            ("queue_limit", settings.queue_limit or 4 * settings.max_batch),
            ("threads", settings.threads),
        )
        if value
    }
    if settings.adapters_root is None:
        chosen["adapter_bytes"] = 0  # there are none to come
    return EngineConfig(
        model=str(folder.expanduser()),
        name=name,
        device=settings.device,
        reuse_prefixes=settings.prefix_cache,
        **chosen,  # type: ignore[arg-type]
    )


def media_limits(limits: Limits) -> MediaLimits:
    """What the media workers must refuse to decode."""
    return MediaLimits(
        max_image_pixels=limits.max_image_pixels,
        max_video_pixels=limits.max_video_pixels,
        max_video_seconds=limits.max_video_duration_seconds,
    )


async def run(settings: Settings, environ: Mapping[str, str]) -> None:
    """Serves until SIGTERM or SIGINT. Raises SettingsError or a fault that says what is wrong."""
    signals = StopSignals()
    signals.watch()
    folder, name = first_model(settings)
    emit(_log, "starting", device=settings.device)
    starting = asyncio.ensure_future(_started(settings, engine_config(settings, folder, name)))
    stopping = asyncio.ensure_future(signals.asked.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return
    engine = await starting

    async def start_engine(
        folder: Path, model_id: str, on_loading: Callable[[Loading], None]
    ) -> Engine:
        return await _started(settings, engine_config(settings, folder, model_id), on_loading)

    data_dir = settings.resolved_data_dir(environ)
    async with serving(
        settings, engine, data_dir=data_dir, start_engine=start_engine, stop=signals.asked
    ) as server:
        print(plan_text(engine.info, engine.plan, server.addresses), file=sys.stderr)
        # What start-up made stays: the cycle collector need not look at it again, which would
        # stall all streams for tens of milliseconds each time.
        gc.freeze()
        emit(_log, "ready", addresses=",".join(server.addresses), instance=server.instance)
        await stopping
        await drain(server, settings, signals)
    emit(_log, "stopped")


async def _started(
    settings: Settings,
    config: EngineConfig,
    on_loading: Callable[[Loading], None] = lambda loading: None,
) -> Engine:
    return await Engine.start(
        config,
        in_process=settings.in_process,
        media=media_limits(settings.limits),
        step_timeout_seconds=settings.step_timeout_seconds or None,
        on_loading=on_loading,
    )
