"""What is said of a picture against what stands on it: counted and measured on the pixels."""

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.measure import label

from models.demo.drawing import assets
from models.demo.drawing.backgrounds import Ground, draw_ground
from models.demo.drawing.colours import Colour, apart, shade
from models.demo.drawing.judging import COLOUR_NAMES, PLACE_NAMES, SHAPE_NAMES
from models.demo.drawing.layout import Drawn, place_name, scatter, set_in_cells
from models.demo.drawing.pictures import (
    draw_crowd,
    draw_placed,
    draw_print_and_shapes,
    fitting_word,
)
from models.demo.drawing.shapes import Item, mask_of, paint, pick_outline, turn
from models.demo.drawing.sizes import Sheet, frame_sheet, single_sheet

seeds = st.integers(0, 2**32)
WHITE = (255, 255, 255)
BLACK = Colour(name="black", rgb=(0, 0, 0))


def assert_apart(drawn: Drawn) -> None:
    width, height = drawn.image.size
    for k, item in enumerate(drawn.items):
        assert item.radius < item.x < width - item.radius
        assert item.radius < item.y < height - item.radius
        for other in drawn.items[:k]:
            distance = math.hypot(item.x - other.x, item.y - other.y)
            assert distance > item.radius + other.radius


@given(seed=seeds)
@settings(max_examples=80, deadline=None)
def test_shapes_keep_apart(seed: int) -> None:
    """No shape touches or hides another, or leaves the picture."""
    rng = Random(seed)
    crowd = draw_crowd(rng, single_sheet(rng))
    assert 1 <= len(crowd.items) <= 8
    assert_apart(crowd)
    assert_apart(draw_placed(rng, single_sheet(rng), 4))


