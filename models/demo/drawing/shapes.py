"""The outlines of shapes, and how a shape is painted.

An outline is a ring of points within the circle of radius 1; a shape on a picture is one scaled,
turned and set somewhere. It never reaches out of the circle around it, so shapes whose circles
do not touch do not either.
"""

import math
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from models.demo.drawing.colours import Colour, Rgb, contrast_to, mixed
from models.demo.drawing.judging import SHAPE_NAMES

_SUPERSAMPLING = 3
_LONGEST_MASK = 420  # a large shape is supersampled less: its edge is a smaller part of it

Points = tuple[tuple[float, float], ...]


def _ring(*, count: int, start: float = -90.0, width: float = 1.0) -> Points:
    angles = [math.radians(start + 360 * k / count) for k in range(count)]
    return tuple((width * math.cos(angle), math.sin(angle)) for angle in angles)


def _star(points: int, inner: float) -> Points:
    radii = [1.0 if k % 2 == 0 else inner for k in range(2 * points)]
    ring = _ring(count=2 * points)
    return tuple((r * x, r * y) for r, (x, y) in zip(radii, ring, strict=True))


def _heart() -> Points:
    points = []
    for k in range(40):
        t = 2 * math.pi * k / 40
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x / 18.2, -(y + 2.6) / 18.2))
    return tuple(points)


def _moon(bite: float) -> Points:
    """`bite`: how far from the centre the circle stands that is taken away."""
    horn = math.radians(60)
    radius = math.hypot(math.cos(horn) - bite, math.sin(horn))
    first = math.degrees(math.atan2(math.sin(horn), math.cos(horn) - bite))
    outer = [math.radians(60 + 8 * k) for k in range(31)]
    inner = [math.radians(-first - (360 - 2 * first) * k / 20) for k in range(1, 20)]
    arc = [(math.cos(angle), math.sin(angle)) for angle in outer]
    return tuple(arc + [(bite + radius * math.cos(t), radius * math.sin(t)) for t in inner])


def _box(width: float, height: float) -> Points:
    return ((-width, -height), (width, -height), (width, height), (-width, height))


def _cross(arm: float) -> Points:
    """`arm`: half of its thickness."""
    end = math.sqrt(1 - arm**2)
    quarter = ((arm, -end), (arm, -arm), (end, -arm))
    points: list[tuple[float, float]] = []
    corner: list[tuple[float, float]] = list(quarter)
    for _ in range(4):
        points += corner
        corner = [(-y, x) for x, y in corner]
    return tuple(points)


def _arrow(shaft: float, head: float, neck: float) -> Points:
    """Half of the shaft's thickness, half of the head's width, where the head begins."""
    return ((-0.95, -shaft), (neck, -shaft), (neck, -head), (0.98, 0), (neck, head), (neck, shaft),
            (-0.95, shaft))  # fmt: skip


