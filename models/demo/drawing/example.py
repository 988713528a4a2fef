"""What one drawn example is: pictures or a clip, what stands on them, and a conversation about it.

How an answer is judged stands in `judging`; how pictures are made, everywhere else.
"""

from dataclasses import dataclass

from PIL import Image

from models.demo.drawing.judging import Expectation
from models.demo.drawing.marks import Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A question, the answer to be learnt, and how another answer is judged.

    Without an expectation a turn is trained on and not judged: free text has no one truth.
    """

    question: str
    answer: str
    expectation: Expectation | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Pictures in RGB (none when `frames` holds a clip, a frame a second), and 1 to 4 turns.

    `marks` says what stands where, for the tower's first lessons: of each picture or frame, or
    nothing at all where that is not told. `caption` says all of it in one compact order.
    """

    task: str
    pictures: tuple[Image.Image, ...]
    frames: tuple[Image.Image, ...] = ()
    caption: str
    marks: tuple[tuple[Mark, ...], ...] = ()
    turns: tuple[Turn, ...]
