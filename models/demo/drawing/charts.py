"""Bar and line charts with labels and values."""

from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw, ImageFont

from models.demo.drawing.asking import Asked, asked
from models.demo.drawing.assets import faces
from models.demo.drawing.colours import VIVID, Rgb, from_hsv, shade
from models.demo.drawing.conversation import shortened
from models.demo.drawing.example import Example
from models.demo.drawing.judging import (
    expect_colour,
    expect_count,
    expect_number,
    expect_phrase,
)
from models.demo.drawing.phrases import counted, listed
from models.demo.drawing.sizes import SINGLE_HD_NUM, TILE_SIZE, Sheet
from models.demo.drawing.wear import worn

# Labels of one chart belong together.
_LABELS = (
    ("tea", "milk", "coffee", "juice", "water", "wine"),
    ("cats", "dogs", "birds", "fish", "cows", "bees"),
    ("north", "south", "east", "west"),
    ("spring", "summer", "autumn", "winter"),
    ("May", "June", "July", "March", "April"),
    ("car", "bus", "train", "bike", "boat", "plane"),
    ("apple", "pear", "plum", "grape", "lemon", "peach"),
    ("A", "B", "C", "D", "E", "F"),
    ("Rome", "Paris", "London", "Berlin", "Tokyo"),
)
# How a line may go, and the word of it that an answer is judged by.
_HEARD = {"goes up": "upwards", "goes down": "downwards", "stays level": "level"}
_TEXT_SIZE = 25  # in the model's pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bars:
    labels: tuple[str, ...]
    values: tuple[int, ...]


def draw_chart(rng: Random) -> Example:
    sheet = _chart_sheet(rng)
    font = rng.choice(faces()).at(_TEXT_SIZE / sheet.scale)
    paper, ink = _paper(rng)
    image = Image.new("RGB", (sheet.width, sheet.height), paper)
    if rng.random() < 0.7:
        return _bar_chart(rng, sheet, image, font, ink)
    return _line_chart(rng, sheet, image, ink)


def _chart_sheet(rng: Random) -> Sheet:
    """Always of 2 x 2 tiles: labels need the room."""
    width, height = rng.randint(320, 460), rng.randint(240, 340)
    assert width > TILE_SIZE and SINGLE_HD_NUM == 4
    return Sheet(width=width, height=height, scale=2 * TILE_SIZE / width)


def _paper(rng: Random) -> tuple[Rgb, Rgb]:
    hue = rng.uniform(0, 360)
    if rng.random() < 0.85:
        return from_hsv(hue, rng.uniform(0, 8), rng.uniform(94, 100)), from_hsv(hue, 20, 12)
    return from_hsv(hue, 30, 14), from_hsv(hue, 4, 96)


def _bar_chart(
    rng: Random, sheet: Sheet, image: Image.Image, font: ImageFont.FreeTypeFont, ink: Rgb
) -> Example:
    number = rng.randint(2, 4)
    labels = _short(rng, number)
    values = rng.sample(range(1, 21 if rng.random() < 0.6 else 60), number)
    while not _is_plain(values):
        values = rng.sample(range(1, 21), number)
    draw = ImageDraw.Draw(image)
    line = font.getbbox("Ag")[3] + 4
    base, top, left = sheet.height - line - 6, line + 8, 12
    step = (sheet.width - 2 * left) / number
    thick = step * rng.uniform(0.45, 0.8)
    one_colour = shade(rng, rng.choice(VIVID)) if rng.random() < 0.5 else None
    names = rng.sample(VIVID, number)
    for k, (label, value) in enumerate(zip(labels, values, strict=True)):
        middle = left + (k + 0.5) * step
        high = base - (base - top) * value / max(values)
        colour = one_colour or shade(rng, names[k])
        draw.rectangle((middle - thick / 2, high, middle + thick / 2, base), fill=colour.rgb)
        draw.text((middle, base + 2), label, font=font, fill=ink, anchor="ma")
        draw.text((middle, high - 3), str(value), font=font, fill=ink, anchor="mb")
    draw.line((left - 4, base, sheet.width - left + 4, base), fill=ink, width=2)
    bars = _Bars(labels=tuple(labels), values=tuple(values))
    told = "; ".join(f"{name} {value}" for name, value in zip(labels, values, strict=True))
    askers = [_ask_extreme, _ask_value, _ask_number, _ask_labels]
    first, *more = rng.sample(askers, rng.choice((1, 2, 3, 3)))
    turns = [first(rng, bars).turn, *(asker(rng, bars).turn for asker in more)]
    return Example(
        task="chart", pictures=(worn(rng, image),), caption=f"bar chart; {told}",
        turns=shortened(turns),
    )  # fmt: skip


