"""Simple scenes: ground and sky, and a few things on them, told in a sentence."""

from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw

from models.demo.drawing.asking import Asked, asked
from models.demo.drawing.colours import Rgb, from_hsv, shade
from models.demo.drawing.conversation import shortened
from models.demo.drawing.example import Example
from models.demo.drawing.judging import expect_colour, expect_phrase, expect_yes_or_no
from models.demo.drawing.phrases import a, listed, worded
from models.demo.drawing.sizes import Sheet, single_sheet
from models.demo.drawing.wear import worn

_SUPERSAMPLING = 2
_TRUNK: Rgb = (106, 70, 40)
_GLASS: Rgb = (196, 226, 240)
_SKIN: Rgb = (236, 188, 150)
_DARK: Rgb = (34, 34, 38)


class _Brush:
    """Draws in a box that a thing fills, in shares of its width and height from its top left."""

    def __init__(self, draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float]) -> None:
        self._draw = draw
        self._box = box

    def polygon(self, *points: tuple[float, float], fill: Rgb) -> None:
        self._draw.polygon([self._at(x, y) for x, y in points], fill=fill)

    def box(self, left: float, top: float, right: float, bottom: float, fill: Rgb) -> None:
        self._draw.rectangle((*self._at(left, top), *self._at(right, bottom)), fill=fill)

    def oval(self, left: float, top: float, right: float, bottom: float, fill: Rgb) -> None:
        self._draw.ellipse((*self._at(left, top), *self._at(right, bottom)), fill=fill)

    def line(self, *points: tuple[float, float], fill: Rgb, share: float) -> None:
        """`share`: the line's width as a share of the box's."""
        width = max(2, round(share * (self._box[2] - self._box[0])))
        self._draw.line([self._at(x, y) for x, y in points], fill=fill, width=width)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        left, top, right, bottom = self._box
        return left + x * (right - left), top + y * (bottom - top)


def _house(brush: _Brush, rgb: Rgb) -> None:
    brush.box(0.1, 0.42, 0.9, 1, rgb)
    brush.polygon((0, 0.45), (0.5, 0), (1, 0.45), fill=(92, 58, 50))
    brush.box(0.42, 0.66, 0.6, 1, _TRUNK)
    brush.box(0.18, 0.54, 0.34, 0.7, _GLASS)
    brush.box(0.68, 0.54, 0.84, 0.7, _GLASS)


def _tree(brush: _Brush, rgb: Rgb) -> None:
    brush.box(0.42, 0.5, 0.58, 1, _TRUNK)
    brush.oval(0.12, 0.18, 0.62, 0.66, rgb)
    brush.oval(0.4, 0.2, 0.9, 0.68, rgb)
    brush.oval(0.22, 0, 0.8, 0.5, rgb)


def _car(brush: _Brush, rgb: Rgb) -> None:
    brush.polygon((0.2, 0.45), (0.32, 0.1), (0.7, 0.1), (0.84, 0.45), fill=rgb)
    brush.polygon((0.28, 0.42), (0.36, 0.18), (0.48, 0.18), (0.48, 0.42), fill=_GLASS)
    brush.polygon((0.53, 0.42), (0.53, 0.18), (0.67, 0.18), (0.75, 0.42), fill=_GLASS)
    brush.box(0, 0.42, 1, 0.8, rgb)
    for x in (0.12, 0.66):
        brush.oval(x, 0.62, x + 0.22, 1, _DARK)


def _person(brush: _Brush, rgb: Rgb) -> None:
    brush.line((0.42, 0.6), (0.32, 1), fill=_DARK, share=0.16)
    brush.line((0.58, 0.6), (0.68, 1), fill=_DARK, share=0.16)
    brush.line((0.3, 0.34), (0.06, 0.56), fill=_SKIN, share=0.12)
    brush.line((0.7, 0.34), (0.94, 0.56), fill=_SKIN, share=0.12)
    brush.polygon((0.26, 0.28), (0.74, 0.28), (0.7, 0.66), (0.3, 0.66), fill=rgb)
    brush.oval(0.32, 0, 0.68, 0.27, _SKIN)


def _boat(brush: _Brush, rgb: Rgb) -> None:
    brush.box(0.47, 0, 0.52, 0.72, _TRUNK)
    brush.polygon((0.55, 0.04), (0.95, 0.6), (0.55, 0.6), fill=(246, 244, 236))
    brush.polygon((0.44, 0.12), (0.44, 0.6), (0.12, 0.6), fill=(246, 244, 236))
    brush.polygon((0, 0.68), (1, 0.68), (0.8, 1), (0.18, 1), fill=rgb)


def _flower(brush: _Brush, rgb: Rgb) -> None:
    green = (52, 128, 48)
    brush.line((0.5, 0.4), (0.5, 1), fill=green, share=0.1)
    brush.oval(0.5, 0.66, 0.86, 0.8, green)
    for x, y in ((0.5, 0.12), (0.74, 0.26), (0.66, 0.46), (0.34, 0.46), (0.26, 0.26)):
        brush.oval(x - 0.21, y - 0.13, x + 0.21, y + 0.13, rgb)
    centre = (250, 214, 60) if rgb[2] > 100 or rgb[1] < 120 else (120, 70, 30)
    brush.oval(0.36, 0.22, 0.64, 0.4, centre)


