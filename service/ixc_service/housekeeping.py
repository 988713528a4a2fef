"""What is no longer needed goes: ended generations, expired sessions, media, old uploads.

And what was left undone is taken up: media that nobody had time to look at.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from ixc_service.generations import Generations
from ixc_service.log_events import emit
from ixc_service.media_library import MediaLibrary
from ixc_service.media_store import MediaStore
from ixc_service.moments import Clock
from ixc_service.operations.queue import Operations
from ixc_service.status import FaultDesk
from ixc_service.store import MediaRecords, SessionStore
from ixc_service.uploads import Uploads

_PERIOD_SECONDS = 30.0
_log = logging.getLogger(__name__)


class Housekeeping:
    def __init__(
        self,
        generations: Generations,
        *,
        store: SessionStore,
        records: MediaRecords,
        media: MediaStore,
        library: MediaLibrary,
        uploads: Uploads,
        operations: Operations,
        clock: Clock,
        faults: FaultDesk,
        media_ttl_seconds: float,
    ) -> None:
        self._generations = generations
        self._store = store
        self._records = records
        self._media = media
        self._library = library
        self._uploads = uploads
        self._operations = operations
        self._clock = clock
        self._faults = faults
        self._media_ttl_seconds = media_ttl_seconds

    async def sweep(self) -> None:
        now = self._clock.now()
        counts = {
            "generations": self._generations.forget_old(),
            "sessions": await self._store.expire(now),
            "media": await self._records.expire(now),
            "uploads": await self._uploads.expire(),
            "operations": await self._operations.expire(),
        }
        # What is in use is read last: files are shared by sessions and objects.
        in_use = await self._store.media_in_use()
        counts["files"] = await self._media.expire(in_use, now - self._media_ttl_seconds)
        if any(counts.values()):
            emit(_log, "swept", **counts)
        await self._library.resume()

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
