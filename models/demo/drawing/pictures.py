"""Whole single pictures: which shapes and words come together on which ground."""

from random import Random

from models.demo.drawing.assets import words
from models.demo.drawing.backgrounds import Ground, draw_ground
from models.demo.drawing.colours import Colour
from models.demo.drawing.judging import SHAPE_NAMES
from models.demo.drawing.layout import Drawn, paint_all, pick_colour, scatter, set_in_cells
from models.demo.drawing.lettering import Box, Printed, longest_word, print_text
from models.demo.drawing.shapes import Item
from models.demo.drawing.sizes import Sheet


def draw_placed(rng: Random, sheet: Sheet, count: int, *, with_print: bool = False) -> Drawn:
    """Shapes of different kinds and colours, each at a place that has a name."""
    ground = draw_ground(rng, sheet.width, sheet.height)
    printed, taken = _beside(rng, ground, sheet) if with_print else (None, ())
    kinds = [kind for kind in SHAPE_NAMES if not printed or kind not in printed.lookalikes]
    items = set_in_cells(rng, sheet, ground, rng.sample(kinds, count), taken=taken)
    return _finished(ground, items, printed)


def draw_crowd(
    rng: Random, sheet: Sheet, *, kind: str = "", count: int = 0, most: int = 8
) -> Drawn:
    """Some shapes of a kind, and others among them. `kind`, `count`: of the first group."""
    ground = draw_ground(rng, sheet.width, sheet.height)
    kind = kind or rng.choice(SHAPE_NAMES)
    count = count or rng.randint(1, 6)
    colour, needs_rim = pick_colour(rng, ground)
    is_mixed = rng.random() < 0.25
    looks: list[tuple[str, Colour, bool]] = []
    for _ in range(count):
        if is_mixed:
            colour, needs_rim = pick_colour(rng, ground)
        looks.append((kind, colour, needs_rim))
    others = [other for other in SHAPE_NAMES if other != kind]
    if rng.random() < 0.7:
        for other in rng.sample(others, rng.choice((1, 1, 2))):
            room = most - len(looks)
            if room < 1:
                break
            # Often in the colour of the first, so that colour alone does not tell them apart.
            if rng.random() < 0.65:
                colour, needs_rim = pick_colour(rng, ground)
            looks += [(other, colour, needs_rim)] * rng.randint(1, min(room, 4))
    rng.shuffle(looks)
    return _finished(ground, scatter(rng, sheet, looks), None)


def draw_print(rng: Random, sheet: Sheet, kind: str, text: str) -> Drawn | None:
    """Nothing but the text, anywhere; None if it does not fit."""
    ground = draw_ground(rng, sheet.width, sheet.height)
    zone = (2.0, 2.0, sheet.width - 2.0, sheet.height - 2.0)
    printed = print_text(rng, ground, sheet, text=text, kind=kind, zone=zone)
    return _finished(ground, (), printed) if printed else None


def draw_print_and_shapes(rng: Random, sheet: Sheet, kind: str, text: str) -> Drawn | None:
    """The text in a band, and one to three shapes in what is left."""
    ground = draw_ground(rng, sheet.width, sheet.height)
    printed = print_text(rng, ground, sheet, text=text, kind=kind, zone=_band(rng, sheet))
    if not printed:
        return None
    kinds = [name for name in SHAPE_NAMES if name not in printed.lookalikes]
    chosen = rng.sample(kinds, rng.choice((1, 1, 2, 3)))
    items = set_in_cells(rng, sheet, ground, chosen, taken=(printed.box,))
    return _finished(ground, items, printed)


def fitting_word(rng: Random, sheet: Sheet, candidates: tuple[str, ...]) -> str:
    """A word short enough for the sheet."""
    most = longest_word(sheet, sheet.width)
    word = rng.choice(candidates)
    while len(word) > max(most, 4):
        word = rng.choice(candidates)
    return word


def _beside(rng: Random, ground: Ground, sheet: Sheet) -> tuple[Printed | None, tuple[Box, ...]]:
    """A word in some band, to stand beside shapes."""
    text = fitting_word(rng, sheet, words())
    printed = print_text(rng, ground, sheet, text=text, kind="word", zone=_band(rng, sheet))
    return printed, (printed.box,) if printed else ()


def _band(rng: Random, sheet: Sheet) -> Box:
    """The upper, middle or lower part of the sheet."""
    top = rng.choice((0.02, 0.3, 0.6))
    return (2.0, top * sheet.height, sheet.width - 2.0, (top + 0.38) * sheet.height)


def _finished(ground: Ground, items: tuple[Item, ...], printed: Printed | None) -> Drawn:
    paint_all(ground, items)
    return Drawn(
        image=ground.image,
        items=items,
        printed=printed,
        ground_colour=ground.colour,
        lookalikes=printed.lookalikes if printed else frozenset(),
    )
