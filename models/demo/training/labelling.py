"""What is said of staged tiles: the labels of `lessons.label_maps`, for many tiles at once.

The same rules in the form that a GPU wants, a mark being a shape or a word of a `Stage`. A test
holds the two against each other. Nothing here waits for the device.
"""

import torch
from torch import Tensor

from models.demo.drawing.layout import CELLS, LARGE, SMALL
from models.demo.training.lessons import (
    CATEGORIES,
    COUNTS,
    LABELS,
    LEAST_GLYPH_SHARE,
    LEAST_SHARE,
    LONGEST_WORD,
    MIDDLES,
    NO_LETTER,
    NOTHING,
    PRINT,
    SIDE,
    UNSAID,
    WHOLE_WORD,
)
from models.demo.training.sizes import TOWER
from models.demo.training.sprites import WordAtlas
from models.demo.training.staging import TILE, Stage

_KINDS = CATEGORIES["kind"]


def label_stage(
    staged: Stage, words: WordAtlas, colour: Tensor, word_colour: Tensor
) -> tuple[Tensor, Tensor]:
    """int64 (N * 64, LABELS) and (N * 256,), from the colours of shapes and of words."""
    boxes = torch.cat([_shape_boxes(staged), word_boxes(staged)], 1)
    said = torch.cat(
        [_said_of_shapes(staged, colour), _said_of_words(staged, words, word_colour)], 1
    )
    cells = _best(boxes, said, side=SIDE, least=LEAST_SHARE)
    is_empty = cells[..., :1] == UNSAID
    nothing = torch.full_like(cells[..., :1], _KINDS.index(NOTHING))
    kinds = torch.where(is_empty, nothing, cells[..., :1])
    cells = torch.cat([kinds, cells[..., 1:], _middles(staged)], -1)
    glyphs, characters = glyph_boxes(staged, words)
    letters = _best(glyphs, characters[..., None], side=TOWER.grid, least=LEAST_GLYPH_SHARE)
    return cells.reshape(-1, LABELS), letters.reshape(-1)


def _middles(staged: Stage) -> Tensor:
    """(N, 64, MIDDLES): the shapes whose middles lie on a feature's patches."""
    patch = TILE / TOWER.grid
    column, row = (staged.x / patch).floor().long(), (staged.y / patch).floor().long()
    is_seen = (staged.radius > 0) & (staged.x >= 0) & (staged.y >= 0)
    is_seen &= (column < TOWER.grid) & (row < TOWER.grid)
    feature = row.div(2, rounding_mode="floor") * SIDE + column.div(2, rounding_mode="floor")
    number = feature * MIDDLES + row.remainder(2) * 2 + column.remainder(2)
    patches = TOWER.grid**2
    middles = torch.zeros(staged.count, patches + 1, dtype=torch.long, device=staged.x.device)
    # What is not seen goes behind the last one, which is cut off.
    middles.scatter_(1, torch.where(is_seen, number, patches), staged.kind + 1)
    return middles[:, :patches].view(-1, SIDE * SIDE, MIDDLES)


def _best(boxes: Tensor, said: Tensor, *, side: int, least: float) -> Tensor:
    """(N, side * side, labels): of the box (N, K, 4) that covers most of each square of a tile."""
    edges = torch.arange(side + 1, device=boxes.device) * (TILE / side)

    def along(low: Tensor, high: Tensor) -> Tensor:
        begin, end = low[..., None], high[..., None]
        covered = torch.minimum(edges[1:], end) - torch.maximum(edges[:-1], begin)
        return covered.clamp_min(0) * (side / TILE)

    across, down = along(boxes[..., 0], boxes[..., 2]), along(boxes[..., 1], boxes[..., 3])
    shares = (down[..., :, None] * across[..., None, :]).flatten(2)
    most, index = shares.max(1)
    found = said.gather(1, index[..., None].expand(-1, -1, said.shape[-1]))
    return torch.where((most > least)[..., None], found, UNSAID)


def _shape_boxes(staged: Stage) -> Tensor:
    x, y, radius = staged.x, staged.y, staged.radius
    return torch.stack([x - radius, y - radius, x + radius, y + radius], -1)


def word_boxes(staged: Stage) -> Tensor:
    """Of the sign, where there is one, else of the letters: (N, words, 4)."""
    half = torch.maximum(staged.half, staged.sign_half)
    middle = torch.stack([staged.word_x, staged.word_y], -1)
    return torch.cat([middle - half, middle + half], -1)


