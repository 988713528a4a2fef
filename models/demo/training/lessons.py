"""The tower's first lessons: what stands at every place of a picture, without a language model.

    marks ──label_maps──► for each map: what each of its 64 merged features shows (kind, colour,
                          size, place, count, word, its letters), and which character each of its
                          256 patches; of every patch also, of which shape the middle lies on it

A word is learnt whole and letter by letter. Letters are what makes it learnable at all: each of
some thousand words is rare, but every word teaches all of its letters, and strings that are no
words do too.

Middles are what lets it count: several shapes may touch one feature, and one shape many, but each
has one middle.

Learnt in two ways at once. Plain classifiers on the tower's features, thrown away afterwards, teach
it to see. And each projected row is drawn towards the sum of the language model's own embeddings
of the words that hold there ("red" + "circle" + "top left" + "three"), so that the frozen model
finds, where it looks, what it could have read.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ixc_runtime.media.geometry import TilePlan
from models.demo.drawing.assets import words
from models.demo.drawing.judging import COLOUR_NAMES, COUNT_NAMES, PLACE_NAMES, SHAPE_NAMES
from models.demo.drawing.marks import Mark
from models.demo.training.sizes import TOWER

UNSAID = -1  # a label that nobody is asked for
NOTHING, PRINT = "nothing", "print"
_BACKGROUND_WORD = "\n"  # what an empty place is to the language model: an empty line

SIDE = TOWER.grid // 2
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
CATEGORIES: dict[str, tuple[str, ...]] = {
    "kind": (NOTHING, PRINT, *SHAPE_NAMES),
    "colour": COLOUR_NAMES,
    "size": ("small", "large"),
    "place": PLACE_NAMES,
    "count": COUNT_NAMES[1:9],
    "word": words(),
}
_INDEX = {
    category: {name: index for index, name in enumerate(names)}
    for category, names in CATEGORIES.items()
}
LONGEST_WORD = 8
MIDDLES = 4  # a merged feature is two by two patches
COUNTS = ("alike", "twins", "among")  # further ones, which are not said by any word of the place
# The categories' names, a word's letters in order, further counts, whose middle is on each patch.
LABELS = len(CATEGORIES) + LONGEST_WORD + len(COUNTS) + MIDDLES
NO_LETTER = len(CHARACTERS)  # behind a word's last
LEAST_SHARE = 0.15  # of a feature's square that a mark must cover to be what it shows
LEAST_GLYPH_SHARE = 0.3  # of a patch; letters are often narrower than one
WHOLE_WORD = 0.97  # of its width and of its height must be seen for a word to be read
COUNT_WEIGHT = 2.0  # the hardest of the categories
MIDDLES_WEIGHT = 2.0
SPELLING_WEIGHT = 4.0  # a mean over eight letters, of which each is as hard as a category
_NOTHING_WEIGHT = 0.15  # most of a picture is background
_NO_MIDDLE_WEIGHT = 0.1

Labels = np.ndarray[Any, np.dtype[np.int16]]
Shares = np.ndarray[Any, np.dtype[np.float64]]
_Region = tuple[float, float, float, float]  # left, top, right, bottom in the canvas's pixels


def label_maps(marks: Sequence[Mark] | None, plan: TilePlan) -> tuple[Labels, Labels]:
    """Of each tile, row by row, then of the global view if there are several tiles.

    (maps, 64, LABELS) and (maps, 256). `marks` of None: nothing is known, nobody is asked.
    """
    tile = TOWER.patch_size * TOWER.grid
    regions: list[_Region] = [
        (column * tile, row * tile, (column + 1) * tile, (row + 1) * tile)
        for row in range(plan.tiles_high)
        for column in range(plan.tiles_wide)
    ]
    if plan.num_tiles > 1:
        regions.append((0, 0, plan.canvas_width, plan.canvas_height))
    cells = np.full((len(regions), SIDE * SIDE, LABELS), UNSAID, np.int16)
    letters = np.full((len(regions), TOWER.grid**2), UNSAID, np.int16)
    if marks is None:
        return cells, letters
    cells[:, :, 0] = 0
    cells[:, :, -MIDDLES:] = 0
    for index, region in enumerate(regions):
        is_whole = index == (plan.num_tiles if plan.num_tiles > 1 else 0)
        best = np.full(SIDE * SIDE, LEAST_SHARE)
        for mark in marks:
            share = _covered(mark.box, plan, region, SIDE).reshape(-1)
            taken = share > best
            best[taken] = share[taken]
            cells[index, taken, :-MIDDLES] = _labels(mark, plan, region, is_whole=is_whole)
            if mark.kind and (place := _middle(mark, plan, region)):
                cells[index, place[0], place[1] - MIDDLES] = SHAPE_NAMES.index(mark.kind) + 1
            clearest = np.full(TOWER.grid**2, LEAST_GLYPH_SHARE)
            for glyph in mark.glyphs:
                share = _covered(glyph.box, plan, region, TOWER.grid).reshape(-1)
                taken = share > clearest
                clearest[taken] = share[taken]
                letters[index, taken] = CHARACTERS.find(glyph.character)
    return cells, letters


def _covered(
    box: tuple[float, float, float, float], plan: TilePlan, region: _Region, side: int
) -> Shares:
    """The share of every square of a side x side grid over the region that the box covers."""

    def along(low: float, high: float, begin: float, end: float) -> Shares:
        edges = np.linspace(begin, end, side + 1)
        covered = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
        shares: Shares = np.maximum(covered, 0) / (edges[1] - edges[0])
        return shares

    left, top, right, bottom = box
    across = along(left * plan.width, right * plan.width, region[0], region[2])
    down = along(top * plan.height, bottom * plan.height, region[1], region[3])
    covered: Shares = down[:, None] * across[None, :]
    return covered


def _labels(mark: Mark, plan: TilePlan, region: _Region, *, is_whole: bool) -> list[int]:
    """Where only a part of the picture is seen, nobody can tell places, counts or cut words."""
    is_cut = any(
        min(ends, region[axis + 2]) - max(begins, region[axis]) < WHOLE_WORD * (ends - begins)
        for axis, length in ((0, plan.width), (1, plan.height))
        for begins, ends in [(mark.box[axis] * length, mark.box[axis + 2] * length)]
    )
    text = "" if is_cut else mark.text
    said = {
        "kind": mark.kind or PRINT,
        "colour": mark.colour,
        "size": mark.size if is_whole else "",
        "place": mark.place if is_whole else "",
        "count": COUNT_NAMES[mark.count] if is_whole and mark.count else "",
        "word": text,
    }
    names = [_INDEX[category].get(said[category], UNSAID) for category in CATEGORIES]
    counts = [
        count - 1 if is_whole and 0 < count <= len(CATEGORIES["count"]) else UNSAID
        for count in (mark.alike, mark.twins, mark.among)
    ]
    return [*names, *_spelt(text), *counts]


def _middle(mark: Mark, plan: TilePlan, region: _Region) -> tuple[int, int] | None:
    """Of a mark's middle the feature, and which of its patches; None where it is elsewhere."""
    patch = []
    for axis, length in ((1, plan.height), (0, plan.width)):
        middle = (mark.box[axis] + mark.box[axis + 2]) / 2 * length
        share = (middle - region[axis]) / (region[axis + 2] - region[axis])
        if not 0 <= share < 1:
            return None
        patch.append(int(share * TOWER.grid))
    row, column = patch
    return row // 2 * SIDE + column // 2, row % 2 * 2 + column % 2


