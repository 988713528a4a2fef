"""What lies behind: plain colours, gradients, grain, stripes, photographs.

A background is kept so calm that nothing on it could be taken for a drawn shape.
"""

from dataclasses import dataclass
from random import Random

from PIL import Image, ImageChops, ImageDraw

from models.demo.drawing.assets import grain, photographs
from models.demo.drawing.colours import Rgb, from_hsv, mixed, shade
from models.demo.drawing.judging import COLOUR_NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The empty picture, some of its colours, and the name of its colour where it has one.

    `is_photograph`: it shows something of its own.
    """

    image: Image.Image
    tones: tuple[Rgb, ...]
    colour: str = ""
    is_photograph: bool = False


def draw_ground(rng: Random, width: int, height: int, *, calm: bool = False) -> Ground:
    """Any background. `calm`: no photograph and nothing that could disturb small print."""
    size = (width, height)
    kind = rng.random()
    if kind < (0.7 if calm else 0.38):
        return _plain(rng, size)
    if kind < (1.0 if calm else 0.52):
        return _gradient(rng, size)
    if kind < 0.6:
        return _grainy(rng, size)
    if kind < 0.69:
        return _striped(rng, size)
    return _photograph(rng, size)


def _plain(rng: Random, size: tuple[int, int]) -> Ground:
    """White, a named colour, or a tint or a dark tone that has no name."""
    kind = rng.random()
    if kind < 0.45:
        name = rng.choice(COLOUR_NAMES) if rng.random() < 0.6 else "white"
        colour = shade(rng, name)
        return Ground(image=Image.new("RGB", size, colour.rgb), tones=(colour.rgb,), colour=name)
    rgb = _tone(rng)
    return Ground(image=Image.new("RGB", size, rgb), tones=(rgb,))


def _tone(rng: Random) -> Rgb:
    hue = rng.uniform(0, 360)
    if rng.random() < 0.62:
        return from_hsv(hue, rng.uniform(3, 26), rng.uniform(82, 100))
    return from_hsv(hue, rng.uniform(10, 60), rng.uniform(10, 32))


def _gradient(rng: Random, size: tuple[int, int]) -> Ground:
    one = _tone(rng)
    other = mixed(one, _tone(rng), rng.uniform(0.3, 0.8))
    corners = Image.new("RGB", (2, 2), one)
    corners.putpixel((1, 1), other)
    corners.putpixel((0, 1), rng.choice((one, other)))
    # A margin keeps the corners from lying flat.
    image = corners.resize(size, Image.Resampling.BILINEAR, box=(0.3, 0.3, 1.7, 1.7))
    return Ground(image=image, tones=(one, mixed(one, other, 0.5), other))


def _grainy(rng: Random, size: tuple[int, int]) -> Ground:
    ground = _plain(rng, size)
    noise = _cut(rng, grain(), size)
    if rng.random() < 0.5:  # coarse grain
        small = (max(2, size[0] // 3), max(2, size[1] // 3))
        noise = _cut(rng, grain(), small).resize(size, Image.Resampling.BILINEAR)
    image = Image.blend(ground.image, noise, rng.uniform(0.06, 0.18))
    tones = tuple(mixed(tone, (128, 128, 128), 0.1) for tone in ground.tones)
    return Ground(image=image, tones=tones)


def _striped(rng: Random, size: tuple[int, int]) -> Ground:
    """Stripes or a grid in two tones that are near each other."""
    one = _tone(rng)
    other = mixed(one, (0, 0, 0) if sum(one) > 380 else (255, 255, 255), rng.uniform(0.07, 0.2))
    image = Image.new("RGB", size, one)
    draw = ImageDraw.Draw(image)
    step = rng.randint(max(6, min(size) // 16), max(9, min(size) // 5))
    thickness = rng.randint(1, max(2, step // 2))
    slant = rng.choice((0, 0, size[1], -size[1]))
    if rng.random() < 0.6 or slant:
        for x in range(-abs(slant), size[0] + abs(slant), step):
            draw.line((x, 0, x + slant, size[1]), fill=other, width=thickness)
    if not slant:
        for y in range(0, size[1], step):
            draw.line((0, y, size[0], y), fill=other, width=thickness)
    return Ground(image=image, tones=(one, other))


def _photograph(rng: Random, size: tuple[int, int]) -> Ground:
    """A piece of a photograph, flattened towards one tone so that drawn colours stay plain."""
    photograph = rng.choice(photographs())
    # Pieces smaller than the picture come out blurred, as distant backgrounds are.
    piece = rng.uniform(0.3, 1.0) * min(photograph.width / size[0], photograph.height / size[1])
    width, height = piece * size[0], piece * size[1]
    left = rng.uniform(0, photograph.width - width)
    top = rng.uniform(0, photograph.height - height)
    box = (left, top, left + width, top + height)
    image = photograph.resize(size, Image.Resampling.BILINEAR, box=box)
    if rng.random() < 0.3:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = Image.blend(image, Image.new("RGB", size, _tone(rng)), rng.uniform(0.3, 0.72))
    if rng.random() < 0.1:
        image = ImageChops.invert(image)
    samples = image.resize((4, 4), Image.Resampling.BOX, reducing_gap=1.0)
    pixels = samples.tobytes()
    tones = tuple((pixels[k], pixels[k + 1], pixels[k + 2]) for k in range(0, len(pixels), 3))
    return Ground(image=image, tones=tones, is_photograph=True)


def _cut(rng: Random, image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A piece of that size, from anywhere; larger ones are stretched."""
    width, height = min(size[0], image.width), min(size[1], image.height)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    piece = image.crop((left, top, left + width, top + height))
    return piece if piece.size == size else piece.resize(size)
