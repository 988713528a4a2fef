"""Questions about what may not be there: the honest answer is often that there is none."""

from random import Random

from models.demo.drawing.asking import Asked, asked
from models.demo.drawing.judging import (
    COLOUR_NAMES,
    SHAPE_NAMES,
    expect_none,
    expect_yes_or_no,
)
from models.demo.drawing.layout import Drawn
from models.demo.drawing.phrases import a, plural, worded


def absent_kinds(drawn: Drawn) -> list[str]:
    """Shapes that are surely not there."""
    present = {item.kind for item in drawn.items} | drawn.lookalikes
    return [kind for kind in SHAPE_NAMES if kind not in present]


def ask_absent(rng: Random, drawn: Drawn) -> Asked | None:
    """Something about a shape that is not there; the honest answer is that there is none."""
    absent = absent_kinds(drawn)
    if not absent:
        return None
    kind = rng.choice(absent)
    form = rng.choice(("colour", "place", "count", "is there", "is there", "coloured", "printed"))
    key = ("absent", kind)
    if form == "printed":
        if drawn.printed:
            return None
        noun = rng.choice(("word", "word", "number"))
        answer = f"There is no {noun} in the picture."
        return asked(worded(rng, noun), answer, expect_none(), ("absent", noun))
    if form == "coloured":
        return _ask_wrong_colour(rng, drawn)
    if form == "count":
        question = worded(rng, "count", xs=plural(kind))
        return asked(question, f"There are no {plural(kind)}.", expect_none(), key)
    if form == "is there":
        question = worded(rng, "is there", a_x=a(kind))
        expectation = expect_yes_or_no(yes=False)
        return asked(question, f"No, there is no {kind}.", expectation, key)
    question = worded(rng, form, x=kind)
    rivals = COLOUR_NAMES if form == "colour" else ("top", "bottom", "left", "right")
    answer = f"There is no {kind} in the picture."
    return asked(question, answer, expect_none(rivals=rivals), key)


def _ask_wrong_colour(rng: Random, drawn: Drawn) -> Asked | None:
    """Is there a red star? There is a star, but a blue one."""
    if not drawn.items:
        return None
    kind = rng.choice(drawn.items).kind
    present = {item.colour.name for item in drawn.of_kind(kind)}
    seen = sorted({item.colour.name for item in drawn.items} - present)
    absent = [name for name in COLOUR_NAMES if name not in present]
    noun = f"{rng.choice(seen if seen and rng.random() < 0.5 else absent)} {kind}"
    question = worded(rng, "is there", a_x=a(noun))
    expectation = expect_yes_or_no(yes=False)
    return asked(question, f"No, there is no {noun}.", expectation, ("absent", noun))


def ask_present(rng: Random, drawn: Drawn) -> Asked | None:
    """Is there a star? There is."""
    if not drawn.items:
        return None
    item = rng.choice(drawn.items)
    noun = item.kind if rng.random() < 0.6 else item.noun
    same = [o for o in drawn.items if noun in (o.kind, o.noun)]
    question = worded(rng, "is there", a_x=a(noun))
    answer = f"Yes, there is {a(noun)}."
    one = item if len(same) == 1 else None
    many = "" if one or " " in noun else item.kind
    expectation = expect_yes_or_no(yes=True)
    return asked(question, answer, expectation, ("present", item.kind), one=one, many=many)
