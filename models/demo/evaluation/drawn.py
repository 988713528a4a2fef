"""The tasks about pictures and clips: freshly drawn ones, from seeds that training never sees."""

from collections.abc import Iterable, Mapping
from functools import partial

from models.demo.drawing import EVALUATION_SEEDS, JUDGED_TASKS, draw
from models.demo.drawing.example import Turn
from models.demo.drawing.judging import (
    COLOUR_NAMES,
    COUNT_NAMES,
    DIRECTION_NAMES,
    PLACE_NAMES,
    SHAPE_NAMES,
    Expectation,
)
from models.demo.evaluation.case import FOLLOW_UP, RIGHT, Case, Question, Reply, Shown, Task
from models.demo.evaluation.media import mp4, png

TARGETS: Mapping[str, float] = {
    "colour": 0.95,
    "shape": 0.95,
    "count": 0.90,
    "place": 0.90,
    "word": 0.85,
    "compare": 0.85,
    "direction": 0.90,
    "none": 0.90,
}
DEFAULT_COUNT = 40
# Words that training never printed say how much of reading is letters and how much is memory.
DRAWN_BY_DEFAULT = (*JUDGED_TASKS, "word_unseen")
# What can be judged; descriptions are free.
DRAWN = (*DRAWN_BY_DEFAULT, "crowd", "number", "line", "relation", "chart", "scene", "change")
# The longest description has some 50; a model that rambles is cut off here.
_MAX_OUTPUT_TOKENS = 64


def drawn_tasks(
    count: int = DEFAULT_COUNT, *, names: Iterable[str] = DRAWN_BY_DEFAULT
) -> tuple[Task, ...]:
    """Tasks about drawn pictures, `count` of them each."""
    return tuple(
        Task(
            name=name,
            make=partial(drawn_case, name),
            seeds=EVALUATION_SEEDS,
            adapter="base",
            max_output_tokens=_MAX_OUTPUT_TOKENS,
            targets={RIGHT: TARGETS.get(name), FOLLOW_UP: None},
            count=count,
        )
        for name in names
    )


def drawn_case(task: str, seed: int) -> Case:
    """What is drawn for a seed, encoded, and its questions up to the last that is judged.

    The first that is judged is the task's own. Those after it are about anything on the picture.
    Where nothing can be judged there is no question.
    """
    example = draw(task, seed)
    questions: list[Question] = []
    property_ = RIGHT
    for turn in example.turns:
        questions.append(_question(turn, property_))
        if turn.expectation is not None:
            property_ = FOLLOW_UP
    while questions and questions[-1].judge is None:
        questions.pop()
    return Case(
        seed=seed,
        shown=Shown(
            pictures=tuple(map(png, example.pictures)),
            clip=mp4(example.frames) if example.frames else None,
        ),
        questions=tuple(questions),
    )


def _question(turn: Turn, property_: str) -> Question:
    if turn.expectation is None:
        return Question(text=turn.question, expected=turn.answer, judge=None)
    return Question(
        text=turn.question,
        expected=turn.answer,
        judge=partial(_verdict, property_, turn.expectation),
        form=_form(turn.expectation),
        key=turn.expectation.said if property_ == RIGHT else None,
    )


def _verdict(name: str, expectation: Expectation, reply: Reply) -> dict[str, bool]:
    return {name: expectation.accepts(reply.text)}


def _form(expectation: Expectation) -> str:
    """Which answers the question takes, as far as the expected one tells."""
    if expectation.is_verbatim:
        return "words"
    phrases = {phrase for group in expectation.said for phrase in group}
    if phrases & {"yes", "not any"}:
        return "yes or no"
    for form, names in (
        ("colour", COLOUR_NAMES),
        ("shape", SHAPE_NAMES),
        ("count", COUNT_NAMES),
        ("place", PLACE_NAMES),
        ("direction", (*DIRECTION_NAMES, "left to right", "right to left")),
    ):
        if phrases & set(names):
            return form
    return "phrase"