@given(seed=seeds, count=st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_as_many_as_said_are_on_the_pixels(seed: int, count: int) -> None:
    """Counting connected pixels finds each shape once, filled or in outline."""
    rng = Random(seed)
    sheet = single_sheet(rng)
    image = Image.new("RGB", (sheet.width, sheet.height), WHITE)
    looks = [(rng.choice(SHAPE_NAMES), BLACK, False) for _ in range(count)]
    for item in scatter(rng, sheet, looks):
        paint(image, item)
    _, found = label(np.asarray(image.convert("L")) < 128, return_num=True, connectivity=2)
    assert found == count


@pytest.mark.parametrize("kind", SHAPE_NAMES)
def test_shapes_stay_in_their_circle(kind: str) -> None:
    """Every form of a shape, however turned, lies within the circle around it and fills some."""
    rng = Random(5)
    for _ in range(30):
        item = Item(
            kind=kind, colour=BLACK, x=60.3, y=59.6, radius=40,
            angle=turn(rng, kind), outline=pick_outline(rng, kind),
        )  # fmt: skip
        image = Image.new("RGB", (120, 120), WHITE)
        paint(image, item)
        rows, columns = np.nonzero(np.asarray(image.convert("L")) < 100)
        assert np.hypot(columns + 0.5 - item.x, rows + 0.5 - item.y).max() <= item.radius + 1.5
        assert len(rows) >= 0.15 * math.pi * item.radius**2


def test_outlines_of_different_shapes_differ() -> None:
    """No form of a shape covers the same pixels as a form of another."""
    rng = Random(6)
    masks = {}
    for kind in SHAPE_NAMES:
        for _ in range(12):
            item = Item(kind=kind, colour=BLACK, x=40, y=40, radius=30,
                        outline=pick_outline(rng, kind))  # fmt: skip
            masks[kind, item.outline] = np.asarray(mask_of(item)) > 127
    for (kind, _), mask in masks.items():
        for (other, _), rival in masks.items():
            if kind != other:
                union, shared = (mask | rival).sum(), (mask & rival).sum()
                assert shared / union < 0.93, (kind, other)


@given(seed=seeds)
@settings(max_examples=60, deadline=None)
def test_placed_shapes_have_places_of_their_own(seed: int) -> None:
    """Each is in a cell that has a name, no two in the same, and no two of one colour."""
    rng = Random(seed)
    drawn = draw_placed(rng, single_sheet(rng), 4)
    places = [drawn.place(item) for item in drawn.items]
    assert set(places) <= set(PLACE_NAMES)
    assert len(set(places)) == len(places)
    assert len({item.colour.name for item in drawn.items}) == len(drawn.items)


def test_place_names() -> None:
    """Cells are three by three; near a border between cells there is no name."""
    assert place_name(0.1, 0.1) == "top left"
    assert place_name(0.5, 0.5) == "centre"
    assert place_name(0.9, 0.5) == "right"
    assert place_name(0.5, 0.95) == "bottom"
    assert place_name(0.34, 0.5) == ""


@given(seed=seeds)
@settings(max_examples=60, deadline=None)
def test_legible_size(seed: int) -> None:
    """Placed shapes span 26 of the model's pixels or more; letters are at least a half of that."""
    rng = Random(seed)
    sheet = single_sheet(rng, least=150)
    ground = draw_ground(rng, sheet.width, sheet.height)
    for item in set_in_cells(rng, sheet, ground, list(SHAPE_NAMES[:3])):
        assert 2 * item.radius * sheet.scale >= 26 - 1e-6
    word = fitting_word(rng, sheet, assets.words())
    drawn = draw_print_and_shapes(rng, sheet, "word", word)
    if drawn and drawn.printed:
        left, top, right, bottom = drawn.printed.box
        assert 0 <= left < right <= sheet.width
        assert 0 <= top < bottom <= sheet.height
        assert (bottom - top) * sheet.scale >= 12
        assert all(not _overlaps(item, drawn.printed.box) for item in drawn.items)


def _overlaps(item: Item, box: tuple[float, float, float, float]) -> bool:
    dx = max(box[0] - item.x, 0, item.x - box[2])
    dy = max(box[1] - item.y, 0, item.y - box[3])
    return math.hypot(dx, dy) < item.radius


@given(seed=seeds)
@settings(max_examples=60, deadline=None)
def test_colours_stand_out(seed: int) -> None:
    """A shape without a rim differs from its ground, and never has the ground's name."""
    rng = Random(seed)
    sheet = Sheet(width=200, height=160, scale=1.12)
    ground = draw_ground(rng, sheet.width, sheet.height)
    for item in set_in_cells(rng, sheet, ground, list(SHAPE_NAMES[:3])):
        assert item.colour.name != ground.colour
        nearest = min(apart(item.colour.rgb, tone) for tone in ground.tones)
        assert item.rim or nearest >= 150


def test_named_colours_do_not_meet() -> None:
    """Shades of two names are never alike."""
    rng = Random(7)
    shades = [(name, shade(rng, name).rgb) for name in COLOUR_NAMES for _ in range(40)]
    for name, rgb in shades:
        for other, rival in shades:
            assert name == other or apart(rgb, rival) > 60, (name, rgb, other, rival)


def test_most_pictures_fit_one_tile() -> None:
    """The rest take up to four, and some are wider than two to one."""
    rng = Random(8)
    sheets = [single_sheet(rng) for _ in range(600)]
    longer = [sheet.longer for sheet in sheets]
    assert 0.52 <= sum(side <= 224 for side in longer) / 600 <= 0.68
    assert max(longer) <= 720
    assert any(sheet.longer > 2 * sheet.shorter for sheet in sheets)
    assert all(frame_sheet(rng).longer <= 240 for _ in range(20))


def test_missing_font_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named: drawing on with fewer fonts would silently give other pictures."""
    monkeypatch.setattr(assets, "find_spec", lambda package: None)
    with pytest.raises(ModuleNotFoundError, match="drawing needs the package font-source-sans-pro"):
        assets.faces.__wrapped__()


def test_ground_knows_its_colour() -> None:
    """A named ground is of that colour all over."""
    named = []
    for seed in range(80):
        ground: Ground = draw_ground(Random(seed), 60, 40)
        if ground.colour:
            named.append(ground)
            assert ground.image.getcolors() == [(60 * 40, ground.tones[0])]
    assert named