def _ball(brush: _Brush, rgb: Rgb) -> None:
    brush.oval(0, 0, 1, 1, rgb)
    brush.oval(0.2, 0.14, 0.42, 0.34, (255, 255, 255))


def _fish(brush: _Brush, rgb: Rgb) -> None:
    brush.polygon((0.62, 0.5), (1, 0.12), (1, 0.88), fill=rgb)
    brush.oval(0, 0.1, 0.78, 0.9, rgb)
    brush.oval(0.13, 0.32, 0.25, 0.52, (255, 255, 255))
    brush.oval(0.16, 0.36, 0.22, 0.48, _DARK)


Painter = Callable[[_Brush, Rgb], None]
# What stands on the ground: painter, width over height, height in shares of the picture's shorter
# side, and the colours it may have.
_THINGS: dict[str, tuple[Painter, float, float, tuple[str, ...]]] = {
    "house": (_house, 1.0, 0.42, ("red", "yellow", "white", "pink", "blue", "orange", "grey")),
    "tree": (_tree, 0.8, 0.46, ("green", "orange", "red", "yellow", "pink")),
    "car": (_car, 2.0, 0.2, ("red", "blue", "yellow", "black", "white", "purple", "orange")),
    "person": (_person, 0.5, 0.36, ("red", "blue", "yellow", "purple", "orange", "pink", "white")),
    "flower": (_flower, 0.55, 0.3, ("red", "yellow", "pink", "purple", "white", "orange", "blue")),
    "ball": (_ball, 1.0, 0.17, ("red", "blue", "yellow", "purple", "orange", "pink", "black")),
}
_ON_WATER: dict[str, tuple[Painter, float, float, tuple[str, ...]]] = {
    "boat": (_boat, 1.1, 0.42, ("red", "green", "yellow", "black", "brown", "orange")),
    "fish": (_fish, 1.7, 0.18, ("red", "orange", "yellow", "pink", "white", "black")),
}
_SKY_OBJECTS = ("sun", "cloud", "moon", "bird")
_NOUNS = (*_THINGS, *_ON_WATER, *_SKY_OBJECTS)


def draw_scene(rng: Random) -> Example:
    sheet = single_sheet(rng, least=170)
    width, height = _SUPERSAMPLING * sheet.width, _SUPERSAMPLING * sheet.height
    is_night = rng.random() < 0.25
    at_sea = rng.random() < 0.25
    sky = _sky(rng, is_night=is_night)
    image = Image.new("RGB", (width, height), sky)
    draw = ImageDraw.Draw(image)
    horizon = height * rng.uniform(0.55, 0.7)
    draw.rectangle((0, horizon, width, height), fill=_ground(rng, at_sea=at_sea))
    if rng.random() < 0.35 and not at_sea:
        _hills(rng, draw, width, horizon)
    above = _draw_sky(rng, draw, width, horizon, sky, is_night=is_night)
    things = _draw_things(rng, draw, sheet, horizon, _ON_WATER if at_sea else _THINGS)
    drawn = image.reduce(_SUPERSAMPLING)
    return _example(rng, drawn, things, above, is_night=is_night, at_sea=at_sea)


def _sky(rng: Random, *, is_night: bool) -> Rgb:
    if is_night:
        return from_hsv(rng.uniform(220, 245), rng.uniform(40, 70), rng.uniform(14, 26))
    return from_hsv(rng.uniform(195, 212), rng.uniform(18, 48), rng.uniform(92, 100))


def _ground(rng: Random, *, at_sea: bool) -> Rgb:
    if at_sea:
        return from_hsv(rng.uniform(200, 215), rng.uniform(60, 75), rng.uniform(45, 65))
    hue, saturation, value = rng.choice(((100, 50, 62), (85, 45, 70), (42, 36, 84), (30, 12, 62)))
    return from_hsv(hue + rng.uniform(-6, 6), saturation, value + rng.uniform(-8, 8))


def _hills(rng: Random, draw: ImageDraw.ImageDraw, width: int, horizon: float) -> None:
    rgb = from_hsv(rng.uniform(100, 200), 24, rng.uniform(48, 66))
    for _ in range(rng.randint(1, 3)):
        x, half = rng.uniform(0, width), rng.uniform(0.15, 0.35) * width
        top = horizon - rng.uniform(0.3, 0.8) * half
        draw.polygon([(x - half, horizon), (x, top), (x + half, horizon)], fill=rgb)


