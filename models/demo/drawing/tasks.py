"""The tasks: which kind of picture each draws, and the question that comes first.

Where the picture that came out does not settle the task's question, another is drawn from the
same stream of chance, so a seed still says everything.
"""

from collections.abc import Callable, Mapping
from functools import partial
from random import Random

from models.demo.drawing.asking import Asked
from models.demo.drawing.assets import unseen_words, words
from models.demo.drawing.charts import draw_chart
from models.demo.drawing.clips import draw_change, draw_direction
from models.demo.drawing.compare import draw_compared
from models.demo.drawing.conversation import converse
from models.demo.drawing.denials import ask_absent, ask_present
from models.demo.drawing.descriptions import ask_description, caption
from models.demo.drawing.example import Example
from models.demo.drawing.layout import Drawn
from models.demo.drawing.marks import marks_of
from models.demo.drawing.pictures import (
    draw_crowd,
    draw_placed,
    draw_print,
    draw_print_and_shapes,
    fitting_word,
)
from models.demo.drawing.questions import (
    ask_colour,
    ask_count,
    ask_place,
    ask_relation,
    ask_shape,
)
from models.demo.drawing.reading import ask_printed
from models.demo.drawing.scenes import draw_scene
from models.demo.drawing.sizes import Sheet, single_sheet
from models.demo.drawing.wear import worn

TRAINING_SEEDS = range(2**40)
EVALUATION_SEEDS = range(2**40, 2**41)
JUDGED_TASKS = ("colour", "shape", "count", "place", "word", "compare", "direction", "none")

# How often each task is drawn in training. What has to be learnt word by word or one by one gets
# the most; colours, shapes and denials also come up in the later turns of nearly everything.
# `crowd` is counting where it is hardest.
MIX: dict[str, float] = {
    "word": 18.0,
    "count": 20.0,
    "crowd": 40.0,
    "compare": 12.0,
    "place": 8.0,
    "direction": 8.0,
    "none": 9.0,
    "colour": 5.0,
    "shape": 7.0,
    "describe": 6.0,
    "number": 4.0,
    "line": 3.0,
    "relation": 3.0,
    "scene": 4.0,
    "chart": 4.0,
    "change": 4.0,
}
# Words that no training picture shows; for the evaluation alone.
TASKS = (*MIX, "word_unseen")

_CROWD = 5  # so many shapes are counted well long before more are

_LINES = (
    "open at {n}", "no {w}", "happy {w}", "{w} and {w}", "the {w}", "my {w}", "new {w} today",
    "good {w}", "{w} for sale", "room {n}", "page {n}", "{w} street", "no {w} here", "{w} {w}",
    "{w} {w} {w}", "big {w} sale", "welcome to the {w}", "keep the {w}", "level {n}", "{n} {w}",
)  # fmt: skip


def draw(task: str, seed: int) -> Example:
    """The example of that task and seed: the same pixels and texts wherever it is drawn.

    The first turn of a judged task is the task's question; later ones may be about anything.
    """
    drawer = _DRAWERS.get(task)
    if drawer is None:
        raise ValueError(f"no task is called {task!r}; there are {', '.join(TASKS)}")
    return drawer(Random(f"{task}:{seed}"))


def draw_mixed(seed: int, mix: Mapping[str, float] = MIX) -> Example:
    """An example of a task drawn by the mix's weights."""
    task = Random(f"mix:{seed}").choices(tuple(mix), tuple(mix.values()))[0]
    return draw(task, seed)


def _single(
    task: str,
    picture: Callable[[Random], Drawn | None],
    asker: Callable[[Random, Drawn], Asked | None],
) -> Callable[[Random], Example]:
    """A task about one picture, begun with one kind of question."""

    def drawer(rng: Random) -> Example:
        while True:
            drawn = picture(rng)
            if not drawn:
                continue
            # Makers draw their lots anew each time; a picture that allows the question takes one
            # or two.
            for _ in range(4):
                first = asker(rng, drawn)
                if first:
                    return _finished(rng, task, drawn, first)

    return drawer


