"""What stands where on a picture, for the tower's first lessons: boxes with the words that hold.

Positions are shares of the picture's width and height, so they survive any resampling.
"""

from collections import Counter
from dataclasses import dataclass

from models.demo.drawing.layout import Drawn, place_name
from models.demo.drawing.shapes import Item

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True, slots=True, kw_only=True)
class Glyph:
    """One printed character and the box it takes."""

    character: str
    box: Box


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A shape (`kind`) or something printed (`text`). What does not hold or is unsure is empty.

    `count`: how many shapes of its kind the picture has; `alike`: of its colour;
    `twins`: of both; `among`: at all.
    """

    box: Box
    colour: str
    kind: str = ""
    size: str = ""
    place: str = ""
    count: int = 0
    alike: int = 0
    twins: int = 0
    among: int = 0
    text: str = ""
    glyphs: tuple[Glyph, ...] = ()


def marks_of(drawn: Drawn) -> tuple[Mark, ...]:
    width, height = drawn.image.size
    marks = marks_of_items(drawn.items, width, height)
    printed = drawn.printed
    if printed is None:
        return marks
    left, top, right, bottom = printed.box
    glyphs = tuple(
        Glyph(character=character, box=(a / width, b / height, c / width, d / height))
        for character, (a, b, c, d) in printed.glyphs
    )
    written = Mark(
        box=(left / width, top / height, right / width, bottom / height),
        colour=printed.colour.name,
        place=place_name((left + right) / 2 / width, (top + bottom) / 2 / height),
        text=printed.text,
        glyphs=glyphs,
    )
    return (*marks, written)


def marks_of_items(items: tuple[Item, ...], width: int, height: int) -> tuple[Mark, ...]:
    kinds = Counter(item.kind for item in items)
    colours = Counter(item.colour.name for item in items)
    looks = Counter((item.kind, item.colour.name) for item in items)
    return tuple(
        Mark(
            box=(
                (item.x - item.radius) / width,
                (item.y - item.radius) / height,
                (item.x + item.radius) / width,
                (item.y + item.radius) / height,
            ),
            colour=item.colour.name,
            kind=item.kind,
            size=item.size,
            place=place_name(item.x / width, item.y / height),
            count=kinds[item.kind],
            alike=colours[item.colour.name],
            twins=looks[item.kind, item.colour.name],
            among=len(items),
        )
        for item in items
    )
