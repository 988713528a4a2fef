"""Drawn examples as batches of tensors, made by worker processes ahead of the GPU.

    Example ──tokens and tiles, by the product's own layout and transform──► Sample
    Samples of similar length ──pad──► Batch

What the model will see when served is what it is trained on: ids come from the product's `lay_out`,
tiles from its `transform_image`, strips from its `draw_strip`. Only the pad is ours.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ixc_runtime.media.geometry import TilePlan, plan_tiles
from ixc_runtime.media.strip import draw_strip, transform_strip
from ixc_runtime.media.transform import resample_and_pad, to_rgb
from ixc_runtime.media.video import StripPlan, plan_strip
from models.demo.drawing.marks import Mark
from models.demo.training.lessons import LABELS, Labels, label_maps
from models.demo.training.model import Canvases, ImageInputs
from models.demo.training.sizes import TOWER

TILE = TOWER.patch_size * TOWER.grid
SIDE = TOWER.grid // 2
MERGED = SIDE * SIDE  # features of one map
HD_NUM_SINGLE, HD_NUM_SEVERAL = 4, 1
IGNORED = -100
STRESS = 4.0  # how much more a stressed token counts than the sentence around it

START, END, END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """Sequences of at most `tokens`, `batch` of them at a time: one shape the compiler sees."""

    tokens: int
    batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Tiles uint8 (n, S, S, 3), row by row; labels of the tiles' maps and then of the view's."""

    tiles: np.ndarray[Any, np.dtype[np.uint8]]
    plan: TilePlan
    cells: Labels
    letters: Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """`labels` is IGNORED wherever nothing is learnt. A picture's place holds -1 in `ids`.

    `stressed`: places of the tokens in which a right answer differs from a wrong one.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    pictures: tuple[Picture, ...]
    task: str
    stressed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """`positions` are the flattened rows whose next id is learnt, `targets` those ids, `weights`
    how much each counts.

    `cells` (M * 64, LABELS) and `letters` (M * 256): what the pictures' M maps show.
    """

    token_ids: Tensor
    positions: Tensor
    targets: Tensor
    weights: Tensor
    image: ImageInputs | None
    cells: Tensor
    letters: Tensor
    tasks: tuple[str, ...]

    def to(self, device: torch.device) -> "Batch":
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        image = self.image
        return Batch(
            token_ids=move(self.token_ids),
            positions=move(self.positions),
            targets=move(self.targets),
            weights=move(self.weights),
            image=image
            and ImageInputs(
                tiles=move(image.tiles),
                canvases=tuple(
                    replace(canvases, first_tiles=move(canvases.first_tiles))
                    for canvases in image.canvases
                ),
                sources=move(image.sources),
                rows=move(image.rows),
            ),
            cells=move(self.cells),
            letters=move(self.letters),
            tasks=self.tasks,
        )


def prepare_picture(
    image: Image.Image, *, hd_num: int, marks: Sequence[Mark] | None = None
) -> Picture:
    plan = plan_tiles(image.width, image.height, hd_num=hd_num, tile_size=TILE)
    return _cut(resample_and_pad(to_rgb(image), plan), plan, marks)


def prepare_clip(
    frames: Sequence[Image.Image], marks: Sequence[Sequence[Mark]] | None = None
) -> Picture:
    """`marks` of each frame."""
    first = frames[0]
    strip = plan_strip(first.width, first.height, num_frames=len(frames), tile_size=TILE)
    moved = None
    if marks is not None:
        moved = [_on_strip(mark, strip, index) for index, own in enumerate(marks) for mark in own]
    return _cut(transform_strip(draw_strip(frames, strip), strip), strip.tiles, moved)


def _on_strip(mark: Mark, strip: StripPlan, frame: int) -> Mark:
    """Where a frame's mark is on the strip. Places and counts on a frame say nothing there."""
    left, top = 0, frame * (strip.label_height + strip.frame_height + strip.gap)
    if not strip.is_stacked:
        left, top = frame * (strip.frame_width + strip.gap), 0
    top += strip.label_height
    a, b, c, d = mark.box
    box = (
        (left + a * strip.frame_width) / strip.width,
        (top + b * strip.frame_height) / strip.height,
        (left + c * strip.frame_width) / strip.width,
        (top + d * strip.frame_height) / strip.height,
    )
    return replace(mark, box=box, size="", place="", count=0, alike=0, twins=0, among=0)