def _draw_sky(
    rng: Random,
    draw: ImageDraw.ImageDraw,
    width: int,
    horizon: float,
    sky: Rgb,
    *,
    is_night: bool,
) -> list[str]:
    """Up to two things in the sky, from left to right."""
    pool = ["moon", "cloud"] if is_night else ["sun", "cloud", "bird"]
    names = rng.sample(pool, rng.choice((0, 1, 1, 2)))
    for k, name in enumerate(names):
        unit = min(0.24 * horizon, 0.11 * width)
        x = width * (k + rng.uniform(0.35, 0.65)) / len(names)
        y = rng.uniform(unit + 4, max(unit + 5, 0.42 * horizon))
        if name == "sun":
            draw.ellipse((x - unit, y - unit, x + unit, y + unit), fill=(252, 210, 40))
        elif name == "moon":
            draw.ellipse((x - unit, y - unit, x + unit, y + unit), fill=(240, 238, 214))
            bite = (x - 0.3 * unit, y - 1.1 * unit, x + 1.5 * unit, y + 0.7 * unit)
            draw.ellipse(bite, fill=sky)
        elif name == "cloud":
            fill = (120, 124, 140) if is_night else (250, 250, 252)
            for dx, dy, share in ((-0.9, 0.2, 0.6), (0, -0.1, 0.85), (0.95, 0.2, 0.6)):
                cx, cy, r = x + dx * unit, y + dy * unit, share * unit
                draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=fill)
        else:
            for side in (-1, 1):
                box = sorted((x, x + side * 1.2 * unit))
                draw.arc((box[0], y - 0.5 * unit, box[1], y + 0.7 * unit), 180, 360, fill=_DARK,
                         width=max(3, round(0.16 * unit)))  # fmt: skip
    return names


def _draw_things(
    rng: Random,
    draw: ImageDraw.ImageDraw,
    sheet: Sheet,
    horizon: float,
    pool: dict[str, tuple[Painter, float, float, tuple[str, ...]]],
) -> list[tuple[str, str]]:
    """Things with their colours, from left to right, each in its own column."""
    width, height = _SUPERSAMPLING * sheet.width, _SUPERSAMPLING * sheet.height
    most = min(len(pool), 3 if width > 0.9 * height else 2)
    things = []
    names = rng.sample(sorted(pool), rng.randint(1, most))
    column = width / len(names)
    for k, name in enumerate(names):
        painter, ratio, share, colours = pool[name]
        tall = share * min(width, height) * rng.uniform(0.9, 1.3)
        wide = min(ratio * tall, 0.9 * column)
        tall = wide / ratio
        left = k * column + rng.uniform(0, column - wide)
        base = rng.uniform(max(horizon + 0.06 * height, tall), max(height - 3.0, tall + 1))
        colour = shade(rng, rng.choice(colours))
        painter(_Brush(draw, (left, base - tall, left + wide, base)), colour.rgb)
        things.append((name, colour.name))
    return things


def _example(
    rng: Random,
    image: Image.Image,
    things: list[tuple[str, str]],
    sky: list[str],
    *,
    is_night: bool,
    at_sea: bool,
) -> Example:
    nouns = [a(f"{colour} {name}") if name != "person" else f"a person in {colour}"
             for name, colour in things]  # fmt: skip
    where = ("on the sea" if at_sea else "on the ground") + (" at night" if is_night else "")
    above = f" There is {listed([a(name) for name in sky])} in the sky." if sky else ""
    answer = f"The picture shows {listed(nouns)} {where}.{above}"
    time = "night" if is_night else "day"
    told = [f"{colour} {name}" for name, colour in things] + sky
    first = asked(worded(rng, "describe"), answer, None, ("describe", ""))
    makers: list[Callable[[], Asked]] = [
        lambda: _ask_colour(rng, things),
        lambda: _ask_time(rng, time),
        lambda: _ask_there(rng, [*(name for name, _ in things), *sky]),
    ]
    chosen = [maker().turn for maker in rng.sample(makers, rng.choice((1, 2, 2)))]
    has_first = rng.random() < 0.75
    return Example(
        task="scene",
        pictures=(worn(rng, image),),
        caption=f"scene; {'; '.join(told)}; {'sea' if at_sea else 'land'}; {time}",
        turns=shortened((first.turn, *chosen) if has_first else chosen),
    )


def _ask_colour(rng: Random, things: list[tuple[str, str]]) -> Asked:
    name, colour = rng.choice(things)
    noun = "person's shirt" if name == "person" else name
    return asked(
        worded(rng, "colour", x=noun), f"The {noun} is {colour}.", expect_colour(colour),
        ("colour", name),
    )  # fmt: skip


def _ask_time(rng: Random, time: str) -> Asked:
    question = rng.choice(("Is it day or night?", "Is it day or night in the picture?",
                           "What time of day is it?", "Is this at day or at night?"))  # fmt: skip
    return asked(
        question, f"It is {time}.", expect_phrase(time, rivals=("day", "night")), ("t", "")
    )


def _ask_there(rng: Random, present: list[str]) -> Asked:
    is_there = rng.random() < 0.5
    absent = [name for name in _NOUNS if name not in present]
    name = rng.choice(present if is_there else absent)
    answer = f"Yes, there is {a(name)}." if is_there else f"No, there is no {name}."
    question = worded(rng, "is there", a_x=a(name))
    return asked(question, answer, expect_yes_or_no(yes=is_there), ("there", name))
