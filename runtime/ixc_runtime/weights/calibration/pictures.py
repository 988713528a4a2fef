"""Pictures drawn here and now, with something true to say about each.

Calibration wants activations of all kinds of pixels more than works of art: flat colour and noise,
edges, gradients, print, a chart, a page. The same seed draws the same picture.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw

_COLOURS = {
    "red": (205, 40, 45),
    "green": (40, 150, 70),
    "blue": (45, 85, 200),
    "yellow": (235, 200, 50),
    "black": (25, 25, 30),
    "orange": (235, 130, 40),
}
_NUMBERS = ("no", "one", "two", "three", "four", "five")
_WORDS = ("house", "river", "garden", "bread", "summer", "stone", "light", "train", "music")


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnPicture:
    image: Image.Image
    question: str
    answer: str


def draw_picture(seed: int) -> DrawnPicture:
    """The kinds in turn, everything else by chance."""
    chance = random.Random(seed)
    kinds: tuple[Callable[[random.Random], DrawnPicture], ...] = (
        _one_shape, _several_shapes, _word, _chart, _sky, _page
    )  # fmt: skip
    return kinds[seed % len(kinds)](chance)


def _one_shape(chance: random.Random) -> DrawnPicture:
    image = _canvas(chance, 224, 224)
    colour, shape = chance.choice(list(_COLOURS)), chance.choice(("circle", "square", "triangle"))
    x, y, size = chance.randint(10, 110), chance.randint(10, 110), chance.randint(60, 100)
    _shape(ImageDraw.Draw(image), shape, (x, y, x + size, y + size), _COLOURS[colour])
    return DrawnPicture(
        image=image,
        question=f"What colour is the {shape}?",
        answer=f"The {shape} is {colour}.",
    )


def _several_shapes(chance: random.Random) -> DrawnPicture:
    image = _canvas(chance, 448, 300)
    count, shape = chance.randint(1, 5), chance.choice(("circle", "square", "triangle"))
    draw = ImageDraw.Draw(image)
    for index in range(count):
        x, y, size = 20 + 84 * index, chance.randint(20, 200), chance.randint(40, 70)
        colour = _COLOURS[chance.choice(list(_COLOURS))]
        _shape(draw, shape, (x, y, x + size, y + size), colour)
    plural = "" if count == 1 else "s"
    verb = "is" if count == 1 else "are"
    return DrawnPicture(
        image=image,
        question=f"How many {shape}s are there?",
        answer=f"There {verb} {_NUMBERS[count]} {shape}{plural}.",
    )


def _word(chance: random.Random) -> DrawnPicture:
    image, word = _canvas(chance, 300, 160), chance.choice(_WORDS)
    where = (chance.randint(10, 60), chance.randint(20, 70))
    ImageDraw.Draw(image).text(where, word, fill=(20, 20, 20), font_size=chance.randint(36, 56))
    return DrawnPicture(
        image=image, question="What does the picture say?", answer=f'The word is "{word}".'
    )


def _chart(chance: random.Random) -> DrawnPicture:
    image = Image.new("RGB", (400, 300), "white")
    draw = ImageDraw.Draw(image)
    colours = chance.sample(list(_COLOURS), 4)
    heights = chance.sample(range(40, 240, 20), 4)
    draw.line((30, 20, 30, 270, 390, 270), fill="black", width=2)
    for index, (colour, height) in enumerate(zip(colours, heights, strict=True)):
        left = 50 + 85 * index
        draw.rectangle((left, 270 - height, left + 55, 270), fill=_COLOURS[colour])
        draw.text((left, 275), colour, fill="black", font_size=14)
    highest = colours[heights.index(max(heights))]
    return DrawnPicture(
        image=image,
        question="Which bar is the highest?",
        answer=f"The {highest} bar is the highest.",
    )


def _sky(chance: random.Random) -> DrawnPicture:
    """A gradient with grain, as in photographs."""
    evening = chance.random() < 0.5
    top, bottom = ((40, 40, 90), (240, 150, 80)) if evening else ((80, 140, 225), (215, 235, 250))
    gradient = Image.linear_gradient("L").resize((360, 260))
    sky = Image.composite(
        Image.new("RGB", gradient.size, bottom), Image.new("RGB", gradient.size, top), gradient
    )
    grain = Image.frombytes("L", (120, 87), chance.randbytes(120 * 87)).resize(sky.size)
    image = Image.blend(sky, grain.convert("RGB"), 0.08)
    draw = ImageDraw.Draw(image)
    x = chance.randint(60, 260)
    draw.ellipse((x, 40, x + 50, 90), fill=(255, 240, 190))
    draw.polygon([(0, 260), (0, 200), (120, 150), (230, 215), (360, 170), (360, 260)], (45, 70, 50))
    time = "evening" if evening else "daytime"
    return DrawnPicture(
        image=image,
        question="What time of day is it?",
        answer=f"It is {time}: the sun stands above the hills.",
    )


def _page(chance: random.Random) -> DrawnPicture:
    image = Image.new("RGB", (320, 440), (250, 250, 246))
    draw = ImageDraw.Draw(image)
    title = chance.choice(_WORDS).capitalize()
    draw.rectangle((0, 0, 320, 60), fill=_COLOURS[chance.choice(list(_COLOURS))])
    draw.text((20, 14), title, fill="white", font_size=30)
    for line in range(14):
        words = " ".join(chance.choice(_WORDS) for _ in range(5))
        draw.text((20, 80 + 24 * line), words, fill=(60, 60, 60), font_size=14)
    return DrawnPicture(
        image=image,
        question="What is the title of the page?",
        answer=f'The title of the page is "{title}".',
    )


def _canvas(chance: random.Random, width: int, height: int) -> Image.Image:
    shade = tuple(chance.randint(215, 255) for _ in range(3))
    return Image.new("RGB", (width, height), shade)


def _shape(
    draw: ImageDraw.ImageDraw,
    shape: str,
    box: tuple[int, int, int, int],
    colour: tuple[int, int, int],
) -> None:
    left, top, right, bottom = box
    match shape:
        case "circle":
            draw.ellipse(box, fill=colour)
        case "square":
            draw.rectangle(box, fill=colour)
        case _:
            draw.polygon([((left + right) / 2, top), (left, bottom), (right, bottom)], fill=colour)
