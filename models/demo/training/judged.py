"""What training measures itself on: the same fresh examples every time. And the shapes of batches,
with a rehearsal of them all.
"""

from collections.abc import Iterator
from itertools import cycle, islice

from models.demo.drawing import EVALUATION_SEEDS, JUDGED_TASKS, draw
from models.demo.training.batches import Batch, Framer, Length, Sample, collate
from models.demo.training.stream import pictures_of

# A tile and some text; four tiles, or two pictures; a clip.
LENGTHS = (
    Length(tokens=256, batch=128),
    Length(tokens=464, batch=72),
    Length(tokens=720, batch=32),
)
LEANT_ON = (*JUDGED_TASKS, "crowd")  # drawn more, the more of it is wrong
JUDGED = (*LEANT_ON, "describe")


def rehearsal(samples: list[Sample], lengths: tuple[Length, ...], pad: int) -> Iterator[Batch]:
    """A full batch of every length, so that all shapes are compiled, and fit, before the clock
    runs: a rank that compiled later would keep the others waiting.
    """
    shorter = 0
    for length in lengths:
        fitting = [one for one in samples if shorter < len(one.ids) <= length.tokens]
        if fitting:
            yield collate(list(islice(cycle(fitting), length.batch)), length.tokens, pad)
        shorter = length.tokens


def judged_samples(count: int, framer: Framer) -> list[Sample]:
    """The same fresh examples every time: the first turn of `count` for each task."""
    samples = []
    for task in JUDGED:
        for index in range(count):
            example = draw(task, EVALUATION_SEEDS.start + 10**9 + index)
            first = example.turns[0]
            turns = [(first.question, first.answer)]
            samples.append(framer.chat(turns, pictures_of(example), task=task))
    return samples
