"""Printed words, numbers and lines: in many fonts, on signs or straight on the ground.

Letters are never smaller than the model can read once the picture is cut into tiles.
"""

import math
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw, ImageFont

from models.demo.drawing.assets import faces
from models.demo.drawing.backgrounds import Ground
from models.demo.drawing.colours import (
    Colour,
    Rgb,
    apart,
    brightness,
    contrast_to,
    shade,
)
from models.demo.drawing.judging import COLOUR_NAMES
from models.demo.drawing.sizes import Sheet

Box = tuple[float, float, float, float]  # left, top, right, bottom

_LEAST_SIZE = 25.0  # of a font, in the model's pixels: letters of 13 to 18
_TRIAL_SIZE = 40
_LEAST_CONTRAST = 250.0  # `colours.apart` of letters and what lies behind them
_LEAST_BRIGHTNESS_STEP = 85.0
_PANEL_LOOKALIKES = {
    "box": ("rectangle", "square"),
    "rounded": ("rectangle", "square"),
    "oval": ("oval", "circle"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """Letters on a picture: as read (lower case), what they are, and where.

    `kind` is word, number or line; `lookalikes` the shapes that the sign behind them resembles;
    `glyphs` the characters, spaces left out, with their boxes.
    """

    text: str
    kind: str
    colour: Colour
    box: Box
    lookalikes: frozenset[str] = frozenset()
    glyphs: tuple[tuple[str, Box], ...] = ()


def longest_word(sheet: Sheet, width: float) -> int:
    """About how many letters fit into a width at the least size."""
    return int(0.9 * width * sheet.scale / (0.62 * _LEAST_SIZE))


def print_text(
    rng: Random, ground: Ground, sheet: Sheet, *, text: str, kind: str, zone: Box
) -> Printed | None:
    """Set the text somewhere in the zone; None if it does not fit there at a legible size."""
    lines = _cased(rng, text if kind == "line" else text.lower(), kind)
    least = _LEAST_SIZE / sheet.scale
    room = (zone[2] - zone[0], zone[3] - zone[1])
    face = rng.choice(faces())
    width, height = _extent(face.at(_TRIAL_SIZE), lines)
    share = min(0.9 * room[0] / width, 0.86 * room[1] / height)
    largest = min(_TRIAL_SIZE * share, 0.5 * sheet.shorter)
    if largest < least:
        return None
    mask, glyphs = letters(face.at(least * (largest / least) ** rng.random()), lines)
    if rng.random() < 0.25:
        angle = rng.uniform(-9, 9)
        turned = mask.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        if turned.width <= room[0] and turned.height <= room[1]:
            glyphs = _turned(glyphs, angle, mask.size, turned.size)
            mask = turned
    left = zone[0] + rng.uniform(0, max(0.0, room[0] - mask.width))
    top = zone[1] + rng.uniform(0, max(0.0, room[1] - mask.height))
    box = (left, top, left + mask.width, top + mask.height)
    panel, behind, lookalikes = _panel(rng, ground, sheet, box)
    colour = _ink(rng, behind, ground.colour if not panel else "")
    corner = (round(left), round(top))
    where = (*corner, corner[0] + mask.width, corner[1] + mask.height)
    if not panel and ground.is_photograph:
        # A halo keeps letters legible where the photograph happens to have their brightness.
        halo = mask.point(lambda value: min(255, 2 * value))
        for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            moved = (where[0] + dx, where[1] + dy, where[2] + dx, where[3] + dy)
            ground.image.paste(contrast_to(colour.rgb), moved, halo)
    ground.image.paste(colour.rgb, where, mask)
    return Printed(
        text=text.lower(), kind=kind, colour=colour, box=panel or box, lookalikes=lookalikes,
        glyphs=tuple(
            (character, (corner[0] + a, corner[1] + b, corner[0] + c, corner[1] + d))
            for character, (a, b, c, d) in glyphs
        ),
    )  # fmt: skip


def _cased(rng: Random, text: str, kind: str) -> list[str]:
    """The lines to be set, in lower, Title or UPPER case; a line of words may be broken in two."""
    case = rng.random()
    if case < 0.34:
        text = text.upper()
    elif case < 0.67:
        text = text.capitalize()
    parts = text.split()
    if kind == "line" and len(parts) > 1 and rng.random() < 0.5:
        at = rng.randint(1, len(parts) - 1)
        return [" ".join(parts[:at]), " ".join(parts[at:])]
    return [text]


def _extent(font: ImageFont.FreeTypeFont, lines: list[str]) -> tuple[float, float]:
    boxes = [font.getbbox(line) for line in lines]
    return max(box[2] - box[0] for box in boxes), _line_height(font) * len(lines)


def _line_height(font: ImageFont.FreeTypeFont) -> float:
    ascent, descent = font.getmetrics()
    return float(ascent + descent)


def letters(
    font: ImageFont.FreeTypeFont, lines: list[str]
) -> tuple[Image.Image, list[tuple[str, Box]]]:
    """The lines as coverage, cut to their ink and a pixel around it; and each character's box."""
    boxes = [font.getbbox(line) for line in lines]
    step = _line_height(font)
    top = boxes[0][1]
    width = max(box[2] - box[0] for box in boxes)
    height = step * (len(lines) - 1) + boxes[-1][3] - top
    mask = Image.new("L", (round(width) + 2, round(height) + 2))
    draw = ImageDraw.Draw(mask)
    glyphs: list[tuple[str, Box]] = []
    for index, (line, box) in enumerate(zip(lines, boxes, strict=True)):
        x = 1 - box[0] + (width - (box[2] - box[0])) / 2
        y = 1 - top + index * step
        draw.text((x, y), line, font=font, fill=255)
        ends = [font.getlength(line[:count]) for count in range(len(line) + 1)]
        glyphs += [
            (character.lower(), (x + begin, y + box[1], x + end, y + box[3]))
            for character, begin, end in zip(line, ends, ends[1:], strict=False)
            if character != " "
        ]
    return mask, glyphs


def _turned(
    glyphs: list[tuple[str, Box]], angle: float, before: tuple[int, int], after: tuple[int, int]
) -> list[tuple[str, Box]]:
    """The boxes, their own sides still upright, after the mask was turned about its middle."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    turned = []
    for character, (left, top, right, bottom) in glyphs:
        dx, dy = (left + right - before[0]) / 2, (top + bottom - before[1]) / 2
        x, y = after[0] / 2 + dx * cos + dy * sin, after[1] / 2 - dx * sin + dy * cos
        half, tall = (right - left) / 2, (bottom - top) / 2
        turned.append((character, (x - half, y - tall, x + half, y + tall)))
    return turned


def _panel(
    rng: Random, ground: Ground, sheet: Sheet, box: Box
) -> tuple[Box | None, tuple[Rgb, ...], frozenset[str]]:
    """Perhaps a sign behind the box: its box, the colours behind the letters, its lookalikes."""
    if rng.random() > (0.7 if ground.is_photograph else 0.3):
        return None, ground.tones, frozenset()
    form = rng.choice(("box", "rounded", "rounded", "oval"))
    margin = rng.uniform(0.15, 0.4) * (box[3] - box[1])
    wide = margin + (0.2 * (box[2] - box[0]) if form == "oval" else 0)
    high = margin + (0.2 * (box[3] - box[1]) if form == "oval" else 0)
    panel = (
        max(1.0, box[0] - wide), max(1.0, box[1] - high),
        min(sheet.width - 2.0, box[2] + wide), min(sheet.height - 2.0, box[3] + high),
    )  # fmt: skip
    if form == "oval" and (panel[2] - panel[0] < 1.3 * (box[2] - box[0])):
        form = "box"  # no room for one around the letters
    fill = shade(rng, rng.choice(("white", "white", "yellow", "black", *COLOUR_NAMES))).rgb
    draw = ImageDraw.Draw(ground.image)
    edge = contrast_to(fill) if rng.random() < 0.4 else None
    width = max(1, round(1.5 / sheet.scale)) if edge else 0
    if form == "oval":
        draw.ellipse(panel, fill=fill, outline=edge, width=width)
    elif form == "rounded":
        draw.rounded_rectangle(panel, radius=margin, fill=fill, outline=edge, width=width)
    else:
        draw.rectangle(panel, fill=fill, outline=edge, width=width)
    return panel, (fill,), frozenset(_PANEL_LOOKALIKES[form])


def _ink(rng: Random, behind: tuple[Rgb, ...], avoided: str) -> Colour:
    """A colour that is easily read on all of the colours behind it; mostly dark on light."""
    for _ in range(5):
        name = rng.choice(("black", "white", *COLOUR_NAMES))
        colour = shade(rng, name)
        if name != avoided and all(
            apart(colour.rgb, rgb) >= _LEAST_CONTRAST
            and abs(brightness(colour.rgb) - brightness(rgb)) >= _LEAST_BRIGHTNESS_STEP
            for rgb in behind
        ):
            return colour
    mean = sum(brightness(rgb) for rgb in behind) / len(behind)
    return shade(rng, "black" if mean > 127 else "white")
