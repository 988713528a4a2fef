"""What a media worker may take, and how long others wait for it: for pictures, and for clips."""

from dataclasses import dataclass
from typing import Literal

from ixc_runtime.media.jobs import Job, ProbeImage, ProbeVideo, WorkerLimits


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
