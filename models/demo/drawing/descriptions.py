"""A picture in words: one or two sentences for people, and the caption for the tower.

Both go through the picture in one fixed order: shapes that stand at places as one reads, crowds
by their number. What is printed comes last.
"""

from collections import Counter
from random import Random

from models.demo.drawing.asking import Asked, asked
from models.demo.drawing.judging import COLOUR_NAMES, SHAPE_NAMES
from models.demo.drawing.layout import Drawn
from models.demo.drawing.phrases import a, at, counted, listed, worded
from models.demo.drawing.shapes import Item

_MOST_PLACED = 4  # more shapes are told as a crowd: "three red circles and one blue star"


def ask_description(rng: Random, drawn: Drawn) -> Asked | None:
    return asked(worded(rng, "describe"), description(drawn), None, ("describe", ""))


def description(drawn: Drawn) -> str:
    ground = f" on {a(drawn.ground_colour)} background" if drawn.ground_colour else ""
    print_ = _print_in_words(drawn)
    if not drawn.items:
        return f"The picture shows {print_ or 'no shapes'}{ground}."
    if _is_placed(drawn):
        parts = [f"{a(_sized(item))} {at(drawn.place(item))}" for item in _as_read(drawn)]
    else:
        parts = [counted(count, noun) for noun, count in _crowds(drawn)]
    also = f" It also shows {print_}." if print_ else ""
    return f"The picture shows {listed(parts)}{ground}.{also}"


def caption(drawn: Drawn) -> str:
    if _is_placed(drawn):
        parts = [f"{_sized(item)} {drawn.place(item)}" for item in _as_read(drawn)]
    else:
        parts = [counted(count, noun) for noun, count in _crowds(drawn)]
    if drawn.printed:
        printed = drawn.printed
        noun = "text" if printed.kind == "line" else printed.kind
        parts.append(f"{printed.colour.name} {noun} {printed.text}")
    if drawn.ground_colour:
        parts.append(f"{drawn.ground_colour} background")
    return "; ".join(parts) or "nothing"


def _print_in_words(drawn: Drawn) -> str:
    if not drawn.printed:
        return ""
    kind, text = drawn.printed.kind, drawn.printed.text
    if kind == "number":
        return f"the number {text}"
    return f'the {"word" if kind == "word" else "text"} "{text}"'


def _is_placed(drawn: Drawn) -> bool:
    """Whether each has a place, and none is told twice."""
    nouns = {item.noun for item in drawn.items}
    few = len(nouns) == len(drawn.items) <= _MOST_PLACED
    return few and all(drawn.place(item) for item in drawn.items)


def _sized(item: Item) -> str:
    return f"{item.size} {item.noun}" if item.size else item.noun


def _as_read(drawn: Drawn) -> list[Item]:
    """From the top row to the bottom row, from left to right."""
    rows = ("top", "", "bottom")

    def key(item: Item) -> tuple[int, float]:
        row = drawn.place(item).split()[0]
        return (rows.index(row) if row in rows else 1, item.x)

    return sorted(drawn.items, key=key)


def _crowds(drawn: Drawn) -> list[tuple[str, int]]:
    """Nouns like "red circle" with how many there are, most first."""
    crowds = Counter((item.colour.name, item.kind) for item in drawn.items)

    def key(crowd: tuple[tuple[str, str], int]) -> tuple[int, int, int]:
        (colour, kind), count = crowd
        return (-count, SHAPE_NAMES.index(kind), COLOUR_NAMES.index(colour))

    return [
        (f"{colour} {kind}", count) for (colour, kind), count in sorted(crowds.items(), key=key)
    ]
