"""Questions about what is printed on a picture."""

from random import Random

from models.demo.drawing.asking import Asked, asked
from models.demo.drawing.judging import expect_colour, expect_place, expect_verbatim
from models.demo.drawing.layout import Drawn, place_name
from models.demo.drawing.phrases import at, worded


def ask_printed(rng: Random, drawn: Drawn) -> Asked | None:
    if not drawn.printed:
        return None
    printed = drawn.printed
    on_sign = printed.kind == "word" and bool(printed.lookalikes) and rng.random() < 0.5
    question = worded(rng, "word on sign" if on_sign else printed.kind)
    return asked(
        question, printed_answer(printed.kind, printed.text), expect_verbatim(printed.text),
        ("printed", ""),
    )  # fmt: skip


def printed_answer(kind: str, text: str) -> str:
    if kind == "number":
        return f"The number is {text}."
    return f'The {"word" if kind == "word" else "text"} is "{text}".'


def ask_ink(rng: Random, drawn: Drawn) -> Asked | None:
    """The colour of a word or number."""
    if not drawn.printed or drawn.printed.kind == "line":
        return None
    noun, name = drawn.printed.kind, drawn.printed.colour.name
    question = worded(rng, "colour", x=noun)
    return asked(question, f"The {noun} is {name}.", expect_colour(name), ("ink", ""))


def ask_printed_place(rng: Random, drawn: Drawn) -> Asked | None:
    if not drawn.printed or drawn.printed.kind == "line":
        return None
    left, top, right, bottom = drawn.printed.box
    place = place_name(
        (left + right) / 2 / drawn.image.width, (top + bottom) / 2 / drawn.image.height
    )
    if not place:
        return None
    noun = drawn.printed.kind
    question = worded(rng, "place", x=noun)
    answer = f"The {noun} is {at(place)}."
    return asked(question, answer, expect_place(place), ("printed place", ""))
