"""Named colours: where each name begins and ends, and how far two colours are apart.

The ranges leave gaps between neighbours, so nobody could call a colour by another name.
"""

import colorsys
from dataclasses import dataclass
from random import Random

Rgb = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Colour:
    """A colour and what it is called."""

    name: str
    rgb: Rgb


# Hue in degrees, saturation and value in percent: lowest and highest.
RANGES: dict[str, tuple[tuple[int, int], tuple[int, int], tuple[int, int]]] = {
    "red": ((-8, 6), (80, 100), (72, 100)),
    "orange": ((25, 34), (88, 100), (92, 100)),
    "yellow": ((51, 59), (75, 100), (92, 100)),
    "green": ((105, 145), (60, 100), (42, 82)),
    "blue": ((212, 238), (75, 100), (62, 100)),
    "purple": ((272, 288), (60, 90), (45, 74)),
    "pink": ((325, 345), (28, 52), (95, 100)),
    "brown": ((20, 28), (62, 85), (34, 52)),
    "black": ((0, 360), (0, 20), (0, 9)),
    "white": ((0, 360), (0, 3), (96, 100)),
    "grey": ((0, 360), (0, 7), (44, 63)),
}
VIVID = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
# Nearer than this, a shape is hard to make out on its ground.
DISTINCT = 170.0


def shade(rng: Random, name: str) -> Colour:
    """Some colour that bears the name."""
    hue, saturation, value = RANGES[name]
    return Colour(
        name=name,
        rgb=from_hsv(rng.uniform(*hue), rng.uniform(*saturation), rng.uniform(*value)),
    )


def from_hsv(hue: float, saturation: float, value: float) -> Rgb:
    """Degrees and percents."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, saturation / 100, value / 100)
    return (round(255 * red), round(255 * green), round(255 * blue))


def apart(one: Rgb, other: Rgb) -> float:
    """How different two colours look: 0 for equals, 765 for black and white."""
    mean = (one[0] + other[0]) / 2
    red, green, blue = one[0] - other[0], one[1] - other[1], one[2] - other[2]
    weighted = (2 + mean / 256) * red**2 + 4 * green**2 + (2 + (255 - mean) / 256) * blue**2
    return float(weighted**0.5)


def brightness(rgb: Rgb) -> float:
    """0 for black, 255 for white."""
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]


def stand_out(rng: Random, name: str, grounds: tuple[Rgb, ...]) -> Colour | None:
    """A shade of the name that is distinct from all the grounds, if a few tries find one."""
    for _ in range(3):
        colour = shade(rng, name)
        if all(apart(colour.rgb, ground) >= DISTINCT for ground in grounds):
            return colour
    return None


def contrast_to(rgb: Rgb) -> Rgb:
    """Black or white, whichever stands out."""
    return (0, 0, 0) if brightness(rgb) > 127 else (255, 255, 255)


def mixed(one: Rgb, other: Rgb, share: float) -> Rgb:
    """`share` of the other colour in the one."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(one, other, strict=True))
    return (red, green, blue)
