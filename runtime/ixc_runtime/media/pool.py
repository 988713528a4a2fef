"""The front end's side of the media workers: a few processes, each given one job at a time.

A worker that dies, hangs, talks nonsense or runs out of memory is killed and replaced, and only
its own job fails. A caller that gives up while its job runs has the worker killed as well: the
memory is free at once, and a fresh process is cheaper than reasoning about a half-done one.

Knows files, processes and time; never decodes anything itself.
"""

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ixc_runtime.errors import (
    EngineFault,
    MediaTypeUnsupported,
    MediaUndecodable,
    QueueFull,
    RuntimeFault,
    ServerDraining,
)
from ixc_runtime.media.geometry import ImageInfo
from ixc_runtime.media.jobs import (
    ImageProbed,
    ImageRendered,
    Job,
    JobFailed,
    Outcome,
    ProbeImage,
    ProbeVideo,
    Ready,
    RenderImage,
    RenderVideo,
    VideoProbed,
)
from ixc_runtime.media.video import VideoInfo
from ixc_runtime.media.worker_process import WorkerLostError, WorkerProcess
from ixc_runtime.media.worker_settings import MediaSettings

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedImage:
    """Raw RGB rows, uint8, in a file that whoever reads it removes."""

    path: Path
    width: int
    height: int


