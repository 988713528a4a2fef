"""The built-in samples: some for calibration, others, held out of it, for measuring.

Drawn and assembled when asked for. Small on purpose: a model of a hundred million parameters is
quantised on a laptop's processor in a minute or two with them. Users who have texts and pictures
of their own kind do better with those.
"""

from ixc_runtime.weights.calibration.pictures import draw_picture
from ixc_runtime.weights.calibration.texts import (
    CALIBRATION_ADAPTED,
    CALIBRATION_CHATS,
    CALIBRATION_TEXTS,
    HELD_OUT_CHATS,
    HELD_OUT_TEXTS,
)
from ixc_runtime.weights.settings import Sample

_CALIBRATION_SEEDS = range(12)
_HELD_OUT_SEEDS = range(1000, 1018)


def calibration_samples(*, with_images: bool) -> tuple[Sample, ...]:
    return (
        *(Sample(text=text) for text in CALIBRATION_TEXTS),
        *(Sample(text=question, answer=answer) for question, answer in CALIBRATION_CHATS),
        *(Sample(text=text, adapter=adapter) for adapter, text in CALIBRATION_ADAPTED),
        *(_drawn(_CALIBRATION_SEEDS) if with_images else ()),
    )


def held_out_samples(*, with_images: bool) -> tuple[Sample, ...]:
    return (
        *(Sample(text=text) for text in HELD_OUT_TEXTS),
        *(Sample(text=question, answer=answer) for question, answer in HELD_OUT_CHATS),
        *(_drawn(_HELD_OUT_SEEDS) if with_images else ()),
    )


def _drawn(seeds: range) -> tuple[Sample, ...]:
    pictures = map(draw_picture, seeds)
    return tuple(
        Sample(text=picture.question, answer=picture.answer, image=picture.image)
        for picture in pictures
    )
