"""Tiles painted on the device itself, with their labels: as many as the tower can take.

    sprites ─┐
    staging ─┴► Stage ──ground, signs, shapes, words, wear──► tiles
                  └───────────label_stage──────────────────► what stands where

The pictures are of the drawings' kind, with their outlines, fonts, colours and photographs, but
simpler and a hundred times faster: a drawn one takes a millisecond of a processor. Every step is
taken for all tiles together and never waits for the device, so painting runs ahead of training.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.demo.training.labelling import label_stage
from models.demo.training.shading import contrast_to, inks, shades, stand_out, tones
from models.demo.training.sprites import (
    OUTLINE_REACH,
    WORD_HEIGHT,
    WORD_WIDTH,
    outline_atlas,
    photograph_atlas,
    word_atlas,
)
from models.demo.training.staging import SHAPES, TILE, WORDS, Dice, Stage, stage

_SIDE = int(TILE)
_WORD_TEXTURES = 30_000
_TONES = 4  # by 4 pieces of the ground, from whose mean colours everything must stand out
_NOISY_SHARE, _BLURRED_SHARE, _EXPOSED_SHARE = 0.15, 0.3, 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Painted:
    """tiles: uint8 (N, S, S, 3). Labels as `Lessons.seeing_loss` takes them: cells
    (N * 64, categories), letters (N * 256,).
    """

    tiles: Tensor
    cells: Tensor
    letters: Tensor


class Painter:
    """Paints other tiles at every call; the same for a seed, on the same device."""

    def __init__(
        self, device: torch.device, seed: int, *, word_textures: int = _WORD_TEXTURES
    ) -> None:
        self.outlines = outline_atlas(device)
        self.words = word_atlas(device, count=word_textures, seed=seed)
        self._photographs = photograph_atlas(device, seed=seed)
        self._dice = Dice(device, seed)
        middles = torch.arange(_SIDE, device=device) + 0.5
        self._x, self._y = middles.view(1, 1, 1, -1), middles.view(1, 1, -1, 1)

    @torch.no_grad()
    def paint(self, count: int) -> Painted:
        return self.paint_stage(self.stage(count))

    def stage(self, count: int) -> Stage:
        return stage(self._dice, self.outlines, self.words, count)

    @torch.no_grad()
    def paint_stage(self, staged: Stage) -> Painted:
        canvas = self._ground(staged)
        pieces = functional.adaptive_avg_pool2d(canvas, _TONES).flatten(2).transpose(1, 2)
        colour = self._paint_shapes(canvas, staged, pieces)
        word_colour = self._paint_words(canvas, staged, pieces)
        canvas = self._worn(canvas)
        right, bottom = staged.left + staged.width, staged.top + staged.height
        is_outside = (self._x > _each(right)) | (self._y > _each(bottom))
        canvas.masked_fill_(is_outside, 1.0)
        cells, letters = label_stage(staged, self.words, colour, word_colour)
        tiles = canvas.mul_(255).add_(0.5).clamp_(0, 255).to(torch.uint8)
        return Painted(tiles=tiles.permute(0, 2, 3, 1).contiguous(), cells=cells, letters=letters)

    def _ground(self, staged: Stage) -> Tensor:
        """(N, 3, S, S): plain or a gradient, perhaps with stripes, noise or a photograph on it."""
        dice, count = self._dice, staged.count
        one = tones(dice, count)
        named = shades(dice, count)[torch.arange(count, device=dice.device), dice.below(11, count)]
        is_white = dice.chance(0.4, count, 1)
        named = torch.where(is_white, torch.ones_like(named), named)
        is_even = dice.chance(0.7, count, 1)
        one = torch.where(is_even & dice.chance(0.55, count, 1), named, one)
        other = torch.lerp(one, tones(dice, count), dice.uniform(0.3, 0.8, count, 1))
        other = torch.where(is_even, one, other)
        third = torch.where(dice.chance(0.5, count, 1), one, other)
        corners = torch.stack([one, one, third, other], -1).view(count, 3, 2, 2)
        canvas = functional.interpolate(
            corners, (_SIDE, _SIDE), mode="bilinear", align_corners=True
        )

        line = 1.0 - one.mean(-1, keepdim=True).round()  # black on light, white on dark
        weight = dice.uniform(0.07, 0.2, count) * staged.is_striped
        canvas.lerp_(line[..., None, None], self._stripes(count) * _each(weight))

        last = len(self._photographs) - 1
        number = torch.where(staged.is_grainy, last - dice.below(2, count),
                             dice.below(last - 1, count))  # fmt: skip
        scale = torch.where(staged.is_grainy, dice.uniform(0.1, 0.8, count),
                            dice.uniform(0.25, 0.9, count))  # fmt: skip
        flip = torch.where(dice.chance(0.3, count), -1.0, 1.0)
        zero = torch.zeros_like(scale)
        moved = (1 - scale)[:, None] * dice.uniform(-1, 1, count, 2)
        theta = torch.stack([scale * flip, zero, moved[:, 0], zero, scale, moved[:, 1]], -1)
        grid = functional.affine_grid(theta.view(-1, 2, 3), list(canvas.shape), align_corners=False)
        texture = self._photographs[number].float().div_(255)
        seen = functional.grid_sample(texture, grid, padding_mode="border", align_corners=False)
        photograph = dice.uniform(0.28, 0.7, count) * staged.is_photograph
        grain = dice.uniform(0.06, 0.18, count) * staged.is_grainy
        return canvas.lerp_(seen, _each(photograph + grain))

    def _stripes(self, count: int) -> Tensor:
        """(N, 1, S, S) of 0 and 1: lines in one direction or two."""
        dice = self._dice
        angle = dice.uniform(-1.2, 1.2, count) * dice.chance(0.5, count)
        angle = angle + torch.pi / 2 * dice.below(2, count)
        step = dice.uniform(10, 45, count)
        thickness = _each(dice.uniform(0.1, 0.5, count))
        phase = dice.share(count)

        def lines(angle: Tensor) -> Tensor:
            along = self._x * _each(angle.cos() / step) + self._y * _each(angle.sin() / step)
            return ((along + _each(phase)) % 1.0) < thickness

        is_grid = dice.chance(0.4, count)
        return (lines(angle) | (lines(angle + torch.pi / 2) & _each(is_grid))).float()

    def _paint_shapes(self, canvas: Tensor, staged: Stage, behind: Tensor) -> Tensor:
        """In place; returns the colours' names (N, 8)."""
        dice, count = self._dice, staged.count
        offered, names, needs_rim = stand_out(dice, behind, SHAPES)
        slots = torch.arange(SHAPES, device=dice.device)
        source = torch.where(dice.chance(0.25, count, 1), slots, staged.group)
        # Often all in one colour, so that colour alone does not tell kinds apart.
        source = source * ~dice.chance(0.15, count, 1)
        names, needs_rim = names.gather(1, source), needs_rim.gather(1, source)
        colours = offered.gather(1, source[..., None].expand(-1, -1, 3))

        # Half of the pictures show all their shapes in one manner.
        manner = dice.share(count, SHAPES)
        manner = torch.where(dice.chance(0.5, count, 1), manner[:, :1], manner)
        has_rim = needs_rim | (manner < 0.18)
        is_hollow = ~has_rim & (manner < 0.3) & (staged.radius > 18)
        is_shaded = ~has_rim & ~is_hollow & (manner < 0.48)
        rim = (0.04 * staged.radius).clamp_min(1.3) * has_rim
        line = rim + (0.16 * staged.radius).clamp_min(3.2) * is_hollow
        shaded = dice.uniform(-0.16, 0.16, count, SHAPES) * is_shaded
        edges = torch.where(has_rim[..., None], contrast_to(colours), colours)
        for slot in range(SHAPES):
            distance = self._distance(staged, slot)
            fill = (0.5 - distance).clamp_(0, 1)
            inner = (0.5 - distance - _each(line[:, slot])).clamp_(0, 1)
            hollow = _each(is_hollow[:, slot].float())
            # Lighter above than below, or the reverse, by so little that the colour keeps its name.
            radius = _each(staged.radius[:, slot].clamp_min(1))
            along = ((self._y - _each(staged.y[:, slot])) / (2 * radius) + 0.5).clamp_(0, 1)
            share = _each(shaded[:, slot])
            lighter, darker = share.clamp_min(0) * (1 - along), (-share).clamp_min(0) * along
            colour = colours[:, slot, :, None, None]
            colour = (colour + (1 - colour) * lighter) * (1 - darker)
            canvas.lerp_(edges[:, slot, :, None, None], fill - hollow * inner)
            canvas.lerp_(colour, inner * (1 - hollow))
        return names

    def _distance(self, staged: Stage, slot: int) -> Tensor:
        """(N, 1, S, S): pixels from the shape's edge, negative inside."""
        radius = staged.radius[:, slot].clamp_min(1e-3)
        cos, sin = staged.angle[:, slot].cos(), staged.angle[:, slot].sin()
        grid = self._grid(staged.x[:, slot], staged.y[:, slot],
                          (cos, sin), 1 / (radius * OUTLINE_REACH), 1 / (radius * OUTLINE_REACH),
                          0.0, 0.0)  # fmt: skip
        texture = self.outlines.distances[staged.outline[:, slot]][:, None]
        distance = functional.grid_sample(texture, grid, padding_mode="border", align_corners=False)
        # Where there is none, everything is far outside.
        return distance * _each(radius) + _each(10.0 * (staged.radius[:, slot] == 0))

    def _grid(  # noqa: PLR0917
        self, x: Tensor, y: Tensor, turn: tuple[Tensor, Tensor], wide: Tensor, high: Tensor,
        across: Tensor | float, down: Tensor | float,
    ) -> Tensor:  # fmt: skip
        """Where each pixel lies on a texture (-1 to 1), whose point (across, down) is at (x, y),
        turned by an angle of this cosine and sine; `wide` and `high` of it to a pixel.
        """
        cos, sin = turn
        half = TILE / 2
        moved_x, moved_y = half - x, half - y
        middle_across = across + (cos * moved_x + sin * moved_y) * wide
        middle_down = down + (cos * moved_y - sin * moved_x) * high
        theta = torch.stack(
            [
                half * cos * wide, half * sin * wide, middle_across,
                -half * sin * high, half * cos * high, middle_down,
            ],
            -1,
        ).view(-1, 2, 3)  # fmt: skip
        return functional.affine_grid(theta, [len(x), 1, _SIDE, _SIDE], align_corners=False)

    def _paint_words(self, canvas: Tensor, staged: Stage, ground: Tensor) -> Tensor:
        """Signs and letters, in place; returns the letters' colours' names (N, 3)."""
        dice, count = self._dice, staged.count
        has_sign = staged.sign_half[..., 0] > 0
        fills, _, _ = stand_out(dice, ground, WORDS)
        fills = torch.where(dice.chance(0.3, count, WORDS, 1), torch.ones_like(fills), fills)
        behind = torch.where(has_sign[..., None, None], fills[:, :, None], ground[:, None])
        colours, names = inks(dice, behind)
        power = torch.where(dice.chance(0.6, count, WORDS), 6.0, 30.0)
        power = torch.where(staged.is_oval, 2.0, power)
        border = dice.uniform(1, 2.5, count, WORDS) * dice.chance(0.4, count, WORDS)
        needs_halo = staged.is_photograph[:, None] & ~has_sign
        for slot in range(WORDS):
            distance = self._sign(staged, slot, power[:, slot])
            seen = _each(has_sign[:, slot].float())
            fill = fills[:, slot, :, None, None]
            edge = contrast_to(fills[:, slot])[..., None, None]
            canvas.lerp_(edge, (0.5 - distance).clamp_(0, 1) * seen)
            canvas.lerp_(fill, (0.5 - distance - _each(border[:, slot])).clamp_(0, 1) * seen)
            mask = self.letters(staged, slot)
            # A halo keeps letters legible where a photograph happens to have their brightness.
            halo = functional.max_pool2d(mask, 3, 1, 1).mul_(2).clamp_(0, 1)
            contrast = contrast_to(colours[:, slot])[..., None, None]
            canvas.lerp_(contrast, halo * _each(needs_halo[:, slot].float()))
            canvas.lerp_(colours[:, slot, :, None, None], mask)
        return names

    def _sign(self, staged: Stage, slot: int, power: Tensor) -> Tensor:
        """About how many pixels from the edge of an oval or of a box with rounder corners."""
        half = staged.sign_half[:, slot].clamp_min(1)
        across = ((self._x - _each(staged.word_x[:, slot])) / _each(half[:, 0])).abs()
        down = ((self._y - _each(staged.word_y[:, slot])) / _each(half[:, 1])).abs()
        exponent = _each(power)
        across, down = across.clamp(1e-3, 4), down.clamp(1e-3, 4)
        ring = (across**exponent + down**exponent) ** (1 / exponent)
        # Over its slope: a wide sign's ring grows slowly along it, and its border is to be even.
        steep_x = (across / ring) ** (exponent - 1) / _each(half[:, 0])
        steep_y = (down / ring) ** (exponent - 1) / _each(half[:, 1])
        return (ring - 1) / torch.hypot(steep_x, steep_y)

    def letters(self, staged: Stage, slot: int) -> Tensor:
        """(N, 1, S, S): how much of every pixel the word covers."""
        number, scale = staged.texture[:, slot], staged.scale[:, slot]
        texture = self.words.coverage[number][:, None].float().div_(255)
        # Each texel's neighbours count where a pixel is larger than one.
        wide = functional.avg_pool2d(texture, 3, 1, 1)
        texture = torch.lerp(texture, wide, _each((1.4 - 1.4 * scale).clamp(0, 1)))
        middle = self.words.sizes[number] / 2
        per_pixel = 1 / scale.clamp_min(1e-3)
        # Angles go against the clock, as Pillow's do, and y goes down.
        cos, sin = staged.word_angle[:, slot].cos(), -staged.word_angle[:, slot].sin()
        grid = self._grid(staged.word_x[:, slot], staged.word_y[:, slot], (cos, sin),
                          2 / WORD_WIDTH * per_pixel, 2 / WORD_HEIGHT * per_pixel,
                          2 / WORD_WIDTH * middle[:, 0] - 1,
                          2 / WORD_HEIGHT * middle[:, 1] - 1)  # fmt: skip
        mask = functional.grid_sample(texture, grid, align_corners=False)
        # Enlarged letters keep sharp edges.
        gain = _each(scale.clamp_min(1))
        return (mask - 0.5).mul_(gain).add_(0.5).clamp_(0, 1) * _each((scale > 0).float())

    def _worn(self, canvas: Tensor) -> Tensor:
        """Noise, blur and another exposure, each on some tiles and slight."""
        dice, count = self._dice, len(canvas)
        softness = dice.uniform(0.2, 1, count) * dice.chance(_BLURRED_SHARE, count)
        soft = functional.avg_pool2d(canvas, 3, 1, 1, count_include_pad=False)
        canvas.lerp_(soft, _each(softness))
        is_exposed = dice.chance(_EXPOSED_SHARE, count)
        gain = torch.where(is_exposed, dice.uniform(0.88, 1.1, count), 1.0)
        lift = dice.uniform(-0.03, 0.04, count) * is_exposed
        strength = dice.uniform(0.02, 0.1, count) * dice.chance(_NOISY_SHARE, count)
        noise = dice.uniform(-0.5, 0.5, *canvas.shape).mul_(_each(strength)).add_(_each(lift))
        return noise.addcmul_(canvas, _each(gain)).clamp_(0, 1)


def _each(values: Tensor) -> Tensor:
    """(N,) to (N, 1, 1, 1): one for all pixels of a tile."""
    return values.view(-1, 1, 1, 1)
