"""How a picture is cut into tiles, and what that costs in tokens: arithmetic on sizes alone.

Nothing here decodes or allocates, so a request can be priced from a picture's header.

The reference's rule: scale the picture so that its longer side is a whole number of tiles, as
many as `hd_num` tiles in all allow, and pad the shorter side up to a whole number with white,
below a landscape picture and to the right of a portrait one.

    scale = largest s with s * ceil(s / ratio) <= hd_num, at most ceil(longer / tile_size)

The reference fails on shapes so long that the scaled shorter side rounds to zero pixels. Ours
keeps one pixel.
"""

import math
from dataclasses import dataclass

# Part of every picture's cache key, so that pixels of an older transform are never taken for ours.
TRANSFORM_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """What a picture's header says. `format` is one of PNG, JPEG, WEBP, GIF, BMP."""

    width: int
    height: int
    format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TilePlan:
    """A picture of width × height pixels in the top left corner of a white canvas of tiles.

    `transposed`: the picture is portrait. The reference turns it on its side to resample it,
    and rounding makes that visible in single bits, so the transform does the same.
    """

    width: int
    height: int
    canvas_width: int
    canvas_height: int
    tiles_wide: int
    tiles_high: int
    transposed: bool

    @property
    def num_tiles(self) -> int:
        """Tiles of the picture; the tower also sees one global view."""
        return self.tiles_wide * self.tiles_high


def plan_tiles(width: int, height: int, *, hd_num: int, tile_size: int) -> TilePlan:
    """The reference's tiling of a picture under a bound of `hd_num` tiles."""
    if width < 1 or height < 1:
        raise ValueError(f"a picture of {width}x{height} has no pixels")
    if hd_num < 1 or tile_size < 1:
        raise ValueError(f"hd_num {hd_num} and tile_size {tile_size} must be at least 1")
    transposed = width < height
    longer, shorter = (height, width) if transposed else (width, height)
    # Floating point in the reference's order: its rounding decides some sizes.
    ratio = longer / shorter
    scale = min(_largest_scale(ratio, hd_num), math.ceil(longer / tile_size))
    new_longer = scale * tile_size
    new_shorter = max(1, int(new_longer / ratio))
    across, down = scale, math.ceil(new_shorter / tile_size)
    if transposed:
        new_longer, new_shorter, across, down = new_shorter, new_longer, down, across
    return TilePlan(
        width=new_longer,
        height=new_shorter,
        canvas_width=across * tile_size,
        canvas_height=down * tile_size,
        tiles_wide=across,
        tiles_high=down,
        transposed=transposed,
    )


def num_image_tokens(tiles_wide: int, tiles_high: int, side: int) -> int:
    """Tokens of a picture whose tiles have side × side features each.

    Global view and tiles, one separator after each row of both maps, one between the maps.
    """
    return (tiles_high * tiles_wide + 1) * side * side + 1 + (tiles_high + 1) * side


def _largest_scale(ratio: float, hd_num: int) -> int:
    scale = 1
    while (scale + 1) * math.ceil((scale + 1) / ratio) <= hd_num:
        scale += 1
    return scale