def _cut(canvas: Image.Image, plan: TilePlan, marks: Sequence[Mark] | None) -> Picture:
    pixels = np.asarray(canvas)
    wide, high = plan.tiles_wide, plan.tiles_high
    tiles = pixels.reshape(high, TILE, wide, TILE, 3).transpose(0, 2, 1, 3, 4)
    tiles = tiles.reshape(-1, TILE, TILE, 3)
    cells, letters = label_maps(marks, plan)
    return Picture(tiles=np.ascontiguousarray(tiles), plan=plan, cells=cells, letters=letters)


def num_tokens(plan: TilePlan) -> int:
    return (plan.num_tiles + 1) * MERGED + 1 + (plan.tiles_high + 1) * SIDE


def collate(samples: Sequence[Sample], length: int, pad_id: int) -> Batch:
    """Right-padded to `length`. Raises ValueError for a sample that is longer."""
    ids = np.full((len(samples), length), pad_id, np.int64)
    labels = np.full((len(samples), length), IGNORED, np.int64)
    weights = np.ones((len(samples), length), np.float32)
    tiles: list[np.ndarray[Any, Any]] = []
    for row, sample in enumerate(samples):
        if len(sample.ids) > length:
            raise ValueError(f"a sample of {len(sample.ids)} tokens does not fit {length}")
        ids[row, : len(sample.ids)] = sample.ids
        labels[row, : len(sample.labels)] = sample.labels
        weights[row, list(sample.stressed)] = STRESS
        tiles += [picture.tiles for picture in sample.pictures]
    image = None
    cells, letters = np.zeros((0, LABELS)), np.zeros(0)
    if tiles:
        pictures = [picture for sample in samples for picture in sample.pictures]
        canvases, sources, viewed = _arrange(pictures)
        cells = np.concatenate(_by_map([picture.cells for picture in pictures], pictures, viewed))
        letters = np.concatenate(
            _by_map([picture.letters for picture in pictures], pictures, viewed)
        )
        image = ImageInputs(
            tiles=torch.from_numpy(np.concatenate(tiles)),
            canvases=canvases,
            sources=torch.from_numpy(sources),
            rows=torch.from_numpy(np.flatnonzero(ids.reshape(-1) < 0)),
        )
    # A row predicts the id behind it.
    learnt = labels[:, 1:] != IGNORED
    rows, columns = np.nonzero(learnt)
    return Batch(
        token_ids=torch.from_numpy(np.maximum(ids, 0)),
        positions=torch.from_numpy(rows * length + columns),
        targets=torch.from_numpy(labels[:, 1:][learnt]),
        weights=torch.from_numpy(weights[:, 1:][learnt]),
        image=image,
        cells=torch.from_numpy(cells.reshape(-1, LABELS).astype(np.int64)),
        letters=torch.from_numpy(letters.reshape(-1).astype(np.int64)),
        tasks=tuple(sample.task for sample in samples),
    )


def _by_map(
    labels: Sequence[Labels], pictures: Sequence[Picture], viewed: Sequence[int]
) -> list[Labels]:
    """Labels in the order of the maps: all tiles, then the views of the `viewed` pictures."""
    tiles = [own[: len(picture.tiles)] for own, picture in zip(labels, pictures, strict=True)]
    return tiles + [labels[number][-1:] for number in viewed]


def _arrange(
    pictures: Sequence[Picture],
) -> tuple[tuple[Canvases, ...], np.ndarray[Any, np.dtype[np.int64]], list[int]]:
    """The canvases by their size, for every image token in order the feature it is, and the
    pictures of several tiles in the order of their views.
    """
    first_tiles = np.cumsum([0, *(len(picture.tiles) for picture in pictures)])
    num_maps = int(first_tiles[-1])
    sizes: dict[tuple[int, int], list[int]] = {}
    for number, picture in enumerate(pictures):
        if picture.plan.num_tiles > 1:
            size = (picture.plan.tiles_wide, picture.plan.tiles_high)
            sizes.setdefault(size, []).append(number)
    view_maps = {number: int(first_tiles[number]) for number in range(len(pictures))}
    viewed = [number for members in sizes.values() for number in members]
    for number in viewed:
        view_maps[number] = num_maps
        num_maps += 1
    row_end = num_maps * MERGED

    grid = np.arange(MERGED).reshape(SIDE, SIDE)
    parts: list[np.ndarray[Any, Any]] = []
    for number, picture in enumerate(pictures):
        wide, high = picture.plan.tiles_wide, picture.plan.tiles_high
        own = (first_tiles[number] + np.arange(wide * high)) * MERGED
        maps = own.reshape(high, wide)[:, None, :, None] + grid[None, :, None, :]
        stitched = maps.reshape(high * SIDE, wide * SIDE)
        view = view_maps[number] * MERGED + grid
        parts += [_close(view, row_end), np.array([row_end + 1]), _close(stitched, row_end)]
    canvases = tuple(
        Canvases(
            tiles_wide=wide,
            tiles_high=high,
            first_tiles=torch.from_numpy(first_tiles[members]),
        )
        for (wide, high), members in sizes.items()
    )
    return canvases, np.concatenate(parts), viewed


