"""Questions about the shapes of one picture, with their answers.

Every maker returns what it asked, or nothing where the picture does not settle the answer.
"""

from collections import Counter
from random import Random

from models.demo.drawing.asking import Asked, asked
from models.demo.drawing.judging import (
    expect_colour,
    expect_count,
    expect_phrase,
    expect_place,
    expect_shape,
    expect_yes_or_no,
)
from models.demo.drawing.layout import Drawn
from models.demo.drawing.phrases import a, at, counted, plural, worded
from models.demo.drawing.shapes import Item

_RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
_OPPOSITES = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def lone_items(drawn: Drawn) -> list[Item]:
    """Items that are the only ones of their kind, so that "the star" is one thing."""
    kinds = Counter(item.kind for item in drawn.items)
    return [item for item in drawn.items if kinds[item.kind] == 1]


def ask_colour(rng: Random, drawn: Drawn, *, item: Item | None = None) -> Asked | None:
    """Of a lone item, or of several of a kind that share a colour. `item`: what "it" is."""
    if item:
        answer = f"The {item.kind} is {item.colour.name}."
        expectation = expect_colour(item.colour.name)
        return asked(worded(rng, "colour it"), answer, expectation, ("colour", item.kind), one=item)
    kinds = sorted({item.kind for item in drawn.items})
    rng.shuffle(kinds)
    for kind in kinds:
        same = drawn.of_kind(kind)
        name = same[0].colour.name
        key = ("colour", kind)
        if len(same) == 1:
            question = worded(rng, "colour", x=kind)
            answer = f"The {kind} is {name}."
            return asked(question, answer, expect_colour(name), key, one=same[0])
        if all(other.colour.name == name for other in same):
            question = worded(rng, "colours", x=plural(kind))
            answer = f"The {plural(kind)} are {name}."
            return asked(question, answer, expect_colour(name), key, many=kind)
    return None


def ask_their_colour(rng: Random, drawn: Drawn, kind: str) -> Asked | None:
    names = {item.colour.name for item in drawn.of_kind(kind)}
    if len(names) != 1 or len(drawn.of_kind(kind)) < 2:
        return None
    name = names.pop()
    answer = f"The {plural(kind)} are {name}."
    return asked(
        worded(rng, "colours them"), answer, expect_colour(name), ("colour", kind), many=kind
    )


def ask_ground_colour(rng: Random, drawn: Drawn) -> Asked | None:
    if not drawn.ground_colour:
        return None
    name = drawn.ground_colour
    question = worded(rng, "colour of ground")
    return asked(question, f"The background is {name}.", expect_colour(name), ("colour", ""))


def ask_shape(rng: Random, drawn: Drawn) -> Asked | None:
    """Of the only item of a colour, of the item at a place, or of the only one there is."""
    if not drawn.items:
        return None
    item = rng.choice(drawn.items)
    expectation = expect_shape(item.kind)
    if len(drawn.items) == 1 and not drawn.printed and rng.random() < 0.5:
        question = worded(rng, "only shape")
        answer = f"The shape is {a(item.kind)}."
        return asked(question, answer, expectation, ("shape", item.kind), one=item)
    place = drawn.place(item)
    if place and rng.random() < 0.35 and _alone_at(drawn, item, place):
        question = worded(rng, "shape by place", p=at(place))
        answer = f"The shape {at(place)} is {a(item.kind)}."
        return asked(question, answer, expectation, ("shape", item.kind), one=item)
    name = item.colour.name
    if sum(other.colour.name == name for other in drawn.items) > 1 or name == drawn.ground_colour:
        return None
    if drawn.printed and drawn.printed.colour.name == name:
        return None
    answer = f"The {name} shape is {a(item.kind)}."
    question = worded(rng, "shape by colour", c=name)
    return asked(question, answer, expectation, ("shape", item.kind), one=item)


def _alone_at(drawn: Drawn, item: Item, place: str) -> bool:
    """Whether nothing else could be meant: no other centre in the cell or near its borders."""
    others = [drawn.place(other) for other in drawn.items if other is not item]
    return all(name not in ("", place) for name in others) and not drawn.printed


