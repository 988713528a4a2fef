"""The strip's pixels: every frame at its place, labels above, rules between.

That they are the reference's to the bit is shown by tests/parity.
"""

import pytest
from PIL import Image

from ixc_runtime.media.strip import draw_strip, transform_strip
from ixc_runtime.media.video import plan_strip

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def frames(size: tuple[int, int], *colours: tuple[int, int, int]) -> list[Image.Image]:
    return [Image.new("RGB", size, colour) for colour in colours]


def has_label(strip: Image.Image, left: int, top: int) -> bool:
    colours = strip.crop((left, top, left + 200, top + 40)).getcolors()
    return colours is not None and {WHITE, BLACK} < {colour for _, colour in colours}


def test_landscape_frames():
    """One below the other, each label above its frame, a rule after each but the last."""
    plan = plan_strip(160, 90, num_frames=2, tile_size=560)
    strip = draw_strip(frames((160, 90), RED, GREEN), plan)
    assert strip.size == (1120, 2 * (40 + 630 + 10))
    assert has_label(strip, 0, 0)
    assert has_label(strip, 0, 680)
    assert [strip.getpixel((600, y)) for y in (20, 40, 669)] == [WHITE, RED, RED]
    assert [strip.getpixel((600, y)) for y in (670, 675, 679)] == [WHITE, BLACK, WHITE]
    assert [strip.getpixel((600, y)) for y in (719, 720, 1349, 1355)] == [
        *(WHITE, GREEN, GREEN, WHITE)
    ]


@pytest.mark.parametrize("size", [(90, 160), (90, 90)])
def test_portrait_and_square_frames(size):
    """Side by side under one line of labels, rules from top to bottom."""
    plan = plan_strip(*size, num_frames=2, tile_size=560)
    strip = draw_strip(frames(size, RED, BLUE), plan)
    wide = plan.frame_width
    assert strip.size == (2 * (wide + 10), 1160)
    assert [strip.getpixel((x, 1159)) for x in (0, wide - 1)] == [RED, RED]
    assert [strip.getpixel((wide + 5, y)) for y in (0, 1159)] == [BLACK, BLACK]
    assert [strip.getpixel((x, 600)) for x in (wide + 9, wide + 10)] == [WHITE, BLUE]
    assert strip.getpixel((2 * wide + 15, 600)) == WHITE
    assert has_label(strip, 0, 0)
    assert has_label(strip, wide + 10, 0)


@pytest.mark.parametrize("size", [(160, 90), (90, 160)])
def test_the_canvas(size):
    """The strip fills one tile across; the rest of the last tile along is white."""
    plan = plan_strip(*size, num_frames=3, tile_size=56)
    canvas = transform_strip(draw_strip(frames(size, RED, RED, RED), plan), plan)
    tiles = plan.tiles
    assert canvas.size == (tiles.canvas_width, tiles.canvas_height)
    assert tiles.num_tiles == 2
    corner = (canvas.width - 1, canvas.height - 1)
    assert canvas.getpixel(corner) == WHITE
    assert canvas.getpixel((tiles.width // 2, tiles.height // 4)) != WHITE


def test_a_clip_that_changes_its_size():
    """A frame of another size is stretched to its place; the strip stays as it was priced."""
    plan = plan_strip(160, 90, num_frames=2, tile_size=56)
    strip = draw_strip([*frames((160, 90), RED), *frames((50, 90), BLUE)], plan)
    assert strip.size == (plan.width, plan.height)
    assert strip.getpixel((plan.width - 1, plan.height - plan.gap - 1)) == BLUE
