"""Endless batches of drawn examples, made by worker processes from seeds.

Worker k of n takes the seeds first + k, first + k + n, …, so a run draws no seed twice.
"""

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ixc_runtime.checkpoint.demo_model import SYSTEM_INSTRUCTION
from models.demo.drawing import MIX, Example, Turn, draw_mixed
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
# Of a task's share in the mix: once all of it is right, for what is wrong, and of what is not
# measured.
LEAST_LEAN, LEAN, UNMEASURED_LEAN = 0.4, 4.0, 0.35


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """`general`: questions about no picture, with SmolLM2's own answers."""

    tokenizer_file: Path
    lengths: tuple[Length, ...]
    first_seed: int
    general: tuple[tuple[str, str], ...] = ()


class Mix:
    """How often each task is drawn, in memory that the workers share: what is told to one process
    holds for the examples that all of them draw next.
    """

    def __init__(self) -> None:
        self._shares = torch.tensor(list(MIX.values()), dtype=torch.float64)
        self._shares.share_memory_()  # type: ignore[no-untyped-call]

    def shares(self) -> dict[str, float]:
        return dict(zip(MIX, self._shares.tolist(), strict=True))

    def lean(self, figures: Mapping[str, float]) -> None:
        """Towards the tasks of which most is still wrong. What is not measured is drawn less."""
        for index, (task, share) in enumerate(MIX.items()):
            missed = 1 - figures.get(task, math.nan)
            lean = UNMEASURED_LEAN if math.isnan(missed) else LEAST_LEAN + LEAN * missed
            self._shares[index] = share * lean


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
    def __init__(self, settings: StreamSettings, mix: Mix) -> None:
        super().__init__()
        self._settings = settings
        self._mix = mix

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        framer = Framer(self._settings.tokenizer_file)
        return batches(self._samples(framer), self._settings.lengths, framer.pad)

    def _samples(self, framer: Framer) -> Iterator[Sample]:
        info = get_worker_info()
        index, count = (info.id, info.num_workers) if info else (0, 1)
        seed = self._settings.first_seed + index
        while True:
            example = draw_mixed(seed, self._mix.shares())
            pictures = pictures_of(example)
            yield self._conversation(framer, example, pictures, random.Random(seed))
            seed += count

    def _conversation(
        self, framer: Framer, example: Example, pictures: tuple[Picture, ...], rng: random.Random
    ) -> Sample:
        turns = [(turn.question, turn.answer) for turn in example.turns]
        decisive = [_decisive(turn) for turn in example.turns]
        if self._settings.general and rng.random() < GENERAL_SHARE:
            turns, decisive = [rng.choice(self._settings.general)], []
        system = SYSTEM_INSTRUCTION if rng.random() < SYSTEM_SHARE else None
        return framer.chat(turns, pictures, task=example.task, system=system, decisive=decisive)


def _decisive(turn: Turn) -> list[list[str]]:
    """What a right answer may say, longest first; of an answer that is not judged, nothing."""
    groups = turn.expectation.said if turn.expectation else ()
    return [sorted((phrase for group in groups for phrase in group), key=len, reverse=True)]


def load_batches(settings: StreamSettings, mix: Mix, *, num_workers: int) -> DataLoader[Batch]:
    """In whatever order workers finish: nothing waits for a slow one."""
    return DataLoader(
        DrawnBatches(settings, mix),
        batch_size=None,
        num_workers=num_workers,
        prefetch_factor=2 if num_workers else None,
        in_order=False,
    )
