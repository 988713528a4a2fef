"""Two pictures, sometimes three, and what is the same or different between them.

In the prompt they are called Image1, Image2 and Image3. Wherever the answer is one of them, each
is equally often right.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from models.demo.drawing.asking import Asked, asked
from models.demo.drawing.assets import words
from models.demo.drawing.backgrounds import draw_ground
from models.demo.drawing.conversation import shortened
from models.demo.drawing.descriptions import caption
from models.demo.drawing.example import Example, Turn
from models.demo.drawing.judging import (
    SHAPE_NAMES,
    Expectation,
    expect_colour,
    expect_count,
    expect_picture,
    expect_shape,
    expect_verbatim,
)
from models.demo.drawing.layout import (
    Drawn,
    least_radius,
    paint_all,
    pick_colour,
    scatter,
    set_in_cells,
)
from models.demo.drawing.marks import marks_of
from models.demo.drawing.phrases import a, counted, led, plural
from models.demo.drawing.pictures import draw_print, fitting_word
from models.demo.drawing.questions import lone_items
from models.demo.drawing.shapes import Item
from models.demo.drawing.sizes import Sheet, compared_sheet
from models.demo.drawing.wear import worn

_PICTURES = ("picture", "image", "one", "of the pictures", "of the images")
_MOST_COUNTED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """The pictures and the first question about them."""

    drawn: tuple[Drawn, ...]
    first: Asked


def draw_compared(rng: Random) -> Example:
    number = 3 if rng.random() < 0.14 else 2
    sheets = [compared_sheet(rng) for _ in range(number)]
    if rng.random() < 0.5:  # all of one size
        sheets = [sheets[0]] * number
    form = rng.choices(_FORMS, _WEIGHTS)[0]
    compared = form(rng, sheets)
    texts = [f"Image{k}: {caption(drawn)}" for k, drawn in enumerate(compared.drawn, start=1)]
    return Example(
        task="compare",
        pictures=tuple(worn(rng, drawn.image) for drawn in compared.drawn),
        caption=". ".join(texts),
        marks=tuple(marks_of(drawn) for drawn in compared.drawn),
        turns=_turns(rng, compared),
    )


def _which(rng: Random, what: str) -> str:
    question = f"Which {rng.choice(_PICTURES)} {what}?"
    if rng.random() < 0.25:
        return f"{rng.choice(('Compare them.', 'Look at them all.'))} {question}"
    return led(rng, question)


def _more(rng: Random, sheets: list[Sheet]) -> _Compared:
    """Another number of the same shape in every picture."""
    fewest = 0 if rng.random() < 0.15 else 1
    counts = rng.sample(range(fewest, _MOST_COUNTED + 1), k=len(sheets))
    kind = rng.choice(SHAPE_NAMES)
    drawn = tuple(_crowd(rng, sheet, kind, n) for sheet, n in zip(sheets, counts, strict=True))
    is_more = rng.random() < 0.72
    best = counts.index(max(counts) if is_more else min(counts)) + 1
    several = len(sheets) > 2
    degree = ("the most" if several else "more") if is_more else (
        "the fewest" if several else "fewer"
    )  # fmt: skip
    xs = plural(kind)
    verb = rng.choice(("has", "has", "shows", "contains"))
    question = _which(rng, f"{verb} {degree} {xs}")
    if not several and rng.random() < 0.2:
        question = rng.choice((f"Where are {degree} {xs}?", f"Where do you see {degree} {xs}?"))
    answer = f"Image{best} has {degree} {xs}."
    first = asked(question, answer, expect_picture(best), ("compare", ""), many=kind)
    return _Compared(drawn=drawn, first=first)


def _crowd(rng: Random, sheet: Sheet, kind: str, count: int) -> Drawn:
    """So many of a kind, with a few others among them."""
    ground = draw_ground(rng, sheet.width, sheet.height)
    colour, needs_rim = pick_colour(rng, ground)
    looks = [(kind, colour, needs_rim)] * count
    if rng.random() < 0.5 or not count:
        other = rng.choice([name for name in SHAPE_NAMES if name != kind])
        look = pick_colour(rng, ground)
        looks += [(other, *look)] * rng.randint(1, 3)
    rng.shuffle(looks)
    items = scatter(rng, sheet, looks)
    paint_all(ground, items)
    return Drawn(image=ground.image, items=items, ground_colour=ground.colour)


def _shows(rng: Random, sheets: list[Sheet]) -> _Compared:
    """A shape that stands in one picture alone; the others show its colour or its kind at most."""
    while True:
        drawn = tuple(_few(rng, sheet) for sheet in sheets)
        shown = rng.randrange(len(drawn))
        if not drawn[shown].items:
            continue
        item = rng.choice(drawn[shown].items)
        elsewhere = [o for k, other in enumerate(drawn) if k != shown for o in other.items]
        noun = item.kind if rng.random() < 0.4 else item.noun
        if not any(noun in (other.kind, other.noun) for other in elsewhere):
            break
    name = f"Image{shown + 1}"
    the = rng.choice(("the", a(noun).split()[0]))
    verb = rng.choice(("shows", "shows", "has", "contains"))
    question = _which(rng, f"{verb} {the} {noun}")
    if rng.random() < 0.2:
        question = rng.choice((f"Where is the {noun}?", f"In which picture is the {noun}?"))
    answer = f"{name} shows the {noun}."
    first = asked(question, answer, expect_picture(shown + 1), ("compare", ""), one=item)
    return _Compared(drawn=drawn, first=first)


def _few(rng: Random, sheet: Sheet) -> Drawn:
    ground = draw_ground(rng, sheet.width, sheet.height)
    kinds = rng.sample(SHAPE_NAMES, rng.choice((1, 1, 2, 3)))
    items = set_in_cells(rng, sheet, ground, kinds)
    paint_all(ground, items)
    return Drawn(image=ground.image, items=items, ground_colour=ground.colour)


def _both(rng: Random, sheets: list[Sheet]) -> _Compared:
    """Whether two pictures show the same shape."""
    while True:
        drawn = tuple(_few(rng, sheet) for sheet in sheets[:2])
        kinds = [{item.kind for item in picture.items} for picture in drawn]
        shared, single = kinds[0] & kinds[1], kinds[0] ^ kinds[1]
        pool = shared if rng.random() < 0.5 else single
        if pool:
            break
    kind = rng.choice(sorted(pool))
    noun = a(kind)
    question = rng.choice(
        (f"Do both images show {noun}?", f"Is there {noun} in both pictures?",
         f"Do both pictures have {noun}?", f"Can you see {noun} in both images?")
    )  # fmt: skip
    if pool is shared:
        answer = f"Yes, both images show {noun}."
        expectation = Expectation(said=(("yes", "both images show", "both"),),
                                  rivals=frozenset(("no", "not", "only")))  # fmt: skip
    else:
        only = 1 if kind in kinds[0] else 2
        answer = f"No, only Image{only} shows {noun}."
        expectation = expect_picture(only)
    first = asked(question, answer, expectation, ("compare", ""))
    return _Compared(drawn=drawn, first=first)


def _larger(rng: Random, sheets: list[Sheet]) -> _Compared:
    """The same shape, in one of two pictures half as large again at least."""
    kind = rng.choice(SHAPE_NAMES)
    sheets = [sheets[0]] * 2
    sheet = sheets[0]
    low = 1.05 * least_radius(sheet)
    small = rng.uniform(low, max(low, 0.24 * sheet.shorter))
    large = min(0.46 * sheet.shorter, small * rng.uniform(1.6, 3.0))
    radii = [small, large]
    rng.shuffle(radii)
    drawn = tuple(_one(rng, sheet, kind, radius) for radius in radii)
    is_larger = rng.random() < 0.65
    best = radii.index(large if is_larger else small) + 1
    degree = "larger" if is_larger else "smaller"
    said = rng.choice(("larger", "bigger")) if is_larger else "smaller"
    question = rng.choice((_which(rng, f"shows the {said} {kind}"),
                           _which(rng, f"has the {said} {kind}"),
                           f"In which picture is the {kind} {said}?",
                           f"Where is the {kind} {said}?"))  # fmt: skip
    answer = f"Image{best} has the {degree} {kind}."
    first = asked(question, answer, expect_picture(best), ("compare", ""))
    return _Compared(drawn=drawn, first=first)


def _one(rng: Random, sheet: Sheet, kind: str, radius: float) -> Drawn:
    ground = draw_ground(rng, sheet.width, sheet.height)
    (item,) = scatter(rng, sheet, [(kind, *pick_colour(rng, ground))])
    x = rng.uniform(radius + 1, sheet.width - radius - 1)
    y = rng.uniform(radius + 1, sheet.height - radius - 1)
    items: tuple[Item, ...] = (replace(item, x=x, y=y, radius=radius),)
    paint_all(ground, items)
    return Drawn(image=ground.image, items=items, ground_colour=ground.colour)


def _numbers(rng: Random, sheets: list[Sheet]) -> _Compared:
    digits = rng.choice((1, 1, 2))
    numbers = rng.sample(range(10 ** (digits - 1), 10**digits), k=len(sheets))
    drawn = tuple(
        _print(rng, sheet, "number", str(n)) for sheet, n in zip(sheets, numbers, strict=True)
    )
    is_larger = rng.random() < 0.7
    best = numbers.index(max(numbers) if is_larger else min(numbers)) + 1
    ending = "est" if len(sheets) > 2 else "er"
    degree = f"{'large' if is_larger else 'small'}{ending}".replace("ee", "e")
    question = _which(rng, rng.choice((f"has the {degree} number", f"shows the {degree} number")))
    answer = f"Image{best} has the {degree} number."
    first = asked(question, answer, expect_picture(best), ("compare", ""))
    return _Compared(drawn=drawn, first=first)


def _word(rng: Random, sheets: list[Sheet]) -> _Compared:
    drawn = tuple(_print(rng, s, "word", fitting_word(rng, s, words())) for s in sheets)
    texts = [picture.printed.text for picture in drawn if picture.printed]
    shown = rng.randrange(len(drawn))
    if texts.count(texts[shown]) > 1:
        return _word(rng, sheets)
    word = texts[shown]
    question = rng.choice((_which(rng, f'shows the word "{word}"'), _which(rng, f'says "{word}"'),
                           f'Where is the word "{word}"?',
                           f'In which picture do you read "{word}"?'))  # fmt: skip
    answer = f'Image{shown + 1} shows the word "{word}".'
    first = asked(question, answer, expect_picture(shown + 1), ("compare", ""))
    return _Compared(drawn=drawn, first=first)


def _print(rng: Random, sheet: Sheet, kind: str, text: str) -> Drawn:
    while True:
        drawn = draw_print(rng, sheet, kind, text)
        if drawn:
            return drawn


_FORMS: tuple[Callable[[Random, list[Sheet]], _Compared], ...] = (
    _more, _shows, _both, _larger, _numbers, _word,
)  # fmt: skip
_WEIGHTS = (36, 26, 8, 12, 8, 10)


def _turns(rng: Random, compared: _Compared) -> tuple[Turn, ...]:
    """The comparison, and up to two questions about one of the pictures."""
    turns, keys = [compared.first.turn], {compared.first.key}
    wished = rng.choices((1, 2, 3), (15, 40, 45))[0]
    for _ in range(8):
        if len(turns) >= wished:
            break
        at = rng.randrange(len(compared.drawn))
        more = _about_one(rng, compared.drawn[at], f"Image{at + 1}", compared.first.many)
        if more and more.key not in keys:
            turns.append(more.turn)
            keys.add(more.key)
    return shortened(turns)


def _about_one(rng: Random, drawn: Drawn, name: str, kind: str) -> Asked | None:
    if drawn.printed:
        printed = drawn.printed
        text = printed.text if printed.kind == "number" else f'"{printed.text}"'
        question = f"What {printed.kind} is in {name}?"
        answer = f"The {printed.kind} in {name} is {text}."
        return asked(question, answer, expect_verbatim(printed.text), (name, ""))
    if kind:
        count = len(drawn.of_kind(kind))
        question = f"How many {plural(kind)} are in {name}?"
        answer = f"{name} has {counted(count, kind)}."
        return asked(question, answer, expect_count(count), (name, kind))
    lone = lone_items(drawn)
    if not lone:
        return None
    item = rng.choice(lone)
    if rng.random() < 0.6:
        question = f"What {rng.choice(('colour', 'color'))} is the {item.kind} in {name}?"
        answer = f"The {item.kind} in {name} is {item.colour.name}."
        return asked(question, answer, expect_colour(item.colour.name), (name, item.kind))
    if len(drawn.items) > 1:
        return None
    question = f"What shape is in {name}?"
    answer = f"The shape in {name} is {a(item.kind)}."
    return asked(question, answer, expect_shape(item.kind), (name, ""))