# Several outlines for a name, so that no one of them is taken for what the name means.
OUTLINES: dict[str, tuple[Points, ...]] = {
    "circle": (_ring(count=48),),
    "square": (_box(0.707, 0.707),),
    "triangle": (
        _ring(count=3),
        ((0, -0.95), (0.62, 0.75), (-0.62, 0.75)),
        ((-0.6, -0.78), (0.8, 0.58), (-0.6, 0.58)),
    ),
    "star": (_star(5, 0.42), _star(5, 0.5), _star(5, 0.36), _star(6, 0.5)),
    "rectangle": (_box(0.89, 0.44), _box(0.94, 0.33), _box(0.86, 0.49)),
    "heart": (_heart(),),
    "cross": (_cross(0.31), _cross(0.2), _cross(0.36)),
    "diamond": tuple(((0, -1), (half, 0), (0, 1), (-half, 0)) for half in (0.55, 0.66, 0.75)),
    "hexagon": (_ring(count=6, start=0),),
    "oval": (_ring(count=48, width=0.55), _ring(count=48, width=0.44), _ring(count=48, width=0.62)),
    "arrow": (_arrow(0.22, 0.62, 0.15), _arrow(0.13, 0.45, 0.35), _arrow(0.32, 0.66, 0.1)),
    "moon": (_moon(0.62), _moon(0.45), _moon(0.8)),
}
assert tuple(OUTLINES) == SHAPE_NAMES
# How far a shape may be turned and still bear its name: a square on its corner is a diamond.
MOST_TURNED = {"square": 12, "heart": 22, "cross": 14, "diamond": 10, "rectangle": 30}
ANY_TURN = 180


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A shape on a picture: centre, radius of the circle around it, and how it is painted.

    `size` is "large" or "small" where the picture makes that plain, else empty. `stroke` is the
    outline's share of the radius for shapes not filled; `rim`, a line of contrasting colour;
    `outline`, which of the kind's forms it has.
    """

    kind: str
    colour: Colour
    x: float
    y: float
    radius: float
    size: str = ""
    angle: float = 0.0
    stroke: float = 0.0
    rim: float = 0.0
    shaded: float = 0.0
    outline: int = 0

    @property
    def noun(self) -> str:
        """The shape with its colour: "red circle"."""
        return f"{self.colour.name} {self.kind}"


def turn(rng: Random, kind: str) -> float:
    """An angle that leaves the shape its name. Half of the shapes stand straight."""
    if rng.random() < 0.5:
        return 90.0 * rng.randrange(4) if kind in ("arrow", "rectangle") else 0.0
    most = MOST_TURNED.get(kind, ANY_TURN)
    return rng.uniform(-most, most)


def pick_outline(rng: Random, kind: str) -> int:
    return rng.randrange(len(OUTLINES[kind]))


def mask_of(item: Item, *, line: float = 0.0) -> Image.Image:
    """How much of every pixel around the item it covers. `line`: only a line along its edge."""
    side = 2 * math.ceil(item.radius) + 2
    factor = _SUPERSAMPLING if side * _SUPERSAMPLING <= _LONGEST_MASK else 2
    cos, sin = math.cos(math.radians(item.angle)), math.sin(math.radians(item.angle))
    # The centre keeps its fraction of a pixel: a slow clip must not jerk.
    cx = factor * (side / 2 + item.x % 1)
    cy = factor * (side / 2 + item.y % 1)
    radius = factor * item.radius
    points = [
        (cx + radius * (x * cos - y * sin), cy + radius * (x * sin + y * cos))
        for x, y in OUTLINES[item.kind][item.outline]
    ]
    mask = Image.new("L", (factor * (side + 1), factor * (side + 1)))
    draw = ImageDraw.Draw(mask)
    thickness = line or item.stroke * item.radius
    if thickness:
        draw.polygon(points, outline=255, width=max(1, round(factor * thickness)))
    else:
        draw.polygon(points, fill=255)
    return mask.reduce(factor)


def paint(canvas: Image.Image, item: Item) -> None:
    """Set the item on the canvas, in place."""
    mask = mask_of(item)
    half = math.ceil(item.radius) + 1
    corner = (math.floor(item.x) - half, math.floor(item.y) - half)
    rgb = item.colour.rgb
    if item.shaded:
        canvas.paste(_shading(rgb, mask.size, item.shaded), corner, mask)
    else:
        canvas.paste(rgb, (*corner, corner[0] + mask.width, corner[1] + mask.height), mask)
    if item.rim:
        edge = mask_of(item, line=item.rim)
        box = (*corner, corner[0] + edge.width, corner[1] + edge.height)
        canvas.paste(contrast_to(rgb), box, edge)


def _shading(rgb: Rgb, size: tuple[int, int], share: float) -> Image.Image:
    """Lighter above than below, or the reverse, by so little that the colour keeps its name."""
    ends = Image.new("RGB", (1, 2))
    ends.putpixel((0, 0), mixed(rgb, (255, 255, 255), max(0.0, share)))
    ends.putpixel((0, 1), mixed(rgb, (0, 0, 0), max(0.0, -share)))
    return ends.resize(size, Image.Resampling.BILINEAR)
