"""What a media worker does with a clip: check it, count it, and draw its frames into a strip.

Cheap questions come first: the first bytes, the container's own word on codecs and sizes, the
number and length of what decord has indexed, one decoded frame. Only then are frames decoded for
the strip. Every refusal is in our own words; decord's are never passed on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ixc_runtime.media.clip import ClipReader
from ixc_runtime.media.container import (
    SUPPORTED_CODECS,
    BrokenContainerError,
    VideoTrack,
    read_video_tracks,
)
from ixc_runtime.media.formats import SNIFFED_BYTES, sniff_video_format
from ixc_runtime.media.jobs import (
    ImageRendered,
    JobFailed,
    ProbeVideo,
    RefusedError,
    RenderVideo,
    VideoProbed,
    WorkerLimits,
)
from ixc_runtime.media.strip import draw_strip, transform_strip
from ixc_runtime.media.video import MAX_ASPECT_RATIO, plan_strip


def probe_clip(job: ProbeVideo, limits: WorkerLimits) -> VideoProbed:
    path = Path(job.path)
    video_format = _format(path)
    track = _checked_tracks(path, video_format, limits)[0]
    with _refusing("the clip's index is broken or cut off, or lists no frames"):
        reader = ClipReader(path)
        num_frames, fps = reader.num_frames, reader.fps()
    _check_length(num_frames, fps, limits)
    with _refusing("the clip's first frame is broken"):
        width, height = next(reader.frames([0])).size
    _check_size(width, height, limits)
    return VideoProbed(
        width=width,
        height=height,
        num_frames=num_frames,
        fps=fps,
        format=video_format,
        codec=track.codec,
    )


def render_clip(job: RenderVideo, limits: WorkerLimits) -> ImageRendered:
    path = Path(job.path)
    _checked_tracks(path, _format(path), limits)
    plan = plan_strip(job.width, job.height, num_frames=len(job.frames), tile_size=job.tile_size)
    with _refusing("the clip's data is broken or cut off"):
        strip = draw_strip(ClipReader(path).frames(job.frames), plan)
    canvas = transform_strip(strip, plan)
    with Path(job.output).open("r+b") as output:
        output.write(canvas.tobytes())
    return ImageRendered(width=canvas.width, height=canvas.height)


def _format(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(SNIFFED_BYTES)
    except OSError:
        message = "the clip's file cannot be opened"
        raise RefusedError(JobFailed(kind="unreadable", message=message)) from None
    if not head:
        raise _undecodable("the clip has no bytes")
    video_format = sniff_video_format(head)
    if video_format is None:
        message = "the data is not an MP4, MOV or WEBM clip"
        raise RefusedError(JobFailed(kind="unsupported", message=message))
    return video_format


def _checked_tracks(path: Path, video_format: str, limits: WorkerLimits) -> tuple[VideoTrack, ...]:
    """Every video track is checked, since it is the decoder that chooses among several."""
    try:
        tracks = read_video_tracks(path, video_format)
    except BrokenContainerError as broken:
        raise _undecodable(str(broken)) from None
    for track in tracks:
        if not track.is_supported:
            known = ", ".join(SUPPORTED_CODECS)
            message = f"the clip's codec {track.codec} is not supported; {known} are"
            raise RefusedError(JobFailed(kind="unsupported", message=message, codec=track.codec))
        _check_pixels(track.width, track.height, limits)
    return tracks


def _check_length(num_frames: int, fps: float, limits: WorkerLimits) -> None:
    if num_frames > limits.max_frames:
        raise _undecodable(f"the clip has {num_frames} frames; {limits.max_frames} are taken")
    if not fps > 0:
        raise _undecodable("the clip does not say how long its frames are shown")
    if round(fps) > limits.max_fps:
        raise _undecodable(f"the clip has {fps:.0f} frames a second; {limits.max_fps} are taken")
    if num_frames / fps > limits.max_seconds:
        raise _undecodable(
            f"the clip lasts {num_frames / fps:.0f} s; {limits.max_seconds:g} s are taken"
        )


def _check_size(width: int, height: int, limits: WorkerLimits) -> None:
    _check_pixels(width, height, limits)
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise _undecodable(
            f"the clip is {width}x{height}; a side may be {MAX_ASPECT_RATIO} times the other"
        )


def _check_pixels(width: int, height: int, limits: WorkerLimits) -> None:
    if width * height > limits.max_pixels:
        raise _undecodable(
            f"the clip is {width}x{height}; frames of {limits.max_pixels} pixels are taken"
        )


@contextmanager
def _refusing(broken: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception:
        raise _undecodable(broken) from None


def _undecodable(message: str) -> RefusedError:
    return RefusedError(JobFailed(kind="undecodable", message=message))