def glyph_boxes(staged: Stage, words: WordAtlas) -> tuple[Tensor, Tensor]:
    """(N, words * 8, 4) and the character of each: upright boxes around turned middles."""
    sizes = words.sizes[staged.texture]
    begins, ends = words.begins[staged.texture], words.ends[staged.texture]
    across = (begins + ends - sizes[..., :1]) / 2
    scale = staged.scale[..., None]
    cos, sin = staged.word_angle.cos()[..., None], staged.word_angle.sin()[..., None]
    # A line's glyphs all have its own height, so their middles are turned along its middle line.
    x = staged.word_x[..., None] + across * cos * scale
    y = staged.word_y[..., None] - across * sin * scale
    wide = (ends - begins) / 2 * scale
    tall = ((sizes[..., 1:] - 2) / 2 * scale).expand_as(wide)
    boxes = torch.stack([x - wide, y - tall, x + wide, y + tall], -1)
    return boxes.flatten(1, 2), words.characters[staged.texture].flatten(1, 2)


def _said_of_shapes(staged: Stage, colour: Tensor) -> Tensor:
    """(N, shapes, LABELS)."""
    share = staged.radius / torch.minimum(staged.width, staged.height)[:, None]
    size = torch.where(share <= SMALL, CATEGORIES["size"].index("small"), UNSAID)
    size = torch.where(share >= LARGE, CATEGORIES["size"].index("large"), size)
    is_there = staged.radius > 0
    same = (staged.kind[:, :, None] == staged.kind[:, None]) & is_there[:, None]
    is_whole = ~staged.is_part[:, None]
    place = _places(staged, staged.x, staged.y)
    labels = {
        "kind": staged.kind + _KINDS.index(PRINT) + 1,
        "colour": colour,
        "size": torch.where(is_whole, size, UNSAID),
        "place": torch.where(is_whole, place, UNSAID),
        "count": torch.where(is_whole, same.sum(-1) - 1, UNSAID),
        "word": torch.full_like(colour, UNSAID),
    }
    named = torch.stack([labels[category] for category in CATEGORIES], -1)
    no_letters = named.new_full((*colour.shape, LONGEST_WORD), UNSAID)
    alike = (colour[:, :, None] == colour[:, None]) & is_there[:, None]
    among = is_there[:, None].expand_as(alike)
    told_apart = (alike, alike & same, among)  # as COUNTS
    counts = torch.stack([those.sum(-1) - 1 for those in told_apart], -1)
    counts = torch.where(is_whole[..., None], counts, UNSAID)
    return torch.cat([named, no_letters, counts], -1)


def _said_of_words(staged: Stage, words: WordAtlas, colour: Tensor) -> Tensor:
    """(N, words, LABELS)."""
    begins, ends = torch.split(word_boxes(staged), 2, -1)
    seen = ends.clamp_max(TILE) - begins.clamp_min(0)
    is_cut = (seen < WHOLE_WORD * (ends - begins)).any(-1)
    unsaid = torch.full_like(colour, UNSAID)
    place = _places(staged, staged.word_x, staged.word_y)
    labels = {
        "kind": torch.full_like(colour, _KINDS.index(PRINT)),
        "colour": colour,
        "size": unsaid,
        "place": torch.where(staged.is_part[:, None], unsaid, place),
        "count": unsaid,
        "word": torch.where(is_cut, unsaid, words.words[staged.texture]),
    }
    named = torch.stack([labels[category] for category in CATEGORIES], -1)
    letters = words.characters[staged.texture]
    letters = torch.where(letters == UNSAID, NO_LETTER, letters)
    spelt = torch.where(is_cut[..., None], UNSAID, letters)
    return torch.cat([named, spelt, named.new_full((*colour.shape, len(COUNTS)), UNSAID)], -1)


def _places(staged: Stage, x: Tensor, y: Tensor) -> Tensor:
    """`layout.place_name` of middles, as a number."""

    def along(share: Tensor) -> Tensor:
        cell = torch.full_like(share, UNSAID, dtype=torch.long)
        for index, (low, high) in enumerate(CELLS):
            cell = torch.where((share >= low) & (share <= high), index, cell)
        return cell

    column = along((x - staged.left[:, None]) / staged.width[:, None])
    row = along((y - staged.top[:, None]) / staged.height[:, None])
    is_named = (column != UNSAID) & (row != UNSAID)
    return torch.where(is_named, 3 * row + column, UNSAID)
