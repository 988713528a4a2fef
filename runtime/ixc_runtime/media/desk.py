"""Pictures on the front end's side: their sizes for the price, their pixels for the engine.

Knows the media workers and where pixels lie between two processes; never decodes anything itself.
"""

import asyncio
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from ixc_runtime.engine_process.messages import Pixels, PixelsFailed
from ixc_runtime.errors import EngineFault, RuntimeFault
from ixc_runtime.media.geometry import ImageInfo
from ixc_runtime.media.pool import MediaWorkers
from ixc_runtime.prompt.layout import ImageSpan
from ixc_runtime.request import Conversation, ImagePart, ImageSource

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - memory shared by processes is what we want
_SIZES_KEPT = 4096


class MediaDesk:
    """Made by `open`. Pixels lie in a folder of its own, in memory where the system has such."""

    def __init__(self, workers: MediaWorkers, pixels_folder: Path) -> None:
        self._workers = workers
        self._pixels_folder = pixels_folder
        self._sizes: OrderedDict[str, ImageInfo] = OrderedDict()
        self._renderings: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, *, num_workers: int) -> "MediaDesk":
        workers = MediaWorkers(num_workers=num_workers)
        await workers.start()
        parent = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None
        return cls(workers, Path(tempfile.mkdtemp(prefix="ixc-pixels-", dir=parent)))

    async def close(self) -> None:
        for task in self._renderings:
            task.cancel()
        await asyncio.gather(*self._renderings, return_exceptions=True)
        await self._workers.close()
        shutil.rmtree(self._pixels_folder, ignore_errors=True)

    async def measure(self, conversation: Conversation) -> dict[str, ImageInfo]:
        """The size of every image in a conversation, by digest.

        Raises MediaUndecodable or MediaTypeUnsupported for what is not a picture we take.
        """
        sources = {
            part.source.digest: part.source
            for message in conversation.messages
            for part in message.parts
            if isinstance(part, ImagePart)
        }
        return {digest: await self._size(source) for digest, source in sources.items()}

    async def _size(self, source: ImageSource) -> ImageInfo:
        known = self._sizes.get(source.digest)
        if known is None:
            known = self._sizes[source.digest] = await self._workers.probe(source.path)
            if len(self._sizes) > _SIZES_KEPT:
                self._sizes.popitem(last=False)
        return known

    def render(
        self, span: ImageSpan, tile_size: int, *, answer: Callable[[Pixels | PixelsFailed], None]
    ) -> None:
        """Start making an image's pixels; `answer` gets them, or why they cannot be had."""
        task = asyncio.create_task(self._render(span, tile_size, answer))
        self._renderings.add(task)
        task.add_done_callback(self._renderings.discard)

    async def _render(
        self, span: ImageSpan, tile_size: int, answer: Callable[[Pixels | PixelsFailed], None]
    ) -> None:
        try:
            image = await self._workers.render(
                span.source.path,
                hd_num=span.hd_num,
                tile_size=tile_size,
                output_dir=self._pixels_folder,
            )
        except (RuntimeFault, OSError) as error:
            fault = error if isinstance(error, RuntimeFault) else EngineFault("no room for pixels")
            answer(PixelsFailed(key=span.key, reason=fault.reason, message=fault.message))
        else:
            answer(
                Pixels(key=span.key, path=str(image.path), width=image.width, height=image.height)
            )