def ask_count(
    rng: Random, drawn: Drawn, *, kind: str = "", them: bool = False, kind_share: float = 0.6
) -> Asked | None:
    """Of a kind, of a kind in one colour, of a colour, or of all shapes. Never none."""
    if not drawn.items:
        return None
    item = rng.choice(drawn.items)
    colour = item.colour.name
    form = (rng.random() - kind_share) / (1 - kind_share)  # below 0: of a kind
    kind = kind or item.kind
    if them or form < 0:
        noun, count = kind, len(drawn.of_kind(kind))
    elif form < 0.375:
        noun = f"{colour} {kind}"
        count = sum(other.colour.name == colour for other in drawn.of_kind(kind))
    elif form < 0.675:
        noun, count = f"{colour} shape", sum(o.colour.name == colour for o in drawn.items)
    else:
        noun, count = "shape", len(drawn.items)
    if not 1 <= count <= 6 or ("shape" in noun and drawn.lookalikes):
        return None
    question = worded(rng, "count them") if them else worded(rng, "count", xs=plural(noun))
    answer = f"There {'is' if count == 1 else 'are'} {counted(count, noun)}."
    many = kind if noun == kind else ""
    return asked(question, answer, expect_count(count), ("count", noun), many=many)


def ask_place(rng: Random, drawn: Drawn, *, item: Item | None = None) -> Asked | None:
    """Of a lone item whose place has a name."""
    is_pronoun = item is not None
    if item is None:
        placed = [item for item in lone_items(drawn) if drawn.place(item)]
        if not placed:
            return None
        item = rng.choice(placed)
    place = drawn.place(item)
    if not place:
        return None
    noun = item.kind if rng.random() < 0.7 else item.noun
    question = worded(rng, "place it") if is_pronoun else worded(rng, "place", x=noun)
    answer = f"The {item.kind} is {at(place)}."
    return asked(question, answer, expect_place(place), ("place", item.kind), one=item)


def ask_size(rng: Random, drawn: Drawn, *, item: Item | None = None) -> Asked | None:
    sized = [item] if item else [item for item in lone_items(drawn) if item.size]
    if not sized or not sized[0].size:
        return None
    chosen = item or rng.choice(sized)
    question = worded(rng, "size it") if item else worded(rng, "size", x=chosen.kind)
    expectation = expect_phrase(chosen.size, rivals=("large", "small"))
    answer = f"The {chosen.kind} is {chosen.size}."
    return asked(question, answer, expectation, ("size", chosen.kind), one=chosen)


def ask_largest(rng: Random, drawn: Drawn) -> Asked | None:
    """Where one is plainly larger than all others."""
    ordered = sorted(drawn.items, key=lambda item: -item.radius)
    if len(ordered) < 2 or ordered[0].radius < 1.5 * ordered[1].radius or drawn.lookalikes:
        return None
    item = ordered[0]
    answer = f"The largest shape is the {item.kind}."
    question = worded(rng, "largest")
    return asked(question, answer, expect_shape(item.kind), ("largest", ""), one=item)


def related(one: Item, other: Item) -> str:
    """What the one is to the other: left of, right of, above, below; empty where it is slanted."""
    dx, dy = one.x - other.x, one.y - other.y
    reach = one.radius + other.radius
    for name, (sx, sy) in _RELATIONS.items():
        along, across = (sx * dx, abs(dy)) if sx else (sy * dy, abs(dx))
        if along > reach and along > 1.7 * across:
            return name
    return ""


def ask_relation(rng: Random, drawn: Drawn) -> Asked | None:
    """What is left of the star? Is the heart above the star? Only where there are two shapes."""
    if len(drawn.items) != 2 or drawn.items[0].kind == drawn.items[1].kind or drawn.printed:
        return None
    one, other = rng.sample(drawn.items, 2)
    relation = related(one, other)
    if not relation:
        return None
    key = ("relation", "")
    if rng.random() < 0.6:
        question = worded(rng, "relation", r=relation, x=other.kind)
        answer = f"The shape {relation} the {other.kind} is {a(one.kind)}."
        return asked(question, answer, expect_shape(one.kind, asked=other.kind), key, one=one)
    is_so = rng.random() < 0.5
    said = relation if is_so else _OPPOSITES[relation]
    question = worded(rng, "is it so", x=one.kind, y=other.kind, r=said)
    answer = f"{'Yes' if is_so else 'No'}, the {one.kind} is {relation} the {other.kind}."
    return asked(question, answer, expect_yes_or_no(yes=is_so), key)
