"""The front end's side of the media workers: a few processes, each given one job at a time.

A worker that dies, hangs, talks nonsense or runs out of memory is killed and replaced, and only
its own job fails. A caller that gives up while its job runs has the worker killed as well: the
memory is free at once, and a fresh process is cheaper than reasoning about a half-done one.

Knows files, processes and time; never decodes anything itself.
"""

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

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
    HEADER_BYTES,
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
    WorkerLimits,
    body_length,
    outcome_decoder,
    to_frame,
)
from ixc_runtime.media.video import VideoInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaSettings:
    """What a worker may take, and how long others wait for it. As it stands, for pictures.

    `memory_bytes` bounds address space, of which the interpreter takes some 50 MB. A picture
    takes 4 to 9 bytes a pixel, a WEBP 16: of those, the largest 64 megapixels are decoded. A
    worker is replaced after `jobs_per_worker` jobs, so that none sees many users' pictures.
    """

    kind: Literal["pictures", "clips"] = "pictures"
    queue_limit: int = 64  # jobs waiting for a worker
    queue_seconds: float = 30.0
    probe_seconds: float = 5.0  # to look at a header
    job_seconds: float = 5.0  # to decode
    start_seconds: float = 30.0
    max_pixels: int = 100_000_000  # of a picture, or of one frame
    max_frames: int = 500_000  # in a clip
    max_seconds: float = 7200.0  # a clip's length
    max_fps: int = 1000
    memory_bytes: int = 1 << 30
    output_bytes: int = 256 << 20
    jobs_per_worker: int = 512

    @property
    def worker_limits(self) -> WorkerLimits:
        return WorkerLimits(
            kind=self.kind,
            max_pixels=self.max_pixels,
            max_frames=self.max_frames,
            max_seconds=self.max_seconds,
            max_fps=self.max_fps,
            memory_bytes=self.memory_bytes,
            file_bytes=self.output_bytes,
            job_seconds=self.job_seconds,
        )

    def seconds_for(self, job: Job) -> float:
        is_probe = isinstance(job, ProbeImage | ProbeVideo)
        return min(self.probe_seconds, self.job_seconds) if is_probe else self.job_seconds


# decord takes 180 MB of address space before it has seen anything; 64 frames of a clip of the
# largest size take 960 MB, strip included. On one processor of a small machine 32 frames out of an
# hour at 640 x 272 took 1.5 s, and out of eleven minutes at 1280 x 720, 5.4 s. What hangs or has
# no index is found out by `probe_seconds`.
CLIP_SETTINGS = MediaSettings(
    kind="clips",
    queue_limit=16,
    queue_seconds=60.0,
    job_seconds=30.0,
    max_pixels=4096 * 2304,
    memory_bytes=1 << 30,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedImage:
    """Raw RGB rows, uint8, in a file that whoever reads it removes."""

    path: Path
    width: int
    height: int


class _WorkerLostError(Exception):
    """The process ended, or said something that is not an answer."""


class _Worker:
    """One process and its two pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._jobs = process.stdin
        self._outcomes = process.stdout
        self.num_jobs = 0

    @classmethod
    async def spawn(cls) -> "_Worker":
        # The same modules as here, and nothing else of our environment: no secret to leak.
        environment = {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "LC_ALL": "C.UTF-8",
            # decord appends to this one on loading, and loads NumPy, whose algebra would reserve
            # memory for as many threads as there are processors.
            "PATH": "",
            "OPENBLAS_NUM_THREADS": "1",
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-s", "-m", "ixc_runtime.media.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
            cwd="/",
            start_new_session=True,  # an interrupt at the terminal is for the server to handle
        )
        return cls(process)

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    async def ask(self, message: WorkerLimits | Job) -> Outcome:
        try:
            self._jobs.write(to_frame(message))
            await self._jobs.drain()
            header = await self._outcomes.readexactly(HEADER_BYTES)
            body = await self._outcomes.readexactly(body_length(header))
            return outcome_decoder.decode(body)
        except (OSError, asyncio.IncompleteReadError, ValueError, msgspec.MsgspecError) as error:
            raise _WorkerLostError from error

    def kill(self) -> None:
        """At once and safe to repeat; `gone` waits for the end."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def gone(self) -> None:
        self.kill()
        self._jobs.close()
        await self._process.wait()


class MediaWorkers:
    """Probes and renders pictures, or clips, in disposable processes.

    Bounded in number, queue and time. `settings.kind` says which of the two, so that a clip's
    half minute is never waited for by a picture.
    """

    def __init__(self, *, num_workers: int = 2, settings: MediaSettings | None = None) -> None:
        self._num_workers = num_workers
        self._settings = settings or MediaSettings()
        self._idle: asyncio.Queue[_Worker | None] = asyncio.Queue()
        self._workers: set[_Worker] = set()
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
        except _WorkerLostError:
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

    async def _acquire(self) -> _Worker:
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
        worker = await _Worker.spawn()
        self._workers.add(worker)
        try:
            async with asyncio.timeout(self._settings.start_seconds):
                greeting = await worker.ask(self._settings.worker_limits)
            if not isinstance(greeting, Ready):
                raise _WorkerLostError
        except BaseException:
            self._workers.discard(worker)
            await worker.gone()
            raise
        self._idle.put_nowait(worker)

    def _replace(self, worker: _Worker) -> None:
        """Kill now; the rest happens beside the caller, who may be cancelled."""
        worker.kill()
        self._workers.discard(worker)
        task = asyncio.create_task(self._restart(worker))
        self._replacements.add(task)
        task.add_done_callback(self._replacements.discard)

    async def _restart(self, worker: _Worker) -> None:
        await worker.gone()
        pause_seconds = 0.1
        while not self._closing.is_set():
            try:
                return await self._add_worker()
            except (OSError, TimeoutError, _WorkerLostError):
                # No memory or no processes left on this machine: keep asking, ever less often.
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
