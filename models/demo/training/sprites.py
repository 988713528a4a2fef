"""What painted tiles are put together from: outlines, printed words and photographs, as textures.

Made once, on the CPU and with the drawings' own outlines, fonts and files; then they stay on the
device. Knows nothing about tiles.

A shape is kept as the distance to its outline, so that it can be painted at any size, filled or as
a line, without stairs. A word is kept as the coverage that Pillow's font renderer gives it.
"""

import multiprocessing
import os
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.demo.drawing.assets import faces, photographs, words
from models.demo.drawing.judging import SHAPE_NAMES
from models.demo.drawing.lettering import letters
from models.demo.drawing.shapes import ANY_TURN, MOST_TURNED, OUTLINES, Points
from models.demo.training.lessons import CHARACTERS, LONGEST_WORD, UNSAID

OUTLINE_SIDE = 160
OUTLINE_REACH = 1.12  # what an outline's texture shows: from -1.12 to 1.12 of its radius
WORD_HEIGHT, WORD_WIDTH = 52, 320
FONT_SIZE = 40
PHOTOGRAPH_SIDE = 288
_GRAINS = 2  # textures of noise, beside the photographs

_STRING_SHARE = 0.25  # of the textures: letters and digits in any order, which no list can tell
_TASKS_PER_PROCESS = 4
_MOST_PROCESSES = 16  # several ranks render at the same time

Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlineAtlas:
    """Of every outline the distance to its edge, in radii, negative inside: (outlines, S, S).

    `first` and `forms` (kinds,): which outlines a kind has; `most_turned` in degrees;
    `quarters`: whether it may also be turned by right angles.
    """

    distances: Tensor
    first: Tensor
    forms: Tensor
    most_turned: Tensor
    quarters: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class WordAtlas:
    """Coverage uint8 (words, H, W) in the top left corner of each texture.

    `sizes` (words, 2): width and height of what is covered. `words`: the number in the word list,
    or UNSAID. `begins`, `ends` and `characters` (words, 8): every glyph's columns and which
    character it is; UNSAID is none.
    """

    coverage: Tensor
    sizes: Tensor
    words: Tensor
    begins: Tensor
    ends: Tensor
    characters: Tensor


def outline_atlas(device: torch.device) -> OutlineAtlas:
    forms = [len(OUTLINES[kind]) for kind in SHAPE_NAMES]
    distances = [_distances(points) for kind in SHAPE_NAMES for points in OUTLINES[kind]]
    most = [float(MOST_TURNED.get(kind, ANY_TURN)) for kind in SHAPE_NAMES]
    return OutlineAtlas(
        distances=torch.from_numpy(np.stack(distances)).to(device),
        first=torch.tensor([sum(forms[:index]) for index in range(len(forms))], device=device),
        forms=torch.tensor(forms, device=device),
        most_turned=torch.tensor(most, device=device),
        quarters=torch.tensor([k in ("arrow", "rectangle") for k in SHAPE_NAMES], device=device),
    )


def _distances(points: Points) -> Floats:
    """From the middle of every texel to the ring of points; inside it is negative."""
    texels = ((np.arange(OUTLINE_SIDE) + 0.5) / OUTLINE_SIDE * 2 - 1) * OUTLINE_REACH
    x, y = np.meshgrid(texels, texels)
    nearest = np.full(x.shape, np.inf)
    is_inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(points, (*points[1:], points[0]), strict=True):
        dx, dy = bx - ax, by - ay
        length = max(dx * dx + dy * dy, 1e-12)
        along = np.clip(((x - ax) * dx + (y - ay) * dy) / length, 0, 1)
        nearest = np.minimum(nearest, np.hypot(x - ax - along * dx, y - ay - along * dy))
        if ay != by:
            crosses = (ay > y) != (by > y)
            is_inside ^= crosses & (x < ax + (y - ay) * dx / dy)
    return np.where(is_inside, -nearest, nearest).astype(np.float32)


def word_atlas(device: torch.device, *, count: int, seed: int) -> WordAtlas:
    """`count` textures: every word of the list about equally often, in any font and case."""
    processes = min(os.cpu_count() or 1, _MOST_PROCESSES, max(1, count // 1000))
    chunks = [range(first, count, processes * _TASKS_PER_PROCESS)
              for first in range(processes * _TASKS_PER_PROCESS)]  # fmt: skip
    render = partial(_render, seed)
    if processes == 1:
        parts = [render(chunk) for chunk in chunks]
    else:
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            parts = pool.map(render, chunks)
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    coverage, sizes, numbers, begins, ends, characters = (
        torch.from_numpy(column).to(device) for column in columns
    )
    return WordAtlas(
        coverage=coverage,
        sizes=sizes,
        words=numbers,
        begins=begins,
        ends=ends,
        characters=characters,
    )


def _render(seed: int, numbers: range) -> tuple[np.ndarray[Any, Any], ...]:
    """The textures of these numbers, as `WordAtlas` holds them."""
    count = len(numbers)
    known = {word: index for index, word in enumerate(words())}
    coverage = np.zeros((count, WORD_HEIGHT, WORD_WIDTH), np.uint8)
    sizes = np.zeros((count, 2), np.float32)
    said = np.full(count, UNSAID, np.int64)
    begins = np.zeros((count, LONGEST_WORD), np.float32)
    ends = np.zeros((count, LONGEST_WORD), np.float32)
    characters = np.full((count, LONGEST_WORD), UNSAID, np.int64)
    for row, number in enumerate(numbers):
        rng = Random(seed * 2**32 + number)
        is_string = rng.random() < _STRING_SHARE
        text = _string(rng) if is_string else words()[number % len(words())]
        cased = rng.choice((text.lower(), text.capitalize(), text.upper()))
        face, size = rng.choice(faces()), FONT_SIZE
        mask, glyphs = letters(face.at(size), [cased])
        while mask.width > WORD_WIDTH or mask.height > WORD_HEIGHT:
            size -= 4
            mask, glyphs = letters(face.at(size), [cased])
        coverage[row, : mask.height, : mask.width] = np.asarray(mask)
        sizes[row] = mask.size
        said[row] = known.get(text, UNSAID)
        for place, (character, (left, _, right, _)) in enumerate(glyphs):
            begins[row, place], ends[row, place] = left, right
            characters[row, place] = CHARACTERS.find(character)
    return coverage, sizes, said, begins, ends, characters


def _string(rng: Random) -> str:
    length = rng.randint(1, LONGEST_WORD)
    source = rng.choice((CHARACTERS, CHARACTERS[:26], CHARACTERS[26:]))
    return "".join(rng.choice(source) for _ in range(length))


def photograph_atlas(device: torch.device, *, seed: int) -> Tensor:
    """uint8 (photographs and then noise, 3, S, S)."""
    side = (PHOTOGRAPH_SIDE, PHOTOGRAPH_SIDE)
    pictures = [one.resize(side, Image.Resampling.BOX) for one in photographs()]
    rng = np.random.default_rng(seed)
    noise = [rng.integers(0, 256, (*side, 3), np.uint8) for _ in range(_GRAINS)]
    stacked = np.stack([*(np.asarray(one) for one in pictures), *noise])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous().to(device)
