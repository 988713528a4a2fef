"""Drawn pictures and clips with questions and answers, as many as seeds.

    example = draw("count", seed=7)          # the same wherever and whenever it is drawn
    example = draw_mixed(seed=7)             # a task by the training mix's weights

It knows nothing of tokens, tensors or models. `python -m models.demo.drawing OUT_DIR` draws a
sheet to look at.
"""

from models.demo.drawing.example import Example, Turn
from models.demo.drawing.judging import Expectation
from models.demo.drawing.tasks import (
    EVALUATION_SEEDS,
    JUDGED_TASKS,
    MIX,
    TASKS,
    TRAINING_SEEDS,
    draw,
    draw_mixed,
)

__all__ = [
    "EVALUATION_SEEDS",
    "JUDGED_TASKS",
    "MIX",
    "TASKS",
    "TRAINING_SEEDS",
    "Example",
    "Expectation",
    "Turn",
    "draw",
    "draw_mixed",
]
