"""Pictures and clips in the front end: their sizes for the price, their pixels for the engine.

Knows the media workers and where pixels lie between two processes; never decodes anything itself.
Workers for clips are started when the first clip comes.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ixc_runtime.engine_process.messages import Pixels, PixelsFailed
from ixc_runtime.errors import (
    EngineFault,
    MediaTypeUnsupported,
    MediaUndecodable,
    RuntimeFault,
    ServerDraining,
)
from ixc_runtime.media.geometry import ImageInfo
from ixc_runtime.media.pixels_folder import PixelsFolder
from ixc_runtime.media.pool import MediaWorkers, RenderedImage
from ixc_runtime.media.video import VideoInfo
from ixc_runtime.media.worker_settings import CLIP_SETTINGS, MediaSettings
from ixc_runtime.prompt.layout import ImageSpan
from ixc_runtime.request import Conversation, ImagePart, ImageSource, VideoPart, VideoSource

_SIZES_KEPT = 4096
_HANDED_OVER_KEPT = 64
_TRIAL_TILE = 32  # a picture decoded only to see whether it can be is not kept large


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    """What pictures and clips may be at most; larger ones are not decoded."""

    max_image_pixels: int = MediaSettings().max_pixels
    max_video_pixels: int = CLIP_SETTINGS.max_pixels  # of one frame
    max_video_seconds: float = CLIP_SETTINGS.max_seconds


class MediaDesk:
    """Made by `open`. Pixels lie in a folder of its own, in memory where the system has such."""

    def __init__(
        self,
        workers: MediaWorkers,
        num_clip_workers: int,
        clip_settings: MediaSettings,
        folder: PixelsFolder,
    ) -> None:
        self._workers = workers
        self._num_clip_workers = num_clip_workers
        self._clip_settings = clip_settings
        self._clip_workers: asyncio.Task[MediaWorkers] | None = None
        self._folder = folder
        self._handed_over: set[Path] = set()  # to the engine, which removes what it has read
        self._known: OrderedDict[ImageSource | VideoSource, ImageInfo | VideoInfo] = OrderedDict()
        self._renderings: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, *, num_workers: int, limits: MediaLimits | None = None) -> "MediaDesk":
        """`num_workers` processes for pictures, and later as many for clips."""
        limits = limits or MediaLimits()
        workers = MediaWorkers(
            num_workers=num_workers, settings=MediaSettings(max_pixels=limits.max_image_pixels)
        )
        await workers.start()
        clip_settings = replace(
            CLIP_SETTINGS,
            max_pixels=limits.max_video_pixels,
            max_seconds=limits.max_video_seconds,
        )
        return cls(workers, num_workers, clip_settings, PixelsFolder.create())

    async def close(self) -> None:
        for task in self._renderings:
            task.cancel()
        await asyncio.gather(*self._renderings, return_exceptions=True)
        await self._workers.close()
        if (started := self._clip_workers) is not None:
            started.cancel()
            await asyncio.wait({started})
            if not started.cancelled() and not _has_failed(started):
                await started.result().close()
        self._folder.remove()

    def engine_lost(self) -> None:
        """Nobody will read what was handed over, and nobody wants what is being made for it."""
        for task in self._renderings:
            task.cancel()
        for path in self._handed_over:
            path.unlink(missing_ok=True)
        self._handed_over.clear()

    async def measure(self, conversation: Conversation) -> dict[str, ImageInfo | VideoInfo]:
        """What every picture and clip in a conversation says of itself, by digest.

        Raises MediaUndecodable or MediaTypeUnsupported for what is not one that we take.
        """
        sources = dict.fromkeys(
            part.source
            for message in conversation.messages
            for part in message.parts
            if isinstance(part, ImagePart | VideoPart)
        )
        return {source.digest: await self.inspect(source) for source in sources}

    async def inspect(self, source: ImageSource | VideoSource) -> ImageInfo | VideoInfo:
        """The header of one; asked of a worker once and then remembered."""
        known = self._known.get(source)
        if known is None:
            with _naming(source):
                if isinstance(source, VideoSource):
                    workers = await self._workers_for_clips()
                    known = await workers.probe_video(source.path)
                else:
                    known = await self._workers.probe(source.path)
            self._known[source] = known
            if len(self._known) > _SIZES_KEPT:
                self._known.popitem(last=False)
        return known

    async def examine(self, source: ImageSource | VideoSource) -> ImageInfo | VideoInfo:
        """As `inspect`; a picture is decoded too, which finds what is broken beyond its header."""
        info = await self.inspect(source)
        if isinstance(source, ImageSource):
            with _naming(source):
                trial = await self._workers.render(
                    source.path, hd_num=1, tile_size=_TRIAL_TILE, output_dir=self._folder.path
                )
            trial.path.unlink()
        return info

    async def _workers_for_clips(self) -> MediaWorkers:
        """Started by whoever comes first; others wait for the same start."""
        start = self._clip_workers
        if start is None or _has_failed(start):
            start = asyncio.create_task(self._start_clip_workers(), name="clip workers")
            self._clip_workers = start
        try:
            return await asyncio.shield(start)
        except asyncio.CancelledError:
            if start.cancelled():
                raise ServerDraining("the media workers are being stopped") from None
            raise

    async def _start_clip_workers(self) -> MediaWorkers:
        workers = MediaWorkers(num_workers=self._num_clip_workers, settings=self._clip_settings)
        await workers.start()
        return workers

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
            with _naming(span.source):
                image = await self._pixels(span, tile_size)
        except (RuntimeFault, OSError) as error:
            fault = error if isinstance(error, RuntimeFault) else EngineFault("no room for pixels")
            answer(
                PixelsFailed(
                    key=span.key,
                    reason=fault.reason,
                    message=fault.message,
                    metadata=dict(fault.metadata),
                )
            )
        else:
            if len(self._handed_over) >= _HANDED_OVER_KEPT:
                self._handed_over = {path for path in self._handed_over if path.exists()}
            self._handed_over.add(image.path)
            answer(
                Pixels(key=span.key, path=str(image.path), width=image.width, height=image.height)
            )

    async def _pixels(self, span: ImageSpan, tile_size: int) -> RenderedImage:
        if isinstance(span.source, VideoSource):
            workers = await self._workers_for_clips()
            return await workers.render_video(
                span.source.path,
                frames=span.frames,
                width=span.width,
                height=span.height,
                tile_size=tile_size,
                output_dir=self._folder.path,
            )
        assert span.hd_num is not None, "a picture's span has one"
        return await self._workers.render(
            span.source.path,
            hd_num=span.hd_num,
            tile_size=tile_size,
            output_dir=self._folder.path,
        )


def _has_failed(task: asyncio.Task[MediaWorkers]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


@contextlib.contextmanager
def _naming(source: ImageSource | VideoSource) -> Iterator[None]:
    """What is wrong with the bytes says whose bytes they are."""
    try:
        yield
    except (MediaUndecodable, MediaTypeUnsupported) as fault:
        fault.metadata = {**fault.metadata, "media": source.digest}
        raise
