"""What is done to every pixel of many tiles: grounds, shapes, signs, letters, wear.

Functions of tensors and nothing else, without chance and without a look at any value, so that each
is compiled into a few passes over the pixels. Taken one operation at a time, painting would take
more time than the tower's whole lesson.

N tiles of S x S pixels; a canvas is (N, 3, S, S) from 0 to 1, a mask (N, S, S). What is told of
each tile is (N,), a colour (N, 3). Textures are looked up by hand, between their four nearest
texels: no copy of them is made for each tile, nor a grid of where every pixel lies.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

Brush = Callable[..., Any]


@cache
def compiled(brush: Brush) -> Brush:
    """Of one shape: a painter always paints equally many tiles."""
    return torch.compile(brush, dynamic=False)


def lay_ground(corners: Tensor, line: Tensor, weight: Tensor, stripes: Tensor, side: int) -> Tensor:
    """A gradient between four `corners` (N, 3, 2, 2), and stripes in the colour `line` over it.

    `stripes` (N, 6): across and down of two directions to a step, thickness and phase; a direction
    of nothing but zeros is none.
    """
    along = torch.arange(side, device=corners.device) / (side - 1)
    top = torch.lerp(corners[:, :, :1, :1], corners[:, :, :1, 1:], along)
    bottom = torch.lerp(corners[:, :, 1:, :1], corners[:, :, 1:, 1:], along)
    canvas = torch.lerp(top, bottom, along[:, None])
    x, y = _middles(side, corners.device)

    def lines(across: Tensor, down: Tensor) -> Tensor:
        moved = x * _each(across) + y * _each(down) + _each(stripes[:, 5])
        return ((moved % 1.0) < _each(stripes[:, 4])) & _each((across != 0) | (down != 0))

    is_line = lines(stripes[:, 0], stripes[:, 1]) | lines(stripes[:, 2], stripes[:, 3])
    return torch.lerp(canvas, line[..., None, None], (is_line * _each(weight))[:, None])


def lay_photographs(
    canvas: Tensor, textures: Tensor, number: Tensor, place: Tensor, weight: Tensor
) -> Tensor:
    """Pieces of `textures` uint8 (K, 3, H, W) over it; `place` (N, 4): scale across and down, and
    where the middle lies, from -1 to 1.
    """
    side, (high, wide) = canvas.shape[-1], textures.shape[-2:]
    x, y = _middles(side, canvas.device)
    share = 2 / side
    u = ((x * share - 1) * _each(place[:, 0]) + _each(place[:, 2]) + 1) * (wide / 2) - 0.5
    v = ((y * share - 1) * _each(place[:, 1]) + _each(place[:, 3]) + 1) * (high / 2) - 0.5
    channels = torch.arange(3, device=canvas.device)[:, None, None]
    planes = (number[:, None, None, None] * 3 + channels) * (high * wide)
    seen = _between(textures, planes, u[:, None], v[:, None]) / 255
    return torch.lerp(canvas, seen, weight[:, None, None, None])


def paint_shape(
    canvas: Tensor, distances: Tensor, reach: float,
    *, outline: Tensor, where: Tensor, look: Tensor, edge: Tensor, fill: Tensor,
) -> Tensor:  # fmt: skip
    """One shape of each tile, by its outline's `distances`, which reach so many radii.

    `where` (N, 5): x, y, radius, cosine and sine of its angle; a radius of 0 is none. `look`
    (N, 3): width of its line, whether it is hollow, how it is shaded.
    """
    x, y = _middles(canvas.shape[-1], canvas.device)
    wide = distances.shape[-1]
    radius = where[:, 2].clamp_min(1e-3)
    moved_x, moved_y = x - _each(where[:, 0]), y - _each(where[:, 1])
    cos, sin = _each(where[:, 3]), _each(where[:, 4])
    per_pixel = _each(wide / 2 / (radius * reach))
    u = (cos * moved_x + sin * moved_y) * per_pixel + (wide - 1) / 2
    v = (cos * moved_y - sin * moved_x) * per_pixel + (wide - 1) / 2
    planes = outline[:, None, None] * (wide * wide)
    distance = _between(distances, planes, u, v) * _each(radius)
    # Where there is none, everything is far outside.
    distance = distance + _each(10.0 * (where[:, 2] == 0))
    line, hollow, shade = (_each(look[:, k]) for k in range(3))
    outer, inner = (0.5 - distance).clamp(0, 1), (0.5 - distance - line).clamp(0, 1)
    # Lighter above than below, or the reverse, by so little that the colour keeps its name.
    along = (moved_y / (2 * _each(radius.clamp_min(1))) + 0.5).clamp(0, 1)
    lighter, darker = shade.clamp_min(0) * (1 - along), (-shade).clamp_min(0) * along
    colour = fill[..., None, None]
    colour = (colour + (1 - colour) * lighter[:, None]) * (1 - darker[:, None])
    canvas = torch.lerp(canvas, edge[..., None, None], (outer - hollow * inner)[:, None])
    return torch.lerp(canvas, colour, (inner * (1 - hollow))[:, None])


def paint_sign(canvas: Tensor, where: Tensor, border: Tensor, edge: Tensor, fill: Tensor) -> Tensor:
    """An oval or a box with rounder corners. `where` (N, 5): x, y, half its width and height, the
    power that says how round it is; a width of 0 is none.
    """
    x, y = _middles(canvas.shape[-1], canvas.device)
    half_x, half_y = _each(where[:, 2].clamp_min(1)), _each(where[:, 3].clamp_min(1))
    across = ((x - _each(where[:, 0])) / half_x).abs().clamp(1e-3, 4)
    down = ((y - _each(where[:, 1])) / half_y).abs().clamp(1e-3, 4)
    exponent = _each(where[:, 4])
    ring = (across**exponent + down**exponent) ** (1 / exponent)
    # Over its slope: a wide sign's ring grows slowly along it, and its border is to be even.
    steep_x = (across / ring) ** (exponent - 1) / half_x
    steep_y = (down / ring) ** (exponent - 1) / half_y
    distance = (ring - 1) / (steep_x.square() + steep_y.square()).sqrt()
    seen = _each((where[:, 2] > 0).float())
    outer = (0.5 - distance).clamp(0, 1) * seen
    inner = (0.5 - distance - _each(border)).clamp(0, 1) * seen
    canvas = torch.lerp(canvas, edge[..., None, None], outer[:, None])
    return torch.lerp(canvas, fill[..., None, None], inner[:, None])


def cover_letters(
    sharp: Tensor, soft: Tensor, *, texture: Tensor, sizes: Tensor, where: Tensor, side: int
) -> Tensor:
    """(N, S, S): how much of every pixel a word covers.

    `sharp` uint8 (words, H, W), `soft` the same with each texel's neighbours mixed in, which count
    where a pixel is larger than a texel. `where` (N, 5): x, y, scale, cosine and sine.
    """
    x, y = _middles(side, where.device)
    high, wide = sharp.shape[-2:]
    scale = where[:, 2]
    moved_x, moved_y = x - _each(where[:, 0]), y - _each(where[:, 1])
    cos, sin = _each(where[:, 3]), _each(where[:, 4])
    per_pixel = _each(1 / scale.clamp_min(1e-3))
    u = (cos * moved_x + sin * moved_y) * per_pixel + _each(sizes[:, 0] / 2) - 0.5
    v = (cos * moved_y - sin * moved_x) * per_pixel + _each(sizes[:, 1] / 2) - 0.5
    planes = texture[:, None, None] * (high * wide)
    softness = _each((1.4 - 1.4 * scale).clamp(0, 1))
    mask = torch.lerp(
        _between(sharp, planes, u, v, is_bounded=True),
        _between(soft, planes, u, v, is_bounded=True),
        softness,
    )
    # Enlarged letters keep sharp edges.
    mask = ((mask / 255 - 0.5) * _each(scale.clamp_min(1)) + 0.5).clamp(0, 1)
    return mask * _each((scale > 0).float())


def set_letters(
    canvas: Tensor, mask: Tensor, colour: Tensor, contrast: Tensor, has_halo: Tensor
) -> Tensor:
    """A halo keeps letters legible where a photograph happens to have their brightness."""
    halo = (2 * torch.nn.functional.max_pool2d(mask[:, None], 3, 1, 1)).clamp(0, 1)
    canvas = torch.lerp(canvas, contrast[..., None, None], halo * has_halo[:, None, None, None])
    return torch.lerp(canvas, colour[..., None, None], mask[:, None])


def wear(canvas: Tensor, noise: Tensor, how: Tensor, ends: Tensor) -> Tensor:
    """Blur, another exposure and noise; then uint8 (N, S, S, 3), white beyond the picture's end.

    `noise` (N, 3, S, S) from 0 to 1. `how` (N, 4): softness, gain, lift, strength of the noise.
    `ends` (N, 2): right and bottom.
    """
    soft = torch.nn.functional.avg_pool2d(canvas, 3, 1, 1, count_include_pad=False)
    softness, gain, lift, strength = (how[:, k, None, None, None] for k in range(4))
    canvas = torch.lerp(canvas, soft, softness)
    canvas = (canvas * gain + lift + (noise - 0.5) * strength).clamp(0, 1)
    x, y = _middles(canvas.shape[-1], canvas.device)
    is_outside = (x > _each(ends[:, 0])) | (y > _each(ends[:, 1]))
    canvas = torch.where(is_outside[:, None], 1.0, canvas)
    return (canvas * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _between(
    textures: Tensor, planes: Tensor, u: Tensor, v: Tensor, *, is_bounded: bool = False
) -> Tensor:
    """Between the texels around column `u` and row `v` of the texture that begins at `planes`.

    Beyond its border a texture goes on as the border is, or `is_bounded`, as nothing.
    """
    flat = textures.reshape(-1)
    high, wide = textures.shape[-2:]
    left, top = u.floor(), v.floor()

    def texel(column: Tensor, row: Tensor) -> Tensor:
        at_x, at_y = column.clamp(0, wide - 1), row.clamp(0, high - 1)
        value = flat[planes + at_y.long() * wide + at_x.long()].float()
        if not is_bounded:
            return value
        return torch.where((at_x == column) & (at_y == row), value, 0.0)

    across, down = u - left, v - top
    upper = torch.lerp(texel(left, top), texel(left + 1, top), across)
    lower = torch.lerp(texel(left, top + 1), texel(left + 1, top + 1), across)
    return torch.lerp(upper, lower, down)


def _middles(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    middles = torch.arange(side, device=device) + 0.5
    return middles, middles[:, None]


def _each(values: Tensor) -> Tensor:
    """(N,) to (N, 1, 1): one for all pixels of a tile."""
    return values[:, None, None]
