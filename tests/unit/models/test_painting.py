"""Tiles painted on the device: their labels beside those of drawn pictures, and their variety."""

import math
from dataclasses import replace
from random import Random

import pytest
import torch

from ixc_runtime.media.geometry import TilePlan
from models.demo.drawing.colours import apart, shade
from models.demo.drawing.judging import COLOUR_NAMES, PLACE_NAMES, SHAPE_NAMES
from models.demo.drawing.layout import LARGE, SMALL, place_name
from models.demo.drawing.marks import Glyph, Mark
from models.demo.training.labelling import glyph_boxes, label_stage, word_boxes
from models.demo.training.lessons import CATEGORIES, CHARACTERS, LABELS, UNSAID, label_maps
from models.demo.training.painting import Painter
from models.demo.training.staging import SHAPES, WORDS, Dice, Stage, stage

TILE = 224


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter(torch.device("cpu"), seed=3, word_textures=300)


def test_a_seed_gives_the_same_tiles() -> None:
    """Two painters of one seed paint alike; another seed paints something else."""
    first, again, other = (
        Painter(torch.device("cpu"), seed=seed, word_textures=20).paint(3) for seed in (1, 1, 2)
    )
    assert torch.equal(first.tiles, again.tiles)
    assert torch.equal(first.cells, again.cells)
    assert not torch.equal(first.tiles, other.tiles)


def test_tiles_and_labels_have_the_shapes_of_lessons(painter: Painter) -> None:
    """As many labels as merged features and patches, within their categories."""
    painted = painter.paint(6)
    assert painted.tiles.shape == (6, TILE, TILE, 3)
    assert painted.tiles.dtype == torch.uint8
    assert painted.cells.shape == (6 * 64, LABELS)
    assert painted.letters.shape == (6 * 256,)
    for column, names in enumerate(CATEGORIES.values()):
        assert painted.cells[:, column].min() >= UNSAID
        assert painted.cells[:, column].max() < len(names)
    assert painted.letters.max() < len(CHARACTERS)


def test_everything_is_painted_now_and_then(painter: Painter) -> None:
    """Every shape, place and size, and counts from one to six; parts of pictures too."""
    staged = painter.stage(600)
    colour = torch.zeros(600, SHAPES, dtype=torch.long)
    cells, letters = label_stage(staged, painter.words, colour, colour[:, :WORDS])
    found = {name: set(cells[:, column].tolist()) for column, name in enumerate(CATEGORIES)}
    assert found["kind"] == set(range(2 + len(SHAPE_NAMES)))
    assert set(range(len(PLACE_NAMES))) <= found["place"]
    assert {0, 1} <= found["size"]
    assert set(range(6)) <= found["count"]
    assert len(found["word"]) > 100
    assert len(set(letters.tolist())) == 1 + len(CHARACTERS)
    assert 0.25 < staged.is_part.float().mean() < 0.45


