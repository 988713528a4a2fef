"""Which frames of a clip are shown, and the strip they make: examples and what always holds."""

import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ixc_runtime.errors import FieldInvalid
from ixc_runtime.media.geometry import num_image_tokens
from ixc_runtime.media.video import (
    MAX_FRAMES,
    VideoInfo,
    plan_strip,
    plan_strip_tiles,
    sample_frames,
)

sides = st.integers(1, 5000)
tile_sizes = st.sampled_from([28, 56, 224, 336, 560])
rates = st.one_of(
    st.sampled_from([0.1, 1.0, 23.976, 24.0, 25.0, 30000 / 1001, 50.0, 60.0, 1000.0]),
    st.floats(0.01, 1000.0),
)


def clip(num_frames: int, fps: float, width: int = 640, height: int = 360) -> VideoInfo:
    return VideoInfo(
        width=width, height=height, num_frames=num_frames, fps=fps, format="MP4", codec="H.264"
    )


clips = st.builds(clip, st.integers(1, 500_000), rates)


# Sampling


def reference_frames(num_frames: int, fps: float) -> list[int]:
    """The reference's `load_video` on a whole clip, where it does not fail."""
    positions = list(range(0, num_frames, round(fps)))
    if len(positions) <= 32:
        return positions
    return [positions[int(k * len(positions) / 33)] for k in range(32)]


@given(num_frames=st.integers(1, 2000), fps=st.floats(0.6, 240.0))
def test_a_clip_of_up_to_32_seconds(num_frames, fps):
    """A frame a second, the very frames that the reference takes."""
    assume(math.ceil(num_frames / round(fps)) <= 32)
    assert reference_frames(num_frames, fps) == list(sample_frames(clip(num_frames, fps)))


def test_a_longer_clip():
    """An hour gives 32 frames, the first second's and the last second's among them."""
    hour = clip(90_000, 25.0)
    ours, theirs = sample_frames(hour), reference_frames(90_000, 25.0)
    assert len(ours) == len(theirs) == 32
    assert (ours[0], ours[-1]) == (0, 89_975)
    assert theirs[-1] == 84_525  # 6 % of the hour are never seen
    gaps = {after - before for before, after in itertools.pairwise(ours)}
    assert gaps <= {116 * 25, 117 * 25}


@pytest.mark.parametrize("fps", [0.01, 0.1, 0.49])
def test_a_rate_that_stops_the_reference(fps):
    """Less than half a frame a second: every frame is shown."""
    assert sample_frames(clip(6, fps)) == (0, 1, 2, 3, 4, 5)


@given(
    info=clips,
    max_frames=st.none() | st.integers(2, MAX_FRAMES),
    fps=st.none() | st.floats(1e-300, 1e300),
    start=st.floats(0, 1),
    end=st.floats(0, 2),
)
def test_any_clip_and_any_wish(info, max_frames, fps, start, end):
    """Ascending, within the range, no more than wanted, and within one stride of the end."""
    start, end = start * info.duration_seconds, end * info.duration_seconds
    wish = {"max_frames": max_frames, "fps": fps, "start_seconds": start, "end_seconds": end}
    try:
        frames = sample_frames(info, **wish)
    except FieldInvalid:
        assert start >= min(info.duration_seconds, end)
        return
    stop = min(info.num_frames, math.ceil(end * info.fps))
    stride = max(1, round(min(info.fps / (fps or 1.0), info.num_frames)))
    assert list(frames) == sorted(set(frames))
    assert 1 <= len(frames) <= (max_frames or 32)
    assert abs(frames[0] - start * info.fps) <= 1.01
    assert frames[-1] < max(stop, frames[0] + 1)
    assert frames[-1] + stride >= stop - 1


@pytest.mark.parametrize(
    ("wish", "frames"),
    [
        ({}, (0, 25, 50, 75, 100, 125, 150, 175, 200, 225)),
        ({"max_frames": 4}, (0, 75, 150, 225)),
        ({"max_frames": 1}, (125,)),
        ({"fps": 0.5}, (0, 50, 100, 150, 200)),
        ({"fps": 0.001}, (0,)),
        ({"start_seconds": 4.0}, (100, 125, 150, 175, 200, 225)),
        ({"start_seconds": 9.999}, (249,)),
        ({"end_seconds": 2.0}, (0, 25)),
        ({"end_seconds": 2.01}, (0, 25, 50)),
        ({"end_seconds": 1e9, "start_seconds": 8.0}, (200, 225)),
        ({"start_seconds": 2.0, "end_seconds": 2.1, "fps": 100.0}, (50, 51, 52)),
        ({"start_seconds": 2.0, "end_seconds": 2.0001}, (50,)),
    ],
)
def test_wishes(wish, frames):
    """Ten seconds at 25 frames a second."""
    assert frames == sample_frames(clip(250, 25.0), **wish)


