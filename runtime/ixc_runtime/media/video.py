"""Which frames of a clip are shown to the model, and what they cost: arithmetic on its header.

Nothing here decodes or allocates, so a clip is priced before a frame of it is decoded.

    frames ── sample_frames ──► up to 32 of them, one for each second
           ── plan_strip ─────► one picture, frame beside frame, each with its label
                                landscape frames stacked, others side by side
           ── its tiles ──────► short side one tile, long side as many as it takes

The strip and its transform are the reference's to the pixel at its own tile of 560; lengths that
it gives in pixels (labels, gaps, rules) are scaled with the tile where a model has another one.
From the reference's choice of frames ours departs where that one loses something:

* Of a clip with more seconds than frames wanted, it takes seconds k * n / 33 and so never sees
  the last 6 %. Ours are spread from the first second to the last.
* Its stride is 0, and it fails, below half a frame a second. Ours is at least 1.
* Shorter clips, up to 32 seconds, give the same frames.

The strip is transformed once. (LMDeploy puts it through the picture transform a second time,
which shrinks strips of more than 24 tiles; the model's own code does not.) So no `hd_num` applies
to a clip: fewer frames are what makes it cheaper.
"""

import math
from dataclasses import dataclass

from ixc_runtime.errors import FieldInvalid
from ixc_runtime.media.geometry import TilePlan

# Part of every strip's cache key: raised when the same frames would give other pixels.
STRIP_VERSION = 1

DEFAULT_MAX_FRAMES = 32
DEFAULT_FRAMES_PER_SECOND = 1.0
# What a worker's memory holds while the strip is drawn. 64 square frames take 63 tiles.
MAX_FRAMES = 64
# Thinner frames would cost many tiles of next to nothing, and are what attacks look like.
MAX_ASPECT_RATIO = 20

_OFFICIAL_TILE = 560
_LABEL_HEIGHT = 40  # and the label's font size
_GAP = 10  # after each frame, with the rule in its middle
_RULE_WIDTH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What a clip says of itself. `width` and `height` are those of its decoded frames.

    `format` is MP4, MOV or WEBM; `codec` one of H.264, H.265, VP8, VP9, MPEG-4.
    """

    width: int
    height: int
    num_frames: int
    fps: float
    format: str
    codec: str

    @property
    def duration_seconds(self) -> float:
        return self.num_frames / self.fps


@dataclass(frozen=True, slots=True, kw_only=True)
class StripPlan:
    """The strip of `num_frames` frames, each resampled to frame_width × frame_height.

    `is_stacked`: one below the other, a label above each; otherwise side by side under one line
    of labels. `tiles` is what the strip of width × height is resampled to and padded with.
    """

    num_frames: int
    frame_width: int
    frame_height: int
    is_stacked: bool
    label_height: int
    gap: int
    rule_width: int
    width: int
    height: int
    tiles: TilePlan


def sample_frames(
    info: VideoInfo,
    *,
    max_frames: int | None = None,
    fps: float | None = None,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
) -> tuple[int, ...]:
    """Indices of the frames to show, ascending, at least one and at most `max_frames`.

    Every stride-th frame of [start, end), where the stride is the clip's rate over the wished
    one (a frame a second), rounded as the reference does. If those are too many, some of them,
    evenly spread, first and last included; of one alone, the middle one. Raises FieldInvalid.
    """
    most = DEFAULT_MAX_FRAMES if max_frames is None else max_frames
    wish = DEFAULT_FRAMES_PER_SECOND if fps is None else fps
    if not 1 <= most <= MAX_FRAMES:
        raise FieldInvalid(
            "max_frames", f"max_frames is {most}; 1 to {MAX_FRAMES} are taken", value=most
        )
    if not 0 < wish < math.inf:
        raise FieldInvalid("fps", f"fps is {wish:g}; a positive number is needed", value=wish)
    first, stop = _frame_range(info, start_seconds, end_seconds)
    stride = max(1, round(min(info.fps / wish, info.num_frames)))
    positions = range(first, stop, stride)
    if len(positions) <= most:
        return tuple(positions)
    if most == 1:
        return (positions[len(positions) // 2],)
    return tuple(positions[k * (len(positions) - 1) // (most - 1)] for k in range(most))


def plan_strip(width: int, height: int, *, num_frames: int, tile_size: int) -> StripPlan:
    """The strip of frames of width × height pixels, and its tiles."""
    if width < 1 or height < 1 or num_frames < 1 or tile_size < 1:
        raise ValueError(f"no strip of {num_frames} frames of {width}x{height}, tile {tile_size}")
    label_height = _scaled(_LABEL_HEIGHT, tile_size)
    gap = _scaled(_GAP, tile_size)
    longer = 2 * tile_size
    # Floating point in the reference's order. It takes a square frame for a portrait.
    ratio = width / height
    is_stacked = width > height
    if is_stacked:
        frame_width, frame_height = longer, max(1, int(longer / ratio))
        strip_width = frame_width
        strip_height = num_frames * (frame_height + gap + label_height)
    else:
        frame_width, frame_height = max(1, int(longer * ratio)), longer
        strip_width = num_frames * (frame_width + gap)
        strip_height = frame_height + label_height
    return StripPlan(
        num_frames=num_frames,
        frame_width=frame_width,
        frame_height=frame_height,
        is_stacked=is_stacked,
        label_height=label_height,
        gap=gap,
        rule_width=_scaled(_RULE_WIDTH, tile_size),
        width=strip_width,
        height=strip_height,
        tiles=plan_strip_tiles(strip_width, strip_height, tile_size=tile_size),
    )


def plan_strip_tiles(width: int, height: int, *, tile_size: int) -> TilePlan:
    """The short side becomes one tile; the long one keeps the ratio, padded to whole tiles."""
    transposed = width < height
    longer, shorter = (height, width) if transposed else (width, height)
    new_longer = int(tile_size * (longer / shorter))
    along = math.ceil(new_longer / tile_size)
    wide, high = (1, along) if transposed else (along, 1)
    return TilePlan(
        width=tile_size if transposed else new_longer,
        height=new_longer if transposed else tile_size,
        canvas_width=wide * tile_size,
        canvas_height=high * tile_size,
        tiles_wide=wide,
        tiles_high=high,
        transposed=transposed,
    )


def _frame_range(
    info: VideoInfo, start_seconds: float | None, end_seconds: float | None
) -> tuple[int, int]:
    """From the frame that is on show at `start` to the last that begins before `end`."""
    duration = info.duration_seconds
    start = 0.0 if start_seconds is None else start_seconds
    end = math.inf if end_seconds is None else end_seconds
    if not 0 <= start < duration:
        raise FieldInvalid(
            "start",
            f"start is {start:g} s; the clip lasts {duration:g} s",
            value=start,
            durationSeconds=f"{duration:.3f}",
        )
    if not end > start:
        raise FieldInvalid("end", f"end is {end:g} s, not after start, {start:g} s", value=end)
    # A thousandth of a frame either way is what numbers like 29.97 lose in arithmetic.
    first = min(int(start * info.fps + 1e-3), info.num_frames - 1)
    stop = info.num_frames if end >= duration else math.ceil(end * info.fps - 1e-3)
    return first, min(max(stop, first + 1), info.num_frames)


def _scaled(length: int, tile_size: int) -> int:
    return max(1, round(length * tile_size / _OFFICIAL_TILE))
