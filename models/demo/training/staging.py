"""What stands where on painted tiles, chosen by chance for many tiles at once.

Knows no colours, which `painting` chooses once it has seen what is behind, no labels, and no
pixels.

A tile shows a whole picture of one tile, or a quarter of a picture of four. The picture is rows:
some hold a word each, the others are cells with a shape in some of them. N is the number of tiles;
positions are pixels of the tile and may lie beyond it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.demo.drawing.judging import SHAPE_NAMES
from models.demo.training.sizes import TOWER
from models.demo.training.sprites import OutlineAtlas, WordAtlas

TILE = float(TOWER.patch_size * TOWER.grid)
SHAPES, WORDS = 8, 3  # at most, on a picture
_ROWS, _COLUMNS = 7, 4
_QUARTER_SHARE = 0.35
_PHOTOGRAPH_SHARE, _GRAIN_SHARE, _STRIPED_SHARE = 0.31, 0.12, 0.1
_LEAST_RADIUS, _TINY_RADIUS = 13.0, 9.0  # wished, and below which nothing is painted
_LEAST_SCALE, _TINY_SCALE, _LARGEST_SCALE = 0.55, 0.45, 3.0  # of words' textures, likewise
_SIGN_LOOKALIKES = ("rectangle", "square", "oval", "circle")


class Dice:
    """Random tensors of one seed, on one device."""

    def __init__(self, device: torch.device, seed: int) -> None:
        self.device = device
        self._generator = torch.Generator(device)
        self._generator.manual_seed(seed)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * self.share(*shape)

    def share(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._generator, device=self.device)

    def below(self, count: int, *shape: int) -> Tensor:
        return torch.randint(count, shape, generator=self._generator, device=self.device)

    def chance(self, share: float, *shape: int) -> Tensor:
        return self.share(*shape) < share

    def order(self, held: Tensor) -> Tensor:
        """(N, K): numbers of the held ones in random order, then of the others."""
        return (self.share(*held.shape) + 2.0 * ~held).argsort(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """N tiles. Pictures: `width`, `height`, where their corner is, whether the tile shows a part.

    Shapes (N, 8): centre, radius (0: there is none), kind, outline, angle in radians, and the group
    whose colour it has. Words (N, 3): texture, centre, scale (0: there is none), angle, the box
    of the letters (N, 3, 2: half its sides) and of the sign behind them, 0 where there is none.
    """

    width: Tensor
    height: Tensor
    left: Tensor
    top: Tensor
    is_part: Tensor
    is_photograph: Tensor
    is_grainy: Tensor
    is_striped: Tensor
    x: Tensor
    y: Tensor
    radius: Tensor
    kind: Tensor
    outline: Tensor
    angle: Tensor
    group: Tensor
    texture: Tensor
    word_x: Tensor
    word_y: Tensor
    scale: Tensor
    word_angle: Tensor
    half: Tensor
    sign_half: Tensor
    is_oval: Tensor

    @property
    def count(self) -> int:
        return len(self.width)


def stage(
    dice: Dice, outlines: OutlineAtlas, words: WordAtlas, count: int, *, crowds: float = 0.0
) -> Stage:
    is_packed = dice.chance(crowds, count)
    is_part = dice.chance(_QUARTER_SHARE, count) & ~is_packed
    longer = torch.where(is_part, 2 * TILE, TILE)
    ratio = torch.where(dice.chance(0.2, count), 1.0, 2.0 ** -dice.share(count))
    shorter = (longer * ratio).floor()
    is_portrait = dice.chance(0.4, count)
    width = torch.where(is_portrait, shorter, longer)
    height = torch.where(is_portrait, longer, shorter)
    # Quarters that show next to nothing of the picture are left out.
    left = -TILE * (is_part & (width > 1.25 * TILE) & dice.chance(0.5, count))
    top = -TILE * (is_part & (height > 1.25 * TILE) & dice.chance(0.5, count))

    ground = dice.share(count)
    is_photograph = ground < _PHOTOGRAPH_SHARE
    is_grainy = ~is_photograph & (ground < _PHOTOGRAPH_SHARE + _GRAIN_SHARE)
    is_striped = ground > 1 - _STRIPED_SHARE
    wished = dice.share(count)
    num_words = sum((wished > share).long() for share in (0.36, 0.74, 0.92))
    assert isinstance(num_words, Tensor)
    num_words = num_words * ~is_packed
    sign_share = torch.where(is_photograph, 0.7, 0.3)[:, None]
    has_sign = (dice.share(count, WORDS) < sign_share) & (num_words > 0)[:, None]

    group, num_shapes = _groups(dice, num_words, is_packed)
    # Nothing that a sign could be taken for, where there is one.
    is_lookalike = torch.tensor([k in _SIGN_LOOKALIKES for k in SHAPE_NAMES], device=dice.device)
    kinds = dice.order(~(is_lookalike & has_sign.any(1)[:, None]))
    kind = kinds.gather(1, group)

    rows, columns = _grid(dice, num_shapes, width, height, is_free=num_words == 0)
    row_order = dice.order(torch.arange(_ROWS, device=dice.device) < (rows + num_words)[:, None])
    row_edges = _edges(dice, (rows + num_words).clamp_min(1), _ROWS) * height[:, None]
    column_edges = _edges(dice, columns, _COLUMNS) * width[:, None]

    cells = dice.order(torch.arange(16, device=dice.device) < (rows * columns)[:, None])[:, :SHAPES]
    row = row_order.gather(1, (num_words[:, None] + cells // columns[:, None]).clamp_max(_ROWS - 1))
    column = cells % columns[:, None]
    x0, x1 = column_edges.gather(1, column), column_edges.gather(1, column + 1)
    y0, y1 = row_edges.gather(1, row), row_edges.gather(1, row + 1)
    room = 0.5 * torch.minimum(x1 - x0, y1 - y0) / 1.05 - 1.5
    # Crowds are small, too, where a picture of several tiles is viewed as one.
    least = torch.where(is_packed, _TINY_RADIUS, _LEAST_RADIUS)[:, None]
    smallest = torch.where(is_packed, 0.35, 0.5)[:, None]
    fill = smallest + (1 - smallest) * dice.share(count, 1)
    radius = room * fill * dice.uniform(0.85, 1, count, SHAPES)
    radius = torch.minimum(room, torch.maximum(radius, least))
    is_there = torch.arange(SHAPES, device=dice.device) < num_shapes[:, None]
    is_there &= radius >= _TINY_RADIUS
    margin = 1.04 * radius + 1
    x = x0 + margin + dice.share(count, SHAPES) * (x1 - x0 - 2 * margin).clamp_min(0)
    y = y0 + margin + dice.share(count, SHAPES) * (y1 - y0 - 2 * margin).clamp_min(0)
    forms = outlines.forms[kind]
    outline = outlines.first[kind] + (dice.share(count, SHAPES) * forms).long()
    most = outlines.most_turned[kind]
    straight = 90.0 * dice.below(4, count, SHAPES) * outlines.quarters[kind]
    free = (2 * dice.share(count, SHAPES) - 1) * most
    angle = torch.where(dice.chance(0.5, count, SHAPES), straight, free).deg2rad()

    texture = dice.below(len(words.words), count, WORDS)
    word_row = row_order[:, :WORDS]
    begin, end = row_edges.gather(1, word_row), row_edges.gather(1, word_row + 1)
    wide = width[:, None].expand_as(begin)
    turned = dice.uniform(-9, 9, count, WORDS).deg2rad() * dice.chance(0.25, count, WORDS)
    sizes = words.sizes[texture]
    half = 0.5 * _turned_extent(sizes, turned)  # at scale 1
    is_oval = dice.chance(0.25, count, WORDS)
    margin = dice.uniform(0.15, 0.4, count, WORDS) * 2 * half[..., 1]
    around = torch.where(is_oval[..., None], 1.4 * half, half) + margin[..., None]
    taken = torch.where(has_sign[..., None], around, half)
    fitting = 0.47 * torch.minimum(wide / taken[..., 0], (end - begin) / taken[..., 1])
    largest = fitting.clamp_max(_LARGEST_SCALE)
    scale = _LEAST_SCALE * (largest / _LEAST_SCALE).clamp_min(1e-3) ** dice.share(count, WORDS)
    scale = torch.where(largest < _LEAST_SCALE, largest, scale)
    is_set = torch.arange(WORDS, device=dice.device) < num_words[:, None]
    is_set &= largest >= _TINY_SCALE
    taken = taken * scale[..., None]
    word_x = 1 + taken[..., 0] + dice.share(count, WORDS) * (wide - 2 * taken[..., 0] - 2)
    word_y = begin + taken[..., 1] + dice.share(count, WORDS) * (end - begin - 2 * taken[..., 1])
    is_signed = (has_sign & is_set)[..., None]
    return Stage(
        width=width,
        height=height,
        left=left,
        top=top,
        is_part=is_part,
        is_photograph=is_photograph,
        is_grainy=is_grainy,
        is_striped=is_striped,
        x=x + left[:, None],
        y=y + top[:, None],
        radius=radius * is_there,
        kind=kind,
        outline=outline,
        angle=angle,
        group=group,
        texture=texture,
        word_x=word_x + left[:, None],
        word_y=word_y + top[:, None],
        scale=scale * is_set,
        word_angle=turned,
        half=half * (scale * is_set)[..., None],
        sign_half=around * scale[..., None] * is_signed,
        is_oval=is_oval,
    )


def _groups(dice: Dice, num_words: Tensor, is_packed: Tensor) -> tuple[Tensor, Tensor]:
    """Of every shape the group of one kind, and how many shapes there are.

    On most tiles a crowd of one kind and others among it; on the others each its own kind. Packed
    ones have a crowd of any size, and others until there are many.
    """
    count = len(num_words)
    is_crowd = dice.chance(0.65, count)
    # Large crowds lose members to the room there is, so that they are drawn more often.
    main = 1 + torch.where(dice.chance(0.5, count), 3 + dice.below(4, count), dice.below(6, count))
    main = torch.where(dice.chance(0.05, count), SHAPES, main)
    others = (1 + dice.below(4, count)) * dice.chance(0.7, count)
    single = torch.where(
        dice.chance(0.2, count), 5 + dice.below(4, count), 1 + dice.below(4, count)
    )
    single = single * dice.chance(0.95, count)
    number = torch.where(is_crowd, main + others, single)
    packed = torch.maximum(main, 5 + dice.below(SHAPES - 4, count))
    number = torch.where(is_packed, packed, number)
    is_crowd = is_crowd | is_packed
    # Beside words there is less room; and words alone are common.
    most = torch.where(num_words > 0, 4 - num_words, SHAPES)
    number = torch.minimum(number, most) * ~((num_words > 0) & dice.chance(0.4, count))
    slots = torch.arange(SHAPES, device=dice.device).expand(count, -1)
    other = 1 + dice.chance(0.5, count, SHAPES).long() * dice.chance(0.4, count, 1)
    crowd = torch.where(slots < main[:, None], 0, other)
    return torch.where(is_crowd[:, None], crowd, slots), number


def _grid(
    dice: Dice, number: Tensor, width: Tensor, height: Tensor, *, is_free: Tensor
) -> tuple[Tensor, Tensor]:
    """Rows and columns of cells with room for so many shapes."""
    count = len(number)
    # Of two draws the lower: few cells are large ones.
    wished = dice.below(_COLUMNS, count, 2).amin(1), dice.below(3, count, 2).amin(1)
    columns = torch.maximum((number + 2) // 3, 1 + wished[0])
    rows = torch.maximum((number + columns - 1) // columns, 1 + wished[1] * is_free)
    rows = rows * (number > 0)
    many, few = torch.maximum(rows, columns), torch.minimum(rows, columns)
    is_moved = is_free & (number > 0) & dice.chance(0.75, count) & (width != height)
    is_wide = width > height
    columns = torch.where(is_moved, torch.where(is_wide, many, few), columns)
    rows = torch.where(is_moved, torch.where(is_wide, few, many), rows)
    return rows, columns


def _edges(dice: Dice, parts: Tensor, most: int) -> Tensor:
    """(N, most + 1): where uneven parts of a length of 1 begin and end."""
    held = torch.arange(most, device=dice.device) < parts[:, None]
    lengths = dice.uniform(0.65, 1.35, len(parts), most) * held
    ends = lengths.cumsum(1) / lengths.sum(1, keepdim=True)
    return torch.cat([torch.zeros_like(ends[:, :1]), ends], 1)


def _turned_extent(sizes: Tensor, angle: Tensor) -> Tensor:
    """Width and height of upright boxes around turned ones."""
    cos, sin = angle.cos().abs(), angle.sin().abs()
    across = sizes[..., 0] * cos + sizes[..., 1] * sin
    return torch.stack([across, sizes[..., 1] * cos + sizes[..., 0] * sin], -1)