@pytest.mark.parametrize(
    ("wish", "field", "complaint"),
    [
        ({"max_frames": 0}, "max_frames", "max_frames is 0; 1 to 64"),
        ({"max_frames": 65}, "max_frames", "max_frames is 65; 1 to 64"),
        ({"fps": 0.0}, "fps", "fps is 0"),
        ({"fps": -1.0}, "fps", "fps is -1"),
        ({"fps": math.nan}, "fps", "fps is nan"),
        ({"fps": math.inf}, "fps", "fps is inf"),
        ({"start_seconds": 10.0}, "start", "start is 10 s; the clip lasts 10 s"),
        ({"start_seconds": -0.1}, "start", "start is -0.1 s"),
        ({"start_seconds": math.nan}, "start", "start is nan s"),
        ({"end_seconds": 0.0}, "end", "not after start, 0 s"),
        ({"end_seconds": math.nan}, "end", "end is nan s"),
        ({"start_seconds": 5.0, "end_seconds": 4.0}, "end", "not after start, 5 s"),
    ],
)
def test_wishes_that_cannot_be_met(wish, field, complaint):
    """Refused by the field's name, with the value and the limit."""
    with pytest.raises(FieldInvalid, match=complaint) as caught:
        sample_frames(clip(250, 25.0), **wish)
    assert caught.value.field == field


# The strip


@pytest.mark.parametrize(
    ("size", "num_frames", "tiles", "tokens"),
    [
        ((1920, 1080), 32, (1, 20), 8821),
        ((1080, 1920), 32, (18, 1), 7641),
        ((640, 480), 32, (1, 26), 11341),
        ((500, 500), 32, (32, 1), 13241),
    ],
)
def test_published_examples(size, num_frames, tiles, tokens):
    """Shapes named in the model's description get their tiles and tokens."""
    plan = plan_strip(*size, num_frames=num_frames, tile_size=560).tiles
    assert tiles == (plan.tiles_wide, plan.tiles_high)
    assert tokens == num_image_tokens(plan.tiles_wide, plan.tiles_high, 20)


@given(width=sides, height=sides, num_frames=st.integers(1, MAX_FRAMES), tile_size=tile_sizes)
def test_any_strip(width, height, num_frames, tile_size):
    """All frames fit side by side, and the short side is exactly one tile."""
    plan = plan_strip(width, height, num_frames=num_frames, tile_size=tile_size)
    assert max(plan.frame_width, plan.frame_height) == 2 * tile_size
    assert min(plan.frame_width, plan.frame_height) >= 1
    assert plan.is_stacked == (width > height)
    if plan.is_stacked:
        slot = plan.label_height + plan.frame_height + plan.gap
        assert (plan.width, plan.height) == (plan.frame_width, num_frames * slot)
    else:
        assert plan.width == num_frames * (plan.frame_width + plan.gap)
        assert plan.height == plan.label_height + plan.frame_height
    tiles = plan.tiles
    assert min(tiles.tiles_wide, tiles.tiles_high) == 1
    assert min(tiles.width, tiles.height) == tile_size
    assert tiles.canvas_width - tile_size < tiles.width <= tiles.canvas_width
    assert tiles.canvas_height - tile_size < tiles.height <= tiles.canvas_height


@given(width=sides, height=sides, num_frames=st.integers(1, MAX_FRAMES))
def test_the_most_that_a_clip_can_cost(width, height, num_frames):
    """Within the bound on a frame's shape, a strip is never more than 70 tiles."""
    assume(max(width, height) <= 20 * min(width, height))
    plan = plan_strip(width, height, num_frames=num_frames, tile_size=560).tiles
    assert plan.num_tiles <= 70


@given(width=sides, height=sides, num_frames=st.integers(1, MAX_FRAMES))
def test_another_tile_size(width, height, num_frames):
    """With a tile of 224 a strip has the tiles it has with the official 560, give or take one."""
    assume(max(width, height) <= 20 * min(width, height))
    official = plan_strip(width, height, num_frames=num_frames, tile_size=560)
    ours = plan_strip(width, height, num_frames=num_frames, tile_size=224)
    assert (ours.label_height, ours.gap, ours.rule_width) == (16, 4, 1)
    assert ours.is_stacked == official.is_stacked
    assert abs(ours.tiles.num_tiles - official.tiles.num_tiles) <= 1


@pytest.mark.parametrize(("width", "height", "num_frames"), [(0, 5, 6), (5, 0, 6), (5, 5, 0)])
def test_nonsense_is_refused(width, height, num_frames):
    """No size, no plan."""
    with pytest.raises(ValueError, match="0"):
        plan_strip(width, height, num_frames=num_frames, tile_size=560)


def test_a_square_strip():
    """Neither turned nor padded."""
    plan = plan_strip_tiles(100, 100, tile_size=56)
    assert (plan.width, plan.height, plan.num_tiles, plan.transposed) == (56, 56, 1, False)