def test_a_shape_has_the_colour_that_is_said(painter: Painter) -> None:
    """In the middle of filled shapes the pixels bear the label's name, more than any other's."""
    staged = painter.stage(48)
    # Circles, filled: the middle of others may be empty.
    staged = replace(staged, kind=staged.kind * 0, outline=staged.outline * 0)
    painted = painter.paint_stage(staged)
    cells = painted.cells.view(48, 8, 8, -1)
    right = total = 0
    for number, slot in ((staged.radius > 20) & (staged.radius < 60)).nonzero().tolist():
        x, y = int(staged.x[number, slot]), int(staged.y[number, slot])
        if not (5 < x < TILE - 5 and 5 < y < TILE - 5):
            continue
        name = int(cells[number, y // 28, x // 28, 1])
        pixel = [int(value) for value in painted.tiles[number, y, x]]
        total += 1
        right += COLOUR_NAMES[name] == nearest_name(pixel)
    assert total > 24
    # An outlined circle shows the ground in its middle; worn colours stray from their names.
    assert right / total > 0.75


def nearest_name(pixel: list[int]) -> str:
    rng = Random(0)

    def distance(name: str) -> float:
        return min(apart((pixel[0], pixel[1], pixel[2]), shade(rng, name).rgb) for _ in range(40))

    return min(COLOUR_NAMES, key=distance)


def test_crowds(painter: Painter) -> None:
    """All are whole pictures of five to eight shapes, nearly all of which find room; no words."""
    staged = stage(Dice(torch.device("cpu"), 5), painter.outlines, painter.words, 200, crowds=1.0)
    count = (staged.radius > 0).sum(1)
    assert not staged.is_part.any()
    assert not (staged.scale > 0).any()
    assert count.max() == SHAPES
    assert (count >= 5).float().mean() > 0.9
    assert (staged.kind[:, 0] == staged.kind[:, 1]).float().mean() > 0.5


def test_letters_stand_where_their_boxes_are(painter: Painter) -> None:
    """A word's ink, turned or not, lies in its glyphs' boxes, and each box has ink in it."""
    staged = painter.stage(60)
    boxes, characters = glyph_boxes(staged, painter.words)
    boxes, characters = (one.unflatten(1, (WORDS, -1)) for one in (boxes, characters))
    masks = painter.letters(staged, 0)
    is_seen = (staged.scale[:, 0] > 0) & ~staged.is_part
    assert is_seen.sum() > 10
    assert (staged.word_angle[is_seen, 0] != 0).any()
    for number in is_seen.nonzero()[:, 0].tolist():
        mask, inside = masks[number], torch.zeros(TILE, TILE, dtype=torch.bool)
        for box, character in zip(boxes[number, 0], characters[number, 0], strict=True):
            if character != UNSAID:
                left, top, right, bottom = (round(value) for value in box.tolist())
                assert mask[max(top, 0) : bottom, max(left, 0) : right].sum() > 1
                inside[max(top - 2, 0) : bottom + 2, max(left - 2, 0) : right + 2] = True
        assert mask[inside].sum() > 0.95 * mask.sum()


def marks_of(staged: Stage, painter: Painter, number: int) -> list[Mark]:
    """What `drawing.marks` would say of a staged picture."""
    width, height = float(staged.width[number]), float(staged.height[number])

    def shares(box: list[float]) -> tuple[float, float, float, float]:
        return box[0] / width, box[1] / height, box[2] / width, box[3] / height

    marks = []
    is_there = staged.radius[number] > 0
    for slot in is_there.nonzero()[:, 0].tolist():
        x, y, radius = (float(v[number, slot]) for v in (staged.x, staged.y, staged.radius))
        kind = int(staged.kind[number, slot])
        share = radius / min(width, height)
        marks.append(
            Mark(
                box=shares([x - radius, y - radius, x + radius, y + radius]),
                colour=COLOUR_NAMES[0],
                kind=SHAPE_NAMES[kind],
                size="large" if share >= LARGE else "small" if share <= SMALL else "",
                place=place_name(x / width, y / height),
                count=int(((staged.kind[number] == kind) & is_there).sum()),
                alike=int(is_there.sum()),  # all in one colour
                twins=int(((staged.kind[number] == kind) & is_there).sum()),
                among=int(is_there.sum()),
            )
        )
    boxes, characters = glyph_boxes(staged, painter.words)
    boxes, characters = (one.unflatten(1, (WORDS, -1))[number] for one in (boxes, characters))
    for slot in (staged.scale[number] > 0).nonzero()[:, 0].tolist():
        spelt = [CHARACTERS[one] for one in characters[slot].tolist() if one != UNSAID]
        glyphs = tuple(
            Glyph(character=CHARACTERS[character], box=shares(box))
            for character, box in zip(characters[slot].tolist(), boxes[slot].tolist(), strict=True)
            if character != UNSAID
        )
        x, y = float(staged.word_x[number, slot]), float(staged.word_y[number, slot])
        marks.append(
            Mark(
                box=shares(word_boxes(staged)[number, slot].tolist()),
                colour=COLOUR_NAMES[0],
                place=place_name(x / width, y / height),
                text="".join(spelt),
                glyphs=glyphs,
            )
        )
    return marks


def test_labels_are_those_of_a_drawn_picture(painter: Painter) -> None:
    """What `label_maps` says of the same marks, but for squares that two boxes share evenly."""
    staged = painter.stage(120)
    colour = torch.zeros(120, SHAPES, dtype=torch.long)
    cells, letters = label_stage(staged, painter.words, colour, colour[:, :WORDS])
    cells, letters = cells.view(120, 64, -1), letters.view(120, 256)
    same_cells, same_letters = [], []
    for number in (~staged.is_part).nonzero()[:, 0].tolist():
        plan = TilePlan(
            width=round(float(staged.width[number])),
            height=round(float(staged.height[number])),
            canvas_width=TILE,
            canvas_height=TILE,
            tiles_wide=1,
            tiles_high=1,
            transposed=False,
        )
        expected_cells, expected_letters = label_maps(marks_of(staged, painter, number), plan)
        same = cells[number] == torch.from_numpy(expected_cells[0]).long()
        same_cells.append(same.float().mean().item())
        same = letters[number] == torch.from_numpy(expected_letters[0]).long()
        same_letters.append(same.float().mean().item())
    assert math.fsum(same_cells) / len(same_cells) > 0.99
    assert math.fsum(same_letters) / len(same_letters) > 0.99