def _spelt(text: str) -> list[int]:
    """The letters of one word or number, and nothing behind them; lines are not spelt."""
    if not 0 < len(text) <= LONGEST_WORD or not set(text) <= set(CHARACTERS):
        return [UNSAID] * LONGEST_WORD
    letters = [CHARACTERS.find(character) for character in text]
    return letters + [NO_LETTER] * (LONGEST_WORD - len(text))


class Lessons(nn.Module):
    """The classifiers, and the language model's words for what they tell apart."""

    embedding_colour: Tensor

    def __init__(self, embeddings: dict[str, Tensor]) -> None:
        """`embeddings`: by category, (names, hidden) as `word_embeddings` makes them."""
        super().__init__()
        self.classifiers = nn.ModuleDict(
            {
                category: nn.Linear(TOWER.merged_size, len(names))
                for category, names in CATEGORIES.items()
            }
        )
        self.characters = nn.Linear(TOWER.hidden_size, len(CHARACTERS))
        self.spelling = nn.Linear(TOWER.merged_size, LONGEST_WORD * (len(CHARACTERS) + 1))
        self.counts = nn.ModuleDict(
            {name: nn.Linear(TOWER.merged_size, len(CATEGORIES["count"])) for name in COUNTS}
        )
        self.middles = nn.Linear(TOWER.merged_size, MIDDLES * (1 + len(SHAPE_NAMES)))
        for category, rows in embeddings.items():
            self.register_buffer(f"embedding_{category}", rows, persistent=False)

    def seeing_loss(
        self, maps: Tensor, merged: Tensor, cells: Tensor, letters: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The classifiers' losses summed, and the share each has right.

        maps (M, 256, channels), merged (M * 64, 4 * channels), cells (M * 64, LABELS),
        letters (M * 256). `letter` is a word's letter by its number, `character` what stands on a
        patch, `middle` the shape whose middle is on it, where there is one.
        """
        weight = torch.ones(len(CATEGORIES["kind"]), device=maps.device)
        weight[0] = _NOTHING_WEIGHT
        loss, share = _judged(self.classifiers["kind"](merged), cells[:, 0], weight)
        total, right = loss, {"kind": share}
        for column, category in enumerate(CATEGORIES):
            if category != "kind":
                logits = self.classifiers[category](merged)
                loss, right[category] = _judged(logits, cells[:, column])
                total = total + loss * (COUNT_WEIGHT if category == "count" else 1.0)
        logits = self.characters(maps.flatten(0, 1))
        loss, right["character"] = _judged(logits, letters)
        total = total + loss
        logits = self.spelling(merged).view(-1, len(CHARACTERS) + 1)
        spelt = cells[:, len(CATEGORIES) :][:, :LONGEST_WORD].flatten()
        loss, right["letter"] = _judged(logits, spelt)
        total = total + SPELLING_WEIGHT * loss
        for column, name in enumerate(COUNTS, len(CATEGORIES) + LONGEST_WORD):
            loss, right[name] = _judged(self.counts[name](merged), cells[:, column])
            total = total + loss
        logits = self.middles(merged).view(-1, 1 + len(SHAPE_NAMES))
        middles = cells[:, -MIDDLES:].flatten()
        weight = torch.ones(logits.shape[-1], device=maps.device)
        weight[0] = _NO_MIDDLE_WEIGHT
        loss, _ = _judged(logits, middles, weight)
        there = middles > 0
        found = (logits.argmax(-1) == middles) & there
        right["middle"] = found.sum() / there.sum()
        return total + MIDDLES_WEIGHT * loss, right

    def likening_loss(self, projected: Tensor, cells: Tensor) -> Tensor:
        """How far projected rows (M * 64, hidden) are from the words that hold there."""
        target = torch.zeros_like(projected, dtype=torch.float32)
        for column, category in enumerate(CATEGORIES):
            rows = getattr(self, f"embedding_{category}")
            labels = cells[:, column]
            target += rows[labels.clamp_min(0)] * (labels != UNSAID)[:, None]
        said = cells[:, 0] != UNSAID
        weight = torch.where(cells[:, 0] == 0, _NOTHING_WEIGHT, 1.0) * said
        scale = self.embedding_colour.square().mean()
        error = (projected.float() - target).square().mean(-1) / scale
        return (error * weight).sum() / weight.sum().clamp_min(1)


def _judged(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean loss and share right, of the rows that have a label; of none, zero and not a number.

    Over all rows, with the others left out by arithmetic: picking them would wait for the GPU.
    """
    said = labels != UNSAID
    each = functional.cross_entropy(
        logits.float(), labels, weight, ignore_index=UNSAID, reduction="none"
    )
    weights = said.float() if weight is None else weight[labels.clamp_min(0)] * said
    right = (logits.argmax(-1) == labels) & said
    return each.sum() / weights.sum().clamp_min(1), right.sum() / said.sum()


def word_embeddings(embedding: Tensor, encode: Any) -> dict[str, Tensor]:
    """By category, the mean embedding of each name's tokens, as it stands within a sentence; of a
    printed word, also as it stands within quotes, with no space before it.
    """

    def row(*texts: str) -> Tensor:
        return torch.stack([embedding[encode(text)].float().mean(0) for text in texts]).mean(0)

    def rows(category: str, names: tuple[str, ...]) -> Tensor:
        if category == "word":
            return torch.stack([row(f" {name}", name) for name in names])
        special = {NOTHING: _BACKGROUND_WORD, PRINT: " word"}
        return torch.stack([row(special.get(name, f" {name}")) for name in names])

    return {category: rows(category, names) for category, names in CATEGORIES.items()}
