"""Where shapes go: without overlap, large enough to be told apart, and at places that have a name.

A picture is nine cells, three by three. A shape whose centre lies well within a cell has the
cell's name for a place; near a border between cells it has none, and nobody is asked for it.
"""

import math
from dataclasses import dataclass, replace
from random import Random

from PIL import Image

from models.demo.drawing.backgrounds import Ground
from models.demo.drawing.colours import Colour, shade, stand_out
from models.demo.drawing.judging import COLOUR_NAMES, PLACE_NAMES
from models.demo.drawing.lettering import Box, Printed
from models.demo.drawing.shapes import Item, paint, pick_outline, turn
from models.demo.drawing.sizes import Sheet

_LEAST_RADIUS = 13.0  # in the model's pixels
SMALL, LARGE = 0.125, 0.19  # shares of the shorter side; between them, neither
CELLS = ((0.0, 0.285), (0.39, 0.61), (0.715, 1.0))
_TRIES = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A finished picture and everything that is on it.

    `lookalikes`: shapes that something else on it resembles, so that nobody should ask for them.
    """

    image: Image.Image
    items: tuple[Item, ...] = ()
    printed: Printed | None = None
    ground_colour: str = ""
    lookalikes: frozenset[str] = frozenset()

    def place(self, item: Item) -> str:
        """The name of the item's place, or nothing."""
        return place_name(item.x / self.image.width, item.y / self.image.height)

    def of_kind(self, kind: str) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.kind == kind)


def place_name(x: float, y: float) -> str:
    """The cell of a point, given in shares of width and height; empty near its borders."""
    cell = 0
    for share, step in ((x, 1), (y, 3)):
        for index, (low, high) in enumerate(CELLS):
            if low <= share <= high:
                cell += step * index
                break
        else:
            return ""
    return PLACE_NAMES[cell]


def least_radius(sheet: Sheet) -> float:
    return max(_LEAST_RADIUS / sheet.scale, 0.085 * sheet.shorter)


def size_name(radius: float, sheet: Sheet) -> str:
    if radius >= LARGE * sheet.shorter:
        return "large"
    return "small" if radius <= SMALL * sheet.shorter else ""


def pick_colour(
    rng: Random, ground: Ground, names: tuple[str, ...] = COLOUR_NAMES
) -> tuple[Colour, bool]:
    """A colour that stands out from the ground, and whether it needs a rim to do so."""
    wished = [name for name in names if name != ground.colour]
    for _ in range(6):
        colour = stand_out(rng, rng.choice(wished), ground.tones)
        if colour:
            return colour, False
    return shade(rng, rng.choice(wished)), True


def styled(rng: Random, item: Item, *, needs_rim: bool, sheet: Sheet) -> Item:
    """The item turned and painted in some manner: filled, as an outline, shaded, rimmed."""
    manner = rng.random()
    line = max(1.3 / sheet.scale, 0.04 * item.radius)
    item = replace(item, angle=turn(rng, item.kind), outline=pick_outline(rng, item.kind))
    if needs_rim or manner < 0.18:
        return replace(item, rim=line)
    if manner < 0.3 and item.radius * sheet.scale > 1.4 * _LEAST_RADIUS:
        return replace(item, stroke=max(0.16, 3.2 / (sheet.scale * item.radius)))
    if manner < 0.48:
        return replace(item, shaded=rng.uniform(-0.16, 0.16))
    return item


