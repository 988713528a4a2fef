"""What merging, quantising and measuring are asked to do. Free of torch.

Checked where they are used, against the model: these classes only carry the wishes.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A text, or a picture and what is said about it, that is run through the model.

    With `answer` the pair is laid out as a turn of chat, `text` being the question; without, `text`
    stands alone. `image` is a picture's file, or a picture drawn here, and needs an answer.
    `adapter` is what such a text would be written with; a checkpoint that lacks it runs the sample
    without.
    """

    text: str
    answer: str | None = None
    image: "Path | Image | None" = None
    adapter: str = "base"


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSettings:
    """Exactly one of `task` (web, write) and `adapter` (a PEFT folder).

    `name` is recorded in the result as what was merged; empty takes the task's or the folder's.
    `dtype` is bfloat16, float16 or, of a float32 source alone, float32; None keeps the source's.
    """

    task: str | None = None
    adapter: Path | None = None
    name: str = ""
    dtype: str | None = None
    device: str = "cpu"
    max_shard_bytes: int = 2 << 30


class QuantizeMethod(StrEnum):
    AWQ = "awq"  # activation-aware scales, then clipping
    RTN = "rtn"  # plain rounding to the nearest level


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeSettings:
    """`samples` empty takes the built-in ones. `dtype` (float16, bfloat16) is of all that is kept.

    `compensate_adapters` exists for experiments that show why it is needed: without it, smoothing
    changes what the adapters read, and image rows are ruined.
    """

    method: QuantizeMethod = QuantizeMethod.AWQ
    group_size: int = 128
    samples: tuple[Sample, ...] = ()
    max_sample_tokens: int = 512
    dtype: str = "float16"
    device: str = "cpu"
    compensate_adapters: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """For both comparisons. `samples` empty takes the built-in ones, held out of calibration."""

    samples: tuple[Sample, ...] = ()
    max_sample_tokens: int = 512
    device: str = "cpu"