def _finished(rng: Random, task: str, drawn: Drawn, first: Asked) -> Example:
    turns = converse(rng, drawn, first)
    image = worn(rng, drawn.image)
    return Example(
        task=task,
        pictures=(image,),
        caption=caption(drawn),
        marks=(marks_of(drawn),),
        turns=turns,
    )


def _some(rng: Random) -> Drawn:
    """A few shapes at their places, now and then with a word, or a crowd."""
    if rng.random() < 0.3:
        return draw_crowd(rng, single_sheet(rng))
    count = rng.choice((1, 2, 2, 3, 3, 4))
    return draw_placed(rng, single_sheet(rng), count, with_print=rng.random() < 0.15)


def _large_crowd(rng: Random) -> Drawn | None:
    drawn = draw_crowd(rng, single_sheet(rng))
    return drawn if len(drawn.items) > _CROWD else None


def _placed(rng: Random) -> Drawn:
    count = rng.choice((1, 1, 2, 2, 3, 3, 4))
    return draw_placed(rng, single_sheet(rng), count, with_print=rng.random() < 0.1)


def _pair(rng: Random) -> Drawn:
    return draw_placed(rng, single_sheet(rng), 2)


def _maybe_empty(rng: Random) -> Drawn:
    """Pictures to ask for what is not there."""
    if rng.random() < 0.06:
        return draw_placed(rng, single_sheet(rng), 0)
    return _some(rng)


def _word_picture(candidates: Callable[[], tuple[str, ...]]) -> Callable[[Random], Drawn | None]:
    def picture(rng: Random) -> Drawn | None:
        sheet = single_sheet(rng, least=150)
        word = fitting_word(rng, sheet, candidates())
        return _printed(rng, sheet, "word", word)

    return picture


def _number_picture(rng: Random) -> Drawn | None:
    digits = rng.choice((1, 2, 2, 3, 4))
    number = rng.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits)
    return _printed(rng, single_sheet(rng, least=150), "number", str(number))


def _line_picture(rng: Random) -> Drawn | None:
    line = rng.choice(_LINES)
    while "{w}" in line:
        line = line.replace("{w}", rng.choice(words()), 1)
    line = line.replace("{n}", str(rng.randint(1, 60)))
    return _printed(rng, single_sheet(rng, least=200), "line", line)


def _printed(rng: Random, sheet: Sheet, kind: str, text: str) -> Drawn | None:
    drawer = draw_print if rng.random() < 0.62 else draw_print_and_shapes
    return drawer(rng, sheet, kind, text)


def _any_picture(rng: Random) -> Drawn | None:
    return _word_picture(words)(rng) if rng.random() < 0.25 else _some(rng)


def _ask_none(rng: Random, drawn: Drawn) -> Asked | None:
    """As often about what is there as about what is not, or denying would always be right."""
    kind = rng.random()
    if kind < 0.53:
        return ask_absent(rng, drawn)
    if kind < 0.76:
        return ask_present(rng, drawn)
    return rng.choice((ask_colour, ask_place, ask_count))(rng, drawn)


_DRAWERS: dict[str, Callable[[Random], Example]] = {
    "word": _single("word", _word_picture(words), ask_printed),
    "word_unseen": _single("word_unseen", _word_picture(unseen_words), ask_printed),
    "number": _single("number", _number_picture, ask_printed),
    "line": _single("line", _line_picture, ask_printed),
    "count": _single("count", lambda rng: draw_crowd(rng, single_sheet(rng)), ask_count),
    "crowd": _single("crowd", _large_crowd, partial(ask_count, kind_share=0.4)),
    "place": _single("place", _placed, ask_place),
    "colour": _single("colour", _some, ask_colour),
    "shape": _single("shape", _some, ask_shape),
    "none": _single("none", _maybe_empty, _ask_none),
    "describe": _single("describe", _any_picture, ask_description),
    "relation": _single("relation", _pair, ask_relation),
    "compare": draw_compared,
    "direction": draw_direction,
    "change": draw_change,
    "scene": draw_scene,
    "chart": draw_chart,
}
assert set(_DRAWERS) == set(TASKS)
