"""How a server takes its leave.

    signal ── health NOT_SERVING, streams told ── notice ──── only what runs ──── stopped
             new work still accepted ◄───────────────┘                        │
             └── drain_grace_seconds ─────────────────────────────────────────┘

The notice is for load balancers: they look for a while where a server was, and what they send late
is better served than refused. A person at a terminal is none, so SIGINT has no notice, and a second
one no grace either. A second SIGTERM changes nothing: supervisors repeat theirs.
"""

import asyncio
import logging
import signal

from ixc_service.log_events import emit
from ixc_service.server import Server
from ixc_service.settings import Settings

_log = logging.getLogger(__name__)


class StopSignals:
    """What has been asked for so far. `watch` once, in the main thread."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurry = asyncio.Event()  # whoever asked does not want to wait any longer
        self.gives_notice = True

    def watch(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.asked.set)
        loop.add_signal_handler(signal.SIGINT, self.interrupt)

    def interrupt(self) -> None:
        if self.asked.is_set():
            self.hurry.set()
        self.gives_notice = False
        self.asked.set()


async def drain(server: Server, settings: Settings, signals: StopSignals) -> None:
    """Returns once the server has stopped."""
    loop = asyncio.get_running_loop()
    grace = settings.drain_grace_seconds
    notice = min(settings.drain_notice_seconds, grace) if signals.gives_notice else 0.0
    end = loop.time() + grace
    emit(_log, "draining", notice_seconds=notice, grace_seconds=grace)
    server.announce_drain(grace)
    if notice:
        await _sleep(notice, unless=signals.hurry)
    await server.stop(max(0.0, end - loop.time()), hurry=signals.hurry)


async def _sleep(seconds: float, *, unless: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await unless.wait()
    except TimeoutError:
        return
