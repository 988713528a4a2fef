"""What is no longer needed goes: ended generations, expired sessions, unreferenced media."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from ixc_service.generations import Generations
from ixc_service.log_events import emit
from ixc_service.media_store import MediaStore
from ixc_service.moments import Clock
from ixc_service.status import FaultDesk
from ixc_service.store import SessionStore

_PERIOD_SECONDS = 30.0
_log = logging.getLogger(__name__)


class Housekeeping:
    def __init__(
        self,
        generations: Generations,
        store: SessionStore,
        media: MediaStore,
        *,
        clock: Clock,
        faults: FaultDesk,
        media_ttl_seconds: float,
    ) -> None:
        self._generations = generations
        self._store = store
        self._media = media
        self._clock = clock
        self._faults = faults
        self._media_ttl_seconds = media_ttl_seconds

    async def sweep(self) -> None:
        now = self._clock.now()
        generations = self._generations.forget_old()
        sessions = await self._store.expire(now)
        in_use = await self._store.media_in_use()
        media = await self._media.expire(in_use, now - self._media_ttl_seconds)
        if generations or sessions or media:
            emit(_log, "swept", generations=generations, sessions=sessions, media=media)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sweeps now and then for as long as the context lasts."""
        task = asyncio.create_task(self._run(), name="housekeeping")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self.sweep()
            except Exception as error:
                self._faults.presentable(error, during="housekeeping")
            await asyncio.sleep(_PERIOD_SECONDS)
