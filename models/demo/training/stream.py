"""Endless batches of drawn examples, made by worker processes from seeds.

Worker k of n takes the seeds first + k, first + k + n, …, so a run draws no seed twice and a
continued run goes on behind the last seed of the one before.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ixc_runtime.checkpoint.demo_model import SYSTEM_INSTRUCTION
from models.demo.drawing import Example, draw_mixed
from models.demo.training.batches import (
    HD_NUM_SEVERAL,
    HD_NUM_SINGLE,
    Batch,
    Framer,
    Length,
    Picture,
    Sample,
    batches,
    prepare_clip,
    prepare_picture,
)

SYSTEM_SHARE = 0.1  # conversations that open with the model's own system text
GENERAL_SHARE = 0.02  # that ask something the picture has nothing to do with


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """`general`: questions about no picture, with SmolLM2's own answers."""

    tokenizer_file: Path
    lengths: tuple[Length, ...]
    first_seed: int
    general: tuple[tuple[str, str], ...] = ()


def pictures_of(example: Example) -> tuple[Picture, ...]:
    if example.frames:
        return (prepare_clip(example.frames, example.marks or None),)
    hd_num = HD_NUM_SINGLE if len(example.pictures) == 1 else HD_NUM_SEVERAL
    marks = example.marks or (None,) * len(example.pictures)
    return tuple(
        prepare_picture(picture, hd_num=hd_num, marks=own)
        for picture, own in zip(example.pictures, marks, strict=True)
    )


class DrawnBatches(IterableDataset[Batch]):
    def __init__(self, settings: StreamSettings) -> None:
        super().__init__()
        self._settings = settings

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        framer = Framer(self._settings.tokenizer_file)
        return batches(self._samples(framer), self._settings.lengths, framer.pad)

    def _samples(self, framer: Framer) -> Iterator[Sample]:
        info = get_worker_info()
        index, count = (info.id, info.num_workers) if info else (0, 1)
        seed = self._settings.first_seed + index
        while True:
            example = draw_mixed(seed)
            pictures = pictures_of(example)
            yield self._conversation(framer, example, pictures, random.Random(seed))
            seed += count

    def _conversation(
        self, framer: Framer, example: Example, pictures: tuple[Picture, ...], rng: random.Random
    ) -> Sample:
        turns = [(turn.question, turn.answer) for turn in example.turns]
        if self._settings.general and rng.random() < GENERAL_SHARE:
            turns = [rng.choice(self._settings.general)]
        system = SYSTEM_INSTRUCTION if rng.random() < SYSTEM_SHARE else None
        return framer.chat(turns, pictures, task=example.task, system=system)


def load_batches(settings: StreamSettings, *, num_workers: int) -> DataLoader[Batch]:
    """In whatever order workers finish: nothing waits for a slow one."""
    return DataLoader(
        DrawnBatches(settings),
        batch_size=None,
        num_workers=num_workers,
        prefetch_factor=3 if num_workers else None,
        in_order=False,
    )