def _is_plain(values: list[int]) -> bool:
    """Whether the highest and the lowest are so by more than a pixel or two."""
    ordered = sorted(values)
    return ordered[-1] >= 1.12 * ordered[-2] and ordered[0] <= 0.9 * ordered[1]


def _short(rng: Random, number: int) -> list[str]:
    """Labels that stand side by side without touching."""
    while True:
        family = [name for name in rng.choice(_LABELS) if len(name) <= (8, 7, 6, 5, 4)[number - 1]]
        if len(family) >= number:
            return rng.sample(family, number)


def _ask_extreme(rng: Random, bars: _Bars) -> Asked:
    is_highest = rng.random() < 0.65
    best = bars.labels[bars.values.index((max if is_highest else min)(bars.values))]
    degree = "highest" if is_highest else "lowest"
    said = rng.choice(("highest", "tallest", "longest") if is_highest else ("lowest", "shortest"))
    question = rng.choice((f"Which bar is the {said}?", f"What is the {said} bar?",
                           f"Which bar is {said} in the chart?",
                           f"Name the {said} bar."))  # fmt: skip
    expectation = expect_phrase(best.lower(), rivals=tuple(name.lower() for name in bars.labels))
    return asked(question, f"The {degree} bar is {best}.", expectation, ("extreme", ""))


def _ask_value(rng: Random, bars: _Bars) -> Asked:
    at = rng.randrange(len(bars.labels))
    name, value = bars.labels[at], bars.values[at]
    question = rng.choice((f"What is the value of {name}?", f"What value has {name}?",
                           f"How much is {name}?", f"What number is above {name}?",
                           f"What does the chart say for {name}?"))  # fmt: skip
    rivals = tuple(str(other) for other in bars.values)
    expectation = expect_number(value, rivals=rivals)
    return asked(question, f"The value of {name} is {value}.", expectation, ("value", name))


def _ask_number(rng: Random, bars: _Bars) -> Asked:
    number = len(bars.labels)
    question = rng.choice(("How many bars are there?", "How many bars does the chart have?",
                           "Count the bars.", "How many bars do you see?"))  # fmt: skip
    return asked(question, f"There are {counted(number, 'bar')}.", expect_count(number), ("n", ""))


def _ask_labels(rng: Random, bars: _Bars) -> Asked:
    question = rng.choice(("What are the bars called?", "What are the labels?",
                           "Which bars are there?", "What does the chart show?"))  # fmt: skip
    return asked(question, f"The chart shows {listed(list(bars.labels))}.", None, ("labels", ""))


def _line_chart(rng: Random, sheet: Sheet, image: Image.Image, ink: Rgb) -> Example:
    """One line that goes up, down, or stays where it is, wavering a little."""
    way = rng.choice(tuple(_HEARD))
    number = rng.randint(4, 9)
    slope = {"goes up": 1.0, "goes down": -1.0, "stays level": 0.0}[way] * rng.uniform(0.5, 0.9)
    middle = rng.uniform(0.35, 0.65) if not slope else 0.5
    heights = [
        middle + slope * (k / (number - 1) - 0.5) + rng.uniform(-0.05, 0.05) for k in range(number)
    ]
    draw = ImageDraw.Draw(image)
    left, right, top, base = 28, sheet.width - 16, 16, sheet.height - 24
    draw.line((left, top, left, base, right, base), fill=ink, width=2)
    points = [
        (left + 8 + (right - left - 16) * k / (number - 1), base - (base - top) * height)
        for k, height in enumerate(heights)
    ]
    name = rng.choice(VIVID)
    colour = shade(rng, name)
    draw.line(points, fill=colour.rgb, width=rng.randint(3, 6), joint="curve")
    if rng.random() < 0.6:
        for x, y in points:
            draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour.rgb)
    question = rng.choice(("Does the line go up or down?", "How does the line go?",
                           "What does the line do?", "Where does the line go?",
                           "Is the line rising or falling?", "What is the trend?"))  # fmt: skip
    heard = expect_phrase(_HEARD[way], rivals=tuple(_HEARD.values()))
    turns = [
        asked(question, f"The line {way}.", heard, ("way", "")).turn,
        asked(
            f"What {rng.choice(('colour', 'color'))} is the line?", f"The line is {name}.",
            expect_colour(name), ("colour", ""),
        ).turn,
    ]  # fmt: skip
    return Example(
        task="chart", pictures=(worn(rng, image),), caption=f"line chart; {name} line {way}",
        turns=tuple(turns[: rng.choice((1, 2, 2))]),
    )  # fmt: skip
