"""Tiles painted on the device itself, with their labels: as many as the tower can take.

    sprites ─┐
    staging ─┴► Stage ──ground, signs, shapes, words, wear──► tiles
                  └───────────label_stage──────────────────► what stands where

The pictures are of the drawings' kind, with their outlines, fonts, colours and photographs, but
simpler and a hundred times faster: a drawn one takes milliseconds of a processor. Here is chosen,
for all tiles together, what everything looks like; `brushes` paints it. Nothing waits for the
device, so painting runs ahead of training.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.demo.training import brushes
from models.demo.training.brushes import Brush
from models.demo.training.labelling import label_stage
from models.demo.training.shading import contrast_to, inks, shades, stand_out, tones
from models.demo.training.sprites import (
    OUTLINE_REACH,
    outline_atlas,
    photograph_atlas,
    word_atlas,
)
from models.demo.training.staging import SHAPES, TILE, WORDS, Dice, Stage, stage

_SIDE = int(TILE)
_WORD_TEXTURES = 30_000
_TONES = 4  # by 4 pieces of the ground, from whose mean colours everything must stand out
_NOISY_SHARE, _BLURRED_SHARE, _EXPOSED_SHARE = 0.15, 0.3, 0.15
_SOFTENED_AT_ONCE = 2000  # word textures


@dataclass(frozen=True, slots=True, kw_only=True)
class Painted:
    """tiles: uint8 (N, S, S, 3). Labels as `Lessons.seeing_loss` takes them: cells
    (N * 64, LABELS), letters (N * 256,).
    """

    tiles: Tensor
    cells: Tensor
    letters: Tensor


class Painter:
    """Paints other tiles at every call; the same for a seed, on the same device."""

    def __init__(
        self,
        device: torch.device,
        seed: int,
        *,
        word_textures: int = _WORD_TEXTURES,
        crowds: float = 0.0,
    ) -> None:
        """`crowds`: share of tiles that are whole pictures of many shapes and nothing else."""
        self.outlines = outline_atlas(device)
        self.words = word_atlas(device, count=word_textures, seed=seed)
        self._soft = torch.cat(
            [_softened(part) for part in torch.split(self.words.coverage, _SOFTENED_AT_ONCE)]
        )
        self._photographs = photograph_atlas(device, seed=seed)
        self._dice = Dice(device, seed)
        self._crowds = crowds

    @torch.no_grad()
    def paint(self, count: int) -> Painted:
        return self.paint_stage(self.stage(count))

    def stage(self, count: int) -> Stage:
        return stage(self._dice, self.outlines, self.words, count, crowds=self._crowds)

    @torch.no_grad()
    def paint_stage(self, staged: Stage) -> Painted:
        canvas = self._ground(staged)
        side = _SIDE // _TONES
        pieces = canvas.view(-1, 3, _TONES, side, _TONES, side).mean((3, 5))
        pieces = pieces.flatten(2).transpose(1, 2)
        canvas, colour = self._paint_shapes(canvas, staged, pieces)
        canvas, word_colour = self._paint_words(canvas, staged, pieces)
        tiles = self._worn(canvas, staged)
        cells, letters = label_stage(staged, self.words, colour, word_colour)
        return Painted(tiles=tiles, cells=cells, letters=letters)

    def _brush(self, brush: Brush) -> Brush:
        """Compiled where many tiles are painted."""
        return brushes.compiled(brush) if self._dice.device.type == "cuda" else brush

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
        # Black on light, white on dark.
        line = (1.0 - one.mean(-1, keepdim=True).round()).expand(-1, 3)
        weight = dice.uniform(0.07, 0.2, count) * staged.is_striped
        lay_ground = self._brush(brushes.lay_ground)
        canvas = lay_ground(corners, line, weight, self._stripes(count), _SIDE)

        last = len(self._photographs) - 1
        number = torch.where(staged.is_grainy, last - dice.below(2, count),
                             dice.below(last - 1, count))  # fmt: skip
        scale = torch.where(staged.is_grainy, dice.uniform(0.1, 0.8, count),
                            dice.uniform(0.25, 0.9, count))  # fmt: skip
        flip = torch.where(dice.chance(0.3, count), -1.0, 1.0)
        moved = (1 - scale)[:, None] * dice.uniform(-1, 1, count, 2)
        place = torch.stack([scale * flip, scale, moved[:, 0], moved[:, 1]], -1)
        photograph = dice.uniform(0.28, 0.7, count) * staged.is_photograph
        grain = dice.uniform(0.06, 0.18, count) * staged.is_grainy
        lay_photographs = self._brush(brushes.lay_photographs)
        laid: Tensor = lay_photographs(canvas, self._photographs, number, place, photograph + grain)
        return laid

    def _stripes(self, count: int) -> Tensor:
        """(N, 6): lines in one direction or two, as `lay_ground` takes them."""
        dice = self._dice
        angle = dice.uniform(-1.2, 1.2, count) * dice.chance(0.5, count)
        angle = angle + torch.pi / 2 * dice.below(2, count)
        step = dice.uniform(10, 45, count)
        thickness = dice.uniform(0.1, 0.5, count)
        is_grid = dice.chance(0.4, count)
        across, down = angle.cos() / step, angle.sin() / step
        lines = [across, down, -down * is_grid, across * is_grid, thickness, dice.share(count)]
        return torch.stack(lines, -1)

    def _paint_shapes(self, canvas: Tensor, staged: Stage, behind: Tensor) -> tuple[Tensor, Tensor]:
        """The canvas with them, and their colours' names (N, 8)."""
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
        cos, sin = staged.angle.cos(), staged.angle.sin()
        where = torch.stack([staged.x, staged.y, staged.radius, cos, sin], -1)
        look = torch.stack([line, is_hollow.float(), shaded], -1)
        paint_shape = self._brush(brushes.paint_shape)
        for slot in range(SHAPES):
            canvas = paint_shape(
                canvas,
                self.outlines.distances,
                OUTLINE_REACH,
                outline=staged.outline[:, slot].contiguous(),
                where=where[:, slot].contiguous(),
                look=look[:, slot].contiguous(),
                edge=edges[:, slot].contiguous(),
                fill=colours[:, slot].contiguous(),
            )
        return canvas, names

    def _paint_words(self, canvas: Tensor, staged: Stage, ground: Tensor) -> tuple[Tensor, Tensor]:
        """The canvas with signs and letters, and the letters' colours' names (N, 3)."""
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
        where = torch.stack([staged.word_x, staged.word_y, *staged.sign_half.unbind(-1), power], -1)
        edges, contrasts = contrast_to(fills), contrast_to(colours)
        paint_sign = self._brush(brushes.paint_sign)
        set_letters = self._brush(brushes.set_letters)
        for slot in range(WORDS):
            canvas = paint_sign(
                canvas, where[:, slot].contiguous(), border[:, slot].contiguous(),
                edges[:, slot].contiguous(), fills[:, slot].contiguous(),
            )  # fmt: skip
            canvas = set_letters(
                canvas, self.letters(staged, slot), colours[:, slot].contiguous(),
                contrasts[:, slot].contiguous(), needs_halo[:, slot].float(),
            )  # fmt: skip
        return canvas, names

    def letters(self, staged: Stage, slot: int) -> Tensor:
        """(N, S, S): how much of every pixel the word covers."""
        texture, angle = staged.texture[:, slot].contiguous(), staged.word_angle[:, slot]
        # Angles go against the clock, as Pillow's do, and y goes down.
        x, y, scale = staged.word_x[:, slot], staged.word_y[:, slot], staged.scale[:, slot]
        where = torch.stack([x, y, scale, angle.cos(), -angle.sin()], -1)
        cover_letters = self._brush(brushes.cover_letters)
        mask: Tensor = cover_letters(
            self.words.coverage,
            self._soft,
            texture=texture,
            sizes=self.words.sizes[texture],
            where=where,
            side=_SIDE,
        )
        return mask

    def _worn(self, canvas: Tensor, staged: Stage) -> Tensor:
        """Noise, blur and another exposure, each on some tiles and slight."""
        dice, count = self._dice, len(canvas)
        softness = dice.uniform(0.2, 1, count) * dice.chance(_BLURRED_SHARE, count)
        is_exposed = dice.chance(_EXPOSED_SHARE, count)
        gain = torch.where(is_exposed, dice.uniform(0.88, 1.1, count), 1.0)
        lift = dice.uniform(-0.03, 0.04, count) * is_exposed
        strength = dice.uniform(0.02, 0.1, count) * dice.chance(_NOISY_SHARE, count)
        how = torch.stack([softness, gain, lift, strength], -1)
        ends = torch.stack([staged.left + staged.width, staged.top + staged.height], -1)
        tiles: Tensor = self._brush(brushes.wear)(canvas, dice.share(*canvas.shape), how, ends)
        return tiles


def _softened(coverage: Tensor) -> Tensor:
    """uint8 (words, H, W): the mean of each texel and its neighbours."""
    mean = functional.avg_pool2d(coverage[:, None].float(), 3, 1, 1)
    return mean[:, 0].round().to(torch.uint8)
