"""From settings to a running server, and from SIGTERM to the end.

    settings ─► engine ready ─► port open ─► serving … SIGTERM
        health NOT_SERVING ─ notice ─► new work refused, streams told ─ grace ─► stopped ─► exit 0

The port opens only once the engine is ready: there is never a half-ready server.
"""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Mapping

from ixc_runtime import Engine, EngineConfig, MediaLimits
from ixc_service.limits import Limits
from ixc_service.log_events import emit
from ixc_service.server import Server, serving
from ixc_service.settings import Settings, SettingsError
from ixc_service.startup_plan import plan_text

_log = logging.getLogger(__name__)


def engine_config(settings: Settings) -> EngineConfig:
    """Zero in the settings leaves the choice to the engine."""
    if settings.model is None:
        raise SettingsError("model: name the folder of a checkpoint, as in --model FOLDER")
    chosen: dict[str, object] = {
        name: value
        for name, value in (
            ("dtype", settings.dtype),
            ("max_context", settings.max_context),
            ("max_batch", settings.max_batch),
            ("max_step_tokens", settings.max_step_tokens),
            ("kv_bytes", settings.kv_bytes),
            ("queue_limit", settings.queue_limit or 4 * settings.max_batch),
            ("threads", settings.threads),
        )
        if value
    }
    return EngineConfig(
        model=str(settings.model.expanduser()),
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
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    config = engine_config(settings)
    emit(_log, "starting", device=config.device)
    starting = asyncio.ensure_future(
        Engine.start(
            config,
            in_process=settings.in_process,
            media=media_limits(settings.limits),
            step_timeout_seconds=settings.step_timeout_seconds or None,
        )
    )
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return
    engine = await starting
    try:
        data_dir = settings.resolved_data_dir(environ)
        async with serving(settings, engine, data_dir=data_dir) as server:
            print(plan_text(engine.info, engine.plan, server.addresses), file=sys.stderr)
            # What start-up made stays: the cycle collector need not look at it again, which would
            # stall all streams for tens of milliseconds each time.
            gc.freeze()
            emit(_log, "ready", addresses=",".join(server.addresses), instance=server.instance)
            await stopping
            await drain(server, settings)
    finally:
        await engine.close()
    emit(_log, "stopped")


async def drain(server: Server, settings: Settings) -> None:
    server.health.drain()
    emit(_log, "draining", grace_seconds=settings.drain_grace_seconds)
    await asyncio.sleep(settings.drain_notice_seconds)
    await server.stop(settings.drain_grace_seconds)
