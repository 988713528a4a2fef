"""The disposable process that decodes untrusted bytes: `python -m ixc_runtime.media.worker`.

It gets jobs on standard input and answers on standard output, one at a time. It knows nothing of
requests and holds no secret: its environment is empty, and it is killed without ado. What a
hostile picture or clip can reach is bounded three times: the format is chosen by its first bytes
from a short list, the header's size is checked before any pixel is decoded, and the process has
limits on memory, processor time, files, children and sockets that it cannot raise again.

Pictures are Pillow's and done here. Clips are decord's and done by `clip_jobs`, in processes
that do nothing else: those that decode pictures never load it.
"""

import os
import resource
import signal
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

# BMP, GIF, JPEG and PNG are loaded by Image.open itself, WebP only with every other plugin.
from PIL import Image, WebPImagePlugin

from ixc_runtime.media.formats import SNIFFED_BYTES, sniff_image_format
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
    RefusedError,
    RenderImage,
    RenderVideo,
    WorkerLimits,
    body_length,
    job_decoder,
    limits_decoder,
    to_frame,
)
from ixc_runtime.media.seccomp import refuse_system_calls
from ixc_runtime.media.transform import transform_image

_MAX_OPEN_FILES = 16


def run_job(job: Job, limits: WorkerLimits) -> Outcome:
    """Do one job. Whatever bytes make a decoder raise becomes a `JobFailed` of our own words."""
    try:
        match job:
            case ProbeImage():
                return _probe(job, limits)
            case RenderImage():
                return _render(job, limits)
            case ProbeVideo() | RenderVideo():
                return _run_clip_job(job, limits)
    except RefusedError as refused:
        return refused.outcome
    except MemoryError:
        what = "picture" if isinstance(job, ProbeImage | RenderImage) else "clip"
        return JobFailed(
            kind="exhausted",
            message=f"the {what} needs more than {limits.memory_bytes} bytes to decode",
        )


def _run_clip_job(job: ProbeVideo | RenderVideo, limits: WorkerLimits) -> Outcome:
    # Loads decord, NumPy and FFmpeg: 150 MB of address space that pictures are better off with.
    from ixc_runtime.media.clip_jobs import probe_clip, render_clip

    return probe_clip(job, limits) if isinstance(job, ProbeVideo) else render_clip(job, limits)


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
            raise RefusedError(JobFailed(kind="unreadable", message=message)) from None
        head = file.read(SNIFFED_BYTES)
        if not head:
            raise RefusedError(JobFailed(kind="undecodable", message="the picture has no bytes"))
        image_format = sniff_image_format(head)
        if image_format is None:
            message = "the data is not a PNG, JPEG, WEBP, GIF or BMP picture"
            raise RefusedError(JobFailed(kind="unsupported", message=message))
        file.seek(0)
        too_large = f"the picture has more than {limits.max_pixels} pixels"
        with _refusing("the picture's header is broken", too_large):
            image = stack.enter_context(Image.open(file, formats=(image_format,)))
        if image.width * image.height > limits.max_pixels:
            raise RefusedError(JobFailed(kind="undecodable", message=too_large))
        yield image, image_format


@contextmanager
def _refusing(broken: str, too_large: str | None = None) -> Iterator[None]:
    """Pillow raises nearly anything on bad input; memory is the one thing told apart."""
    try:
        yield
    except MemoryError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RefusedError(JobFailed(kind="undecodable", message=too_large or broken)) from None
    except Exception:
        raise RefusedError(JobFailed(kind="undecodable", message=broken)) from None


def confine(limits: WorkerLimits) -> None:
    """Give up, for good, what decoding does not need.

    No processes: by a limit, which forbids threads too; and by the filter, which does not. decord
    needs a thread, so clips are decoded under the filter or not at all.
    """
    bounds = {
        resource.RLIMIT_AS: limits.memory_bytes,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NOFILE: _MAX_OPEN_FILES,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
    }
    if limits.kind == "clips":
        del bounds[resource.RLIMIT_NPROC]
    for what, value in bounds.items():
        _, hard = resource.getrlimit(what)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (bound, bound))
    is_filtered = refuse_system_calls()
    if limits.kind == "clips" and not is_filtered:
        raise OSError("this system has no seccomp filters for the decoder of clips to run under")
    Image.MAX_IMAGE_PIXELS = limits.max_pixels
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _load_decoders(limits: WorkerLimits) -> None:
    """While files may still be found freely, and before the first job's clock runs."""
    if limits.kind == "clips":
        import ixc_runtime.media.clip_jobs  # noqa: F401 - for the run-time, not for the name

        return
    assert WebPImagePlugin.SUPPORTED, "this Pillow was built without WebP"
    Image.preinit()


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
    # A supervisor may tell every process of a service to stop; the front end decides when we do.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
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
    _load_decoders(limits)
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