def _close(features: np.ndarray[Any, Any], row_end: int) -> np.ndarray[Any, Any]:
    ends = np.full((len(features), 1), row_end)
    return np.concatenate([features, ends], axis=1).reshape(-1)


class Framer:
    """Turns into ids, as `ixc_runtime.prompt.layout` lays them out."""

    def __init__(self, tokenizer_file: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self.start, self.end, self.pad = (
            self._control(piece) for piece in (START, END, END_OF_TEXT)
        )

    def _control(self, piece: str) -> int:
        token_id = self._tokenizer.token_to_id(piece)
        if token_id is None:
            raise ValueError(f"the tokenizer has no {piece}")
        return token_id

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids)))

    def chat(
        self,
        turns: Iterable[tuple[str, str]],
        pictures: Sequence[Picture] = (),
        *,
        task: str = "",
        system: str | None = None,
        decisive: Sequence[Sequence[Sequence[str]]] = (),
    ) -> Sample:
        """A conversation about the pictures of its first turn; the answers are learnt.

        `decisive`: for each turn groups of phrases; of each the first that the answer has is
        stressed.
        """
        ids: list[int] = []
        labels: list[int] = []
        stressed: list[int] = []

        def add(tokens: Sequence[int], *, learnt: bool = False) -> None:
            ids.extend(tokens)
            labels.extend(tokens if learnt else [IGNORED] * len(tokens))

        if len(pictures) == 1:
            add([-1] * num_tokens(pictures[0].plan))
        if system is not None:
            add([self.start, *self.encode(f"system\n{system}"), self.end, *self.encode("\n")])
        for index, (question, answer) in enumerate(turns):
            add([self.start])
            text = "user\n"
            if index == 0 and len(pictures) > 1:
                for number, picture in enumerate(pictures, 1):
                    add(self.encode(f"{text}Image{number} "))
                    add([-1] * num_tokens(picture.plan))
                    text = "; "
            add(self.encode(text + question))
            add([self.end, *self.encode("\n"), self.start, *self.encode("assistant\n")])
            if index < len(decisive):
                for phrases in decisive[index]:
                    stressed += [len(ids) + place for place in self._places(answer, phrases)]
            add([*self.encode(answer), self.end], learnt=True)
            add(self.encode("\n"))
        return Sample(
            ids=tuple(ids),
            labels=tuple(labels),
            pictures=tuple(pictures),
            task=task,
            stressed=tuple(stressed),
        )

    def _places(self, answer: str, phrases: Sequence[str]) -> list[int]:
        """Which tokens of the answer hold the first of the phrases that occurs in it."""
        for phrase in phrases:
            found = re.search(rf"\b{re.escape(phrase)}", answer, re.IGNORECASE)
            if found:
                offsets = self._tokenizer.encode(answer, add_special_tokens=False).offsets
                return [
                    place
                    for place, (begin, end) in enumerate(offsets)
                    if begin < found.end() and end > found.start()
                ]
        return []


def batches(
    samples: Iterator[Sample], lengths: Sequence[Length], pad_id: int, *, rest: bool = False
) -> Iterator[Batch]:
    """Samples sorted into the shortest length they fit; a full one is a batch. Longer: dropped.

    `rest`: at the end, give what does not fill a batch too.
    """
    waiting: dict[Length, list[Sample]] = {length: [] for length in lengths}
    for sample in samples:
        fitting = next((one for one in lengths if len(sample.ids) <= one.tokens), None)
        if fitting is None:
            continue
        group = waiting[fitting]
        group.append(sample)
        if len(group) == fitting.batch:
            yield collate(group, fitting.tokens, pad_id)
            group.clear()
    for length, group in waiting.items():
        if rest and group:
            yield collate(group, length.tokens, pad_id)
