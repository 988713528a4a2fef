"""How large pictures are, and how large a pixel of one is to the model.

The product's own arithmetic says the latter, so what is drawn stays legible once it is cut
into tiles.
"""

from dataclasses import dataclass
from random import Random

from ixc_runtime.media.geometry import plan_tiles
from ixc_runtime.media.video import plan_strip

TILE_SIZE = 224
SINGLE_HD_NUM = 4
SEVERAL_HD_NUM = 1
_RATIOS = (1.0, 4 / 3, 3 / 2, 16 / 9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Width and height in pixels; `scale` is how many of the model's pixels one becomes."""

    width: int
    height: int
    scale: float

    @property
    def shorter(self) -> int:
        return min(self.width, self.height)

    @property
    def longer(self) -> int:
        return max(self.width, self.height)


def single_sheet(rng: Random, *, least: int = 120) -> Sheet:
    """A lone picture: most fit one tile, the others take 2 x 2, a few 2, 3 or 4 in a row."""
    kind = rng.random()
    if kind < 0.6:
        return _sheet(rng, rng.randint(least, TILE_SIZE), 2.0, SINGLE_HD_NUM)
    if kind < 0.95:
        # Fewer large ones: the tower sees 448 pixels of them, and they cost more to draw.
        longer = min(rng.randint(225, 640), rng.randint(225, 640))
        return _sheet(rng, longer, 2.0, SINGLE_HD_NUM)
    ratio = rng.uniform(2.1, 4.0)
    longer = rng.randint(400, 720)
    return _turned(rng, longer, round(longer / ratio), SINGLE_HD_NUM)


def compared_sheet(rng: Random) -> Sheet:
    """One of several pictures, which are given one tile each whatever their size."""
    return _sheet(rng, rng.randint(130, 300), 1.8, SEVERAL_HD_NUM)


def frame_sheet(rng: Random) -> Sheet:
    """A frame of a clip; in the strip its longer side is one tile."""
    width, height = rng.choice(((224, 168), (224, 168), (168, 224), (192, 192), (240, 160)))
    plan = plan_strip(width, height, num_frames=6, tile_size=TILE_SIZE)
    across = plan.tiles.width / plan.width if plan.is_stacked else plan.tiles.height / plan.height
    return Sheet(width=width, height=height, scale=across * plan.frame_width / width)


def _sheet(rng: Random, longer: int, widest: float, hd_num: int) -> Sheet:
    if rng.random() < 0.4:
        ratio = rng.choice([ratio for ratio in _RATIOS if ratio <= widest])
    else:
        ratio = float(widest ** rng.random())
    return _turned(rng, longer, round(longer / ratio), hd_num)


def _turned(rng: Random, longer: int, shorter: int, hd_num: int) -> Sheet:
    width, height = (longer, shorter) if rng.random() < 0.62 else (shorter, longer)
    plan = plan_tiles(width, height, hd_num=hd_num, tile_size=TILE_SIZE)
    return Sheet(width=width, height=height, scale=plan.width / width)
