"""The tiling arithmetic: examples from the model's description, and what holds for every size."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixc_runtime.media.geometry import num_image_tokens, plan_tiles

sides = st.integers(min_value=1, max_value=120_000)
bounds = st.integers(min_value=1, max_value=64)
tile_sizes = st.sampled_from([28, 224, 560])


@pytest.mark.parametrize(
    ("size", "hd_num", "tiles", "tokens"),
    [
        ((400, 300), 24, (1, 1), 841),
        ((1024, 768), 24, (2, 2), 2061),
        ((1920, 1080), 24, (4, 3), 5281),
        ((1920, 1080), 6, (3, 2), 2861),
        ((4000, 3000), 24, (5, 4), 8501),
        ((2000, 300), 24, (4, 1), 2041),
        ((300, 2000), 24, (1, 4), 2101),
    ],
)
def test_published_examples(size, hd_num, tiles, tokens):
    """Sizes named in the model's description get their tiles and tokens."""
    plan = plan_tiles(*size, hd_num=hd_num, tile_size=560)
    assert tiles == (plan.tiles_wide, plan.tiles_high)
    assert tokens == num_image_tokens(plan.tiles_wide, plan.tiles_high, 20)


@given(width=sides, height=sides, hd_num=bounds, tile_size=tile_sizes)
def test_any_picture(width, height, hd_num, tile_size):
    """A plan respects its bound, has no empty side, and its picture fits the canvas snugly."""
    plan = plan_tiles(width, height, hd_num=hd_num, tile_size=tile_size)
    assert 1 <= plan.num_tiles <= hd_num
    assert (plan.canvas_width, plan.canvas_height) == (
        plan.tiles_wide * tile_size,
        plan.tiles_high * tile_size,
    )
    assert plan.canvas_width - tile_size < plan.width <= plan.canvas_width
    assert plan.canvas_height - tile_size < plan.height <= plan.canvas_height
    assert plan.width >= 1
    assert plan.height >= 1


@given(width=sides, height=sides, hd_num=bounds)
def test_a_picture_on_its_side(width, height, hd_num):
    """Exchanging width and height exchanges them in the plan."""
    plan = plan_tiles(width, height, hd_num=hd_num, tile_size=560)
    turned = plan_tiles(height, width, hd_num=hd_num, tile_size=560)
    assert (plan.width, plan.height) == (turned.height, turned.width)
    assert (plan.tiles_wide, plan.tiles_high) == (turned.tiles_high, turned.tiles_wide)


@given(width=sides, height=sides, hd_num=bounds)
def test_the_reference_formula(width, height, hd_num):
    """Where the reference does not fail, its own loop gives the same resized size."""
    longer, shorter = max(width, height), min(width, height)
    ratio = longer / shorter
    scale = 1
    while scale * math.ceil(scale / ratio) <= hd_num:
        scale += 1
    scale = min(math.ceil(longer / 560), scale - 1)
    new_longer = scale * 560
    new_shorter = int(new_longer / ratio)
    plan = plan_tiles(width, height, hd_num=hd_num, tile_size=560)
    assert (new_longer, max(new_shorter, 1)) == (
        max(plan.width, plan.height),
        min(plan.width, plan.height),
    )


def test_an_extreme_shape_keeps_a_pixel():
    """Where the reference would scale the shorter side to nothing, one pixel stays."""
    plan = plan_tiles(100_000, 1, hd_num=24, tile_size=560)
    assert (plan.width, plan.height) == (24 * 560, 1)
    assert (plan.tiles_wide, plan.tiles_high) == (24, 1)


@pytest.mark.parametrize(("width", "height", "hd_num"), [(0, 5, 6), (5, 0, 6), (5, 5, 0)])
def test_nonsense_is_refused(width, height, hd_num):
    """No size, no plan."""
    with pytest.raises(ValueError, match="0"):
        plan_tiles(width, height, hd_num=hd_num, tile_size=560)