def set_in_cells(
    rng: Random, sheet: Sheet, ground: Ground, kinds: list[str], *, taken: tuple[Box, ...] = ()
) -> tuple[Item, ...]:
    """One item of each kind, all of different colours, each at a place of its own that has a name.

    Where the sheet has too little room, the last kinds are left out.
    """
    least, side = least_radius(sheet), sheet.shorter
    items: list[Item] = []
    names = list(COLOUR_NAMES)
    places: set[str] = set()
    for kind in kinds:
        colour, needs_rim = pick_colour(rng, ground, tuple(names))
        names.remove(colour.name)
        wish = rng.uniform(0.19, 0.28) if rng.random() < 0.5 else rng.uniform(0.085, 0.12)
        if len(kinds) == 1 and rng.random() < 0.4:
            wish = rng.uniform(0.28, 0.44)
        radius = max(least, wish * side)
        for _ in range(_TRIES):
            spot = _spot_in_cell(rng, sheet, radius)
            if spot and _is_free(*spot, radius, items, taken):
                place = place_name(spot[0] / sheet.width, spot[1] / sheet.height)
                if place not in places:
                    places.add(place)
                    break
            radius = max(least, 0.92 * radius)
        else:
            continue
        item = Item(
            kind=kind, colour=colour, x=spot[0], y=spot[1], radius=radius,
            size=size_name(radius, sheet),
        )  # fmt: skip
        items.append(styled(rng, item, needs_rim=needs_rim, sheet=sheet))
    return tuple(items)


def scatter(
    rng: Random,
    sheet: Sheet,
    looks: list[tuple[str, Colour, bool]],
    *,
    taken: tuple[Box, ...] = (),
) -> tuple[Item, ...]:
    """Items of given kinds and colours (and whether they need a rim) anywhere, of similar size."""
    least = least_radius(sheet)
    roomy = 0.38 * math.sqrt(sheet.width * sheet.height / max(1, len(looks)))
    radius = rng.uniform(least, max(1.05 * least, min(0.24 * sheet.shorter, roomy)))
    alike = rng.random() < 0.5  # all of one size, in one manner
    while True:
        items: list[Item] = []
        for kind, colour, needs_rim in looks:
            own = radius if alike else max(least, radius * rng.uniform(0.75, 1.25))
            spot = _free_spot(rng, sheet, own, items, taken)
            if spot is None:
                break
            item = Item(kind=kind, colour=colour, x=spot[0], y=spot[1], radius=own)
            items.append(styled(rng, item, needs_rim=needs_rim, sheet=sheet))
        else:
            return tuple(items)
        # Too crowded: smaller ones. At last the radius no longer obeys the least one.
        radius *= 0.88
        least = min(least, radius)


def paint_all(ground: Ground, items: tuple[Item, ...]) -> None:
    for item in items:
        paint(ground.image, item)


def _spot_in_cell(rng: Random, sheet: Sheet, radius: float) -> tuple[float, float] | None:
    """A centre within some cell from which the circle stays on the sheet."""
    spot = []
    for extent in (sheet.width, sheet.height):
        low, high = rng.choice(CELLS)
        low, high = max(low * extent, radius + 1.5), min(high * extent, extent - radius - 1.5)
        if low > high:
            return None
        # Not on the very border, where rounding could give another name.
        spot.append(rng.uniform(low + 0.1 * (high - low), high - 0.1 * (high - low)))
    return spot[0], spot[1]


def _free_spot(
    rng: Random, sheet: Sheet, radius: float, items: list[Item], taken: tuple[Box, ...]
) -> tuple[float, float] | None:
    if 2 * radius + 4 > sheet.shorter:
        return None
    for _ in range(_TRIES):
        x = rng.uniform(radius + 1.5, sheet.width - radius - 1.5)
        y = rng.uniform(radius + 1.5, sheet.height - radius - 1.5)
        if _is_free(x, y, radius, items, taken):
            return x, y
    return None


def _is_free(x: float, y: float, radius: float, items: list[Item], taken: tuple[Box, ...]) -> bool:
    """Whether a circle touches none of the items' circles and none of the boxes."""
    for item in items:
        if math.hypot(x - item.x, y - item.y) < 1.06 * (radius + item.radius) + 2:
            return False
    for left, top, right, bottom in taken:
        dx = max(left - x, 0, x - right)
        dy = max(top - y, 0, y - bottom)
        if math.hypot(dx, dy) < radius + 2:
            return False
    return True
