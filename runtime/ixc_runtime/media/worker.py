"""The disposable process that decodes untrusted pictures: `python -m ixc_runtime.media.worker`.

It gets jobs on standard input and answers on standard output, one at a time. It knows nothing of
requests and holds no secret: its environment is empty, and it is killed without ado. What a
hostile picture can reach is bounded three times: the format is chosen by its first bytes from a
short list, the header's size is checked before any pixel is decoded, and the process has limits
on memory, processor time, files and children that it cannot raise again.
"""

import os
import resource
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

# BMP, GIF, JPEG and PNG are loaded by Image.open itself, WebP only with every other plugin.
from PIL import Image, WebPImagePlugin

from ixc_runtime.media.jobs import (
    HEADER_BYTES,
    ImageProbed,
    ImageRendered,
    Job,
    JobFailed,
    Outcome,
    ProbeImage,
    Ready,
    RenderImage,
    WorkerLimits,
    body_length,
    job_decoder,
    limits_decoder,
    to_frame,
)
from ixc_runtime.media.transform import transform_image

SNIFFED_BYTES = 12
_MAX_OPEN_FILES = 16


class _RefusedError(Exception):
    """Carries the outcome out of nested calls."""

    def __init__(self, outcome: JobFailed) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome


def sniff_format(head: bytes) -> str | None:
    """The picture format that the first `SNIFFED_BYTES` announce, if it is one we take."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"BM"):
        return "BMP"
    return None


def run_job(job: Job, limits: WorkerLimits) -> Outcome:
    """Do one job. Whatever a picture makes Pillow raise becomes a `JobFailed` of our own words."""
    try:
        match job:
            case ProbeImage():
                return _probe(job, limits)
            case RenderImage():
                return _render(job, limits)
    except _RefusedError as refused:
        return refused.outcome
    except MemoryError:
        return JobFailed(
            kind="exhausted",
            message=f"the picture needs more than {limits.memory_bytes} bytes to decode",
        )


def _probe(job: ProbeImage, limits: WorkerLimits) -> ImageProbed:
    with _opened(job.path, limits) as (image, image_format):
        return ImageProbed(width=image.width, height=image.height, format=image_format)


def _render(job: RenderImage, limits: WorkerLimits) -> ImageRendered:
    with _opened(job.path, limits) as (image, _):
        with _refusing("the picture's data is broken or cut off"):
            image.load()
        canvas = transform_image(image, hd_num=job.hd_num, tile_size=job.tile_size)
    with Path(job.output).open("r+b") as output:
        output.write(canvas.tobytes())
    return ImageRendered(width=canvas.width, height=canvas.height)


@contextmanager
def _opened(path: str, limits: WorkerLimits) -> Iterator[tuple[Image.Image, str]]:
    """The picture with its header read and checked, and no pixel decoded."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(Path(path).open("rb"))
        except OSError:
            message = "the picture's file cannot be opened"
            raise _RefusedError(JobFailed(kind="unreadable", message=message)) from None
        head = file.read(SNIFFED_BYTES)
        if not head:
            raise _RefusedError(JobFailed(kind="undecodable", message="the picture has no bytes"))
        image_format = sniff_format(head)
        if image_format is None:
            message = "the data is not a PNG, JPEG, WEBP, GIF or BMP picture"
            raise _RefusedError(JobFailed(kind="unsupported", message=message))
        file.seek(0)
        too_large = f"the picture has more than {limits.max_pixels} pixels"
        with _refusing("the picture's header is broken", too_large):
            image = stack.enter_context(Image.open(file, formats=(image_format,)))
        if image.width * image.height > limits.max_pixels:
            raise _RefusedError(JobFailed(kind="undecodable", message=too_large))
        yield image, image_format


@contextmanager
def _refusing(broken: str, too_large: str | None = None) -> Iterator[None]:
    """Pillow raises nearly anything on bad input; memory is the one thing told apart."""
    try:
        yield
    except MemoryError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _RefusedError(JobFailed(kind="undecodable", message=too_large or broken)) from None
    except Exception:
        raise _RefusedError(JobFailed(kind="undecodable", message=broken)) from None


def confine(limits: WorkerLimits) -> None:
    """Give up, for good, what decoding does not need."""
    for what, value in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (bound, bound))
    Image.MAX_IMAGE_PIXELS = limits.max_pixels
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _allow_processor_seconds(seconds: float) -> None:
    """Move the processor-time limit ahead by one job's worth; past it the kernel kills us."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(usage.ru_utime + usage.ru_stime + seconds) + 2
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _read_frame(stream: BinaryIO) -> bytes | None:
    """One frame's body; None when the front end has gone."""
    header = stream.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return None
    length = body_length(header)
    body = stream.read(length)
    return body if len(body) == length else None


def main() -> None:
    jobs = os.fdopen(os.dup(0), "rb")
    outcomes = os.fdopen(os.dup(1), "wb")
    # A decoder that prints must not write into the frames.
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)

    frame = _read_frame(jobs)
    if frame is None:
        return
    limits = limits_decoder.decode(frame)
    assert WebPImagePlugin.SUPPORTED, "this Pillow was built without WebP"
    Image.preinit()
    confine(limits)

    outcome: Outcome = Ready()
    while True:
        outcomes.write(to_frame(outcome))
        outcomes.flush()
        frame = _read_frame(jobs)
        if frame is None:
            return
        _allow_processor_seconds(limits.job_seconds)
        outcome = run_job(job_decoder.decode(frame), limits)


if __name__ == "__main__":
    main()