class MediaWorkers:
    """Probes and renders pictures, or clips, in disposable processes.

    Bounded in number, queue and time. `settings.kind` says which of the two, so that a clip's
    half minute is never waited for by a picture.
    """

    def __init__(self, *, num_workers: int = 2, settings: MediaSettings | None = None) -> None:
        self._num_workers = num_workers
        self._settings = settings or MediaSettings()
        self._idle: asyncio.Queue[WorkerProcess | None] = asyncio.Queue()
        self._workers: set[WorkerProcess] = set()
        self._replacements: set[asyncio.Task[None]] = set()
        self._num_waiting = 0
        self._closing = asyncio.Event()

    @property
    def num_ready(self) -> int:
        """Workers that are up, busy ones included: fewer than asked for while some restart."""
        return sum(worker.is_running for worker in self._workers)

    @property
    def process_ids(self) -> tuple[int, ...]:
        return tuple(worker.process_id for worker in self._workers if worker.is_running)

    @property
    def num_waiting(self) -> int:
        return self._num_waiting

    async def start(self) -> None:
        """Spawn every worker and wait until they answer."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._num_workers):
                    group.create_task(self._add_worker())
        except ExceptionGroup as failures:
            await self.close()
            raise EngineFault("the media workers do not start") from failures
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End every worker; jobs under way and waiting fail as draining. Safe to repeat."""
        self._closing.set()
        for _ in range(self._num_waiting):
            self._idle.put_nowait(None)
        await asyncio.gather(*(worker.gone() for worker in self._workers))
        while self._replacements:
            await asyncio.wait(self._replacements)
        # A restart that was half way has added one more.
        await asyncio.gather(*(worker.gone() for worker in self._workers))
        self._workers.clear()

    async def probe(self, path: Path) -> ImageInfo:
        """Size and format from the header; nothing is decoded."""
        outcome = await self._run(ProbeImage(path=str(path)))
        if not isinstance(outcome, ImageProbed):
            raise _unexpected(outcome)
        return ImageInfo(width=outcome.width, height=outcome.height, format=outcome.format)

    async def render(
        self, path: Path, *, hd_num: int, tile_size: int, output_dir: Path
    ) -> RenderedImage:
        """Decode and transform into a new file in `output_dir`. On failure no file is left."""
        return await self._render(
            output_dir,
            lambda output: RenderImage(
                path=str(path), hd_num=hd_num, tile_size=tile_size, output=output
            ),
        )

    async def probe_video(self, path: Path) -> VideoInfo:
        """A clip's numbers; its first frame is decoded for them."""
        outcome = await self._run(ProbeVideo(path=str(path)))
        if not isinstance(outcome, VideoProbed):
            raise _unexpected(outcome)
        return VideoInfo(
            width=outcome.width,
            height=outcome.height,
            num_frames=outcome.num_frames,
            fps=outcome.fps,
            format=outcome.format,
            codec=outcome.codec,
        )

    async def render_video(
        self,
        path: Path,
        *,
        frames: tuple[int, ...],
        width: int,
        height: int,
        tile_size: int,
        output_dir: Path,
    ) -> RenderedImage:
        """Draw these frames of a clip, probed as width × height, into one transformed strip."""
        return await self._render(
            output_dir,
            lambda output: RenderVideo(
                path=str(path),
                frames=frames,
                width=width,
                height=height,
                tile_size=tile_size,
                output=output,
            ),
        )

    async def _render(
        self, output_dir: Path, job_into: Callable[[str], RenderImage | RenderVideo]
    ) -> RenderedImage:
        # Created here and only opened there: a worker that is killed late cannot bring it back.
        output = _create_private_file(output_dir)
        try:
            job = job_into(str(output))
            outcome = await self._run(job)
            if not isinstance(outcome, ImageRendered):
                raise _unexpected(outcome)
            if _size_of(output) != outcome.width * outcome.height * 3:
                raise MediaUndecodable(f"the {_noun(job)} could not be rendered")
        except BaseException:
            _remove(output)
            raise
        return RenderedImage(path=output, width=outcome.width, height=outcome.height)

    async def _run(self, job: Job) -> Outcome:
        worker = await self._acquire()
        seconds = self._settings.seconds_for(job)
        try:
            async with asyncio.timeout(seconds):
                outcome = await worker.ask(job)
        except TimeoutError:
            self._replace(worker)
            raise MediaUndecodable(
                f"the {_noun(job)} took longer than {seconds:g} s to decode", limitSeconds=seconds
            ) from None
        except WorkerLostError:
            self._replace(worker)
            if self._closing.is_set():
                raise ServerDraining("the media workers are being stopped") from None
            raise MediaUndecodable(f"the {_noun(job)} made its decoder fail") from None
        except BaseException:
            self._replace(worker)
            raise
        worker.num_jobs += 1
        exhausted = isinstance(outcome, JobFailed) and outcome.kind == "exhausted"
        if exhausted or worker.num_jobs >= self._settings.jobs_per_worker or self._closing.is_set():
            self._replace(worker)
        else:
            self._idle.put_nowait(worker)
        return outcome

    async def _acquire(self) -> WorkerProcess:
        """An idle worker that is alive, in the order of asking."""
        if self._num_waiting >= self._settings.queue_limit:
            raise QueueFull(
                f"{self._num_waiting} {self._settings.kind} wait to be decoded; "
                f"the limit is {self._settings.queue_limit}",
                depth=self._num_waiting,
            )
        self._num_waiting += 1
        try:
            async with asyncio.timeout(self._settings.queue_seconds):
                while not self._closing.is_set():
                    worker = await self._idle.get()
                    if worker is None:
                        break
                    if worker.is_running:
                        return worker
                    self._replace(worker)
        except TimeoutError:
            raise QueueFull(
                f"no media worker was free within {self._settings.queue_seconds:g} s",
                depth=self._num_waiting,
            ) from None
        finally:
            self._num_waiting -= 1
        raise ServerDraining("the media workers are being stopped")

    async def _add_worker(self) -> None:
        """Spawn one, wait for its greeting, and let it have jobs."""
        worker = await WorkerProcess.spawn()
        self._workers.add(worker)
        try:
            async with asyncio.timeout(self._settings.start_seconds):
                greeting = await worker.ask(self._settings.worker_limits)
            if not isinstance(greeting, Ready):
                raise WorkerLostError
        except BaseException:
            self._workers.discard(worker)
            await worker.gone()
            raise
        self._idle.put_nowait(worker)

    def _replace(self, worker: WorkerProcess) -> None:
        """Kill now; the rest happens beside the caller, who may be cancelled."""
        worker.kill()
        self._workers.discard(worker)
        task = asyncio.create_task(self._restart(worker))
        self._replacements.add(task)
        task.add_done_callback(self._replacements.discard)

    async def _restart(self, worker: WorkerProcess) -> None:
        await worker.gone()
        pause_seconds = 0.1
        while not self._closing.is_set():
            try:
                return await self._add_worker()
            except Exception as error:
                # No memory or no processes left on this machine, or whatever else: without its
                # workers a server is of no use, so keep asking, ever less often.
                _log.warning("a media worker does not start: %s", type(error).__name__)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), pause_seconds)
                pause_seconds = min(pause_seconds * 2, 5.0)
        return None


def _noun(job: Job) -> str:
    return "picture" if isinstance(job, ProbeImage | RenderImage) else "clip"


def _unexpected(outcome: Outcome) -> RuntimeFault:
    match outcome:
        case JobFailed(kind="unsupported", message=message, codec=codec):
            return MediaTypeUnsupported(message, **({"codec": codec} if codec else {}))
        case JobFailed(kind="unreadable", message=message):
            return EngineFault(message)
        case JobFailed(message=message):
            return MediaUndecodable(message)
        case _:
            return EngineFault("a media worker answered another question than it was asked")


def _create_private_file(folder: Path) -> Path:
    path = folder / f"{secrets.token_hex(16)}.rgb"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    return path


def _size_of(path: Path) -> int:
    return path.stat().st_size


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
