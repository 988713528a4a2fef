"""Clips: a few frames, one a second, in which something moves, comes, goes or changes.

Only what the question is about changes; the ground and everything else stay as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from PIL import Image

from models.demo.drawing.asking import Asked, asked
from models.demo.drawing.backgrounds import Ground, draw_ground
from models.demo.drawing.colours import Colour
from models.demo.drawing.conversation import shortened
from models.demo.drawing.example import Example
from models.demo.drawing.judging import (
    COLOUR_NAMES,
    DIRECTION_NAMES,
    SHAPE_NAMES,
    Expectation,
    expect_colour,
    expect_count,
    expect_direction,
    expect_phrase,
    expect_shape,
    expect_yes_or_no,
)
from models.demo.drawing.layout import least_radius, pick_colour, scatter
from models.demo.drawing.marks import Mark, marks_of_items
from models.demo.drawing.phrases import a, american, counted, led
from models.demo.drawing.shapes import Item, paint
from models.demo.drawing.sizes import Sheet, frame_sheet
from models.demo.drawing.wear import worn

_DIRECTION_QUESTIONS = (
    "In which direction does the {x} move?", "Which way does the {x} move?",
    "Where does the {x} move?", "Where does the {x} go?", "Which way does the {x} go?",
    "What is the direction of the {x}?", "In what direction is the {x} moving?",
    "How does the {x} move?", "Which direction does the {x} take?", "Where is the {x} going?",
    "Tell me which way the {x} moves.", "In the clip, how does the {x} move?",
    "Which way is the {x} travelling?", "Where is the {x} heading?",
)  # fmt: skip
_WHAT_QUESTIONS = (
    "What happens in the clip?", "What happens?", "What happens in the video?",
    "Describe the clip.", "Describe the video.", "What do you see in the clip?",
    "What is going on?", "Tell me what happens.", "What does the clip show?",
    "What changes in the clip?", "What can be seen in this video?",
)  # fmt: skip
_EVENTS = ("appears", "disappears", "grows", "shrinks", "moves", "changes")
_FEWEST_FRAMES, _MOST_FRAMES = 4, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cast:
    """Who acts on which stage, who stands by, and for how many frames."""

    sheet: Sheet
    ground: Ground
    actor: Item
    still: tuple[Item, ...]
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Story:
    """What happens in words, how that is judged, and the actor on every frame (None: away)."""

    happening: str
    expectation: Expectation
    actor: tuple[Item | None, ...]


def draw_direction(rng: Random) -> Example:
    """A shape crosses the picture, perhaps past others that stand still."""
    cast = _cast(rng)
    direction = rng.choice(DIRECTION_NAMES)
    story = _move(rng, cast, direction)
    actor = cast.actor
    noun = actor.kind if rng.random() < 0.8 else actor.noun
    question = _worded(rng, _DIRECTION_QUESTIONS, noun)
    answer = f"The {actor.kind} moves {direction}."
    first = asked(question, answer, story.expectation, ("direction", ""), one=actor)
    return _example(rng, "direction", cast, story, first)


def draw_change(rng: Random) -> Example:
    """A shape appears, disappears, grows, shrinks, changes its colour or moves."""
    cast = _cast(rng)
    kind = rng.random()
    if kind < 0.2:
        story = _move(rng, cast, rng.choice(DIRECTION_NAMES))
    elif kind < 0.45:
        story = _recolour(rng, cast)
    elif kind < 0.75:
        story = _come_or_go(rng, cast)
    else:
        cast = replace(cast, still=())  # it needs the room
        story = _resize(rng, cast)
    answer = f"{story.happening[0].upper()}{story.happening[1:]}."
    question = _worded(rng, _WHAT_QUESTIONS, "")
    first = asked(question, answer, story.expectation, ("change", ""), one=cast.actor)
    return _example(rng, "change", cast, story, first)


def _cast(rng: Random) -> _Cast:
    """Up to two shapes beside the actor, each of another kind and colour."""
    sheet = frame_sheet(rng)
    ground = draw_ground(rng, sheet.width, sheet.height)
    looks: list[tuple[str, Colour, bool]] = []
    for kind in rng.sample(SHAPE_NAMES, rng.choice((1, 1, 2, 3))):
        used = {colour.name for _, colour, _ in looks}
        names = tuple(name for name in COLOUR_NAMES if name not in used)
        looks.append((kind, *pick_colour(rng, ground, names)))
    actor, *still = scatter(rng, sheet, looks)
    most = max(1.2 * least_radius(sheet), 0.2 * sheet.shorter)
    return _Cast(
        sheet=sheet, ground=ground, actor=replace(actor, radius=min(actor.radius, most)),
        still=tuple(still), number=rng.randint(_FEWEST_FRAMES, _MOST_FRAMES),
    )  # fmt: skip


def _move(rng: Random, cast: _Cast, direction: str) -> _Story:
    path = _path(rng, cast, direction)
    return _Story(
        happening=f"{a(cast.actor.noun)} moves {direction}",
        expectation=expect_direction(direction),
        actor=tuple(replace(cast.actor, x=x, y=y) for x, y in path),
    )


def _recolour(rng: Random, cast: _Cast) -> _Story:
    before = cast.actor
    used = {item.colour.name for item in (before, *cast.still)}
    names = tuple(name for name in COLOUR_NAMES if name not in used)
    colour, needs_rim = pick_colour(rng, cast.ground, names)
    after = replace(before, colour=colour, rim=2.0 if needs_rim else before.rim)
    at = rng.randint(1, cast.number - 1)
    change = f"from {before.colour.name} to {colour.name}"
    return _Story(
        happening=f"{a(before.kind)} changes {change}",
        expectation=expect_phrase(change, rivals=tuple(set(_EVENTS) - {"changes"})),
        actor=tuple(before if k < at else after for k in range(cast.number)),
    )


def _come_or_go(rng: Random, cast: _Cast) -> _Story:
    event = rng.choice(("appears", "disappears"))
    at = rng.randint(1, cast.number - 1)
    return _Story(
        happening=f"{a(cast.actor.noun)} {event}",
        expectation=expect_phrase(event, rivals=_EVENTS),
        actor=tuple(
            cast.actor if (k >= at) == (event == "appears") else None for k in range(cast.number)
        ),
    )


def _resize(rng: Random, cast: _Cast) -> _Story:
    event = rng.choice(("grows", "shrinks"))
    sheet, actor = cast.sheet, cast.actor
    small = least_radius(sheet)
    large = min(small * rng.uniform(2.0, 3.0), 0.42 * sheet.shorter)
    x = min(max(actor.x, large + 2), sheet.width - large - 2)
    y = min(max(actor.y, large + 2), sheet.height - large - 2)
    steps = [k / (cast.number - 1) for k in range(cast.number)]
    radii = [small + (large - small) * (s if event == "grows" else 1 - s) for s in steps]
    return _Story(
        happening=f"{a(actor.noun)} {event}",
        expectation=expect_phrase(event, rivals=_EVENTS),
        actor=tuple(replace(actor, x=x, y=y, radius=radius) for radius in radii),
    )


def _path(rng: Random, cast: _Cast, direction: str) -> list[tuple[float, float]]:
    """Half of the picture at least, straight but for a little drift."""
    width, height = cast.sheet.width, cast.sheet.height
    is_level = direction in DIRECTION_NAMES[:2]
    along, across = (width, height) if is_level else (height, width)
    edge = cast.actor.radius + 2
    room = along - 2 * edge
    length = room * rng.uniform(0.7, 1.0)
    begin = edge + rng.uniform(0, room - length)
    side = rng.uniform(edge, across - edge)
    drift = rng.uniform(-0.08, 0.08) * length
    points = []
    for k in range(cast.number):
        step = k / (cast.number - 1)
        forth = begin + length * (step if direction in ("from left to right", "downwards")
                                  else 1 - step)  # fmt: skip
        beside = min(max(side + drift * step, edge), across - edge)
        points.append((forth, beside) if is_level else (beside, forth))
    return points


def _worded(rng: Random, questions: tuple[str, ...], noun: str) -> str:
    question = led(rng, rng.choice(questions).format(x=noun))
    return american(question) if rng.random() < 0.5 else question


def _frames(rng: Random, cast: _Cast, story: _Story) -> list[Image.Image]:
    for item in cast.still:
        paint(cast.ground.image, item)
    frames = []
    for actor in story.actor:
        frame = cast.ground.image.copy()
        if actor:
            paint(frame, actor)
        frames.append(frame)
    if rng.random() < 0.8:
        return frames
    state = rng.getstate()
    for k, frame in enumerate(frames):  # the same wear on every frame
        rng.setstate(state)
        frames[k] = worn(rng, frame)
    return frames


def _example(rng: Random, task: str, cast: _Cast, story: _Story, first: Asked) -> Example:
    """The first question, and up to three more."""
    more: list[Callable[[], Asked]] = [
        lambda: _about_frames(cast.number),
        lambda: _about_still(rng, cast),
    ]
    turns = [first.turn]
    if "changes" not in story.happening:  # else it has no one colour
        colour = [lambda: _about_colour(rng, cast.actor), lambda: _about_shape(rng, cast.actor)]
        if rng.random() < 0.3:
            turns.append(_about_colour(rng, cast.actor, lean=True).turn)
        else:
            more += colour
    turns += [maker().turn for maker in rng.sample(more, rng.choice((0, 1, 2, 2)))]
    others = [f"{item.noun} stands still" for item in cast.still]
    return Example(
        task=task, pictures=(), frames=tuple(_frames(rng, cast, story)),
        caption="; ".join((story.happening, *others)), marks=_marks(cast, story),
        turns=shortened(turns),
    )  # fmt: skip


def _marks(cast: _Cast, story: _Story) -> tuple[tuple[Mark, ...], ...]:
    sheet = cast.sheet
    return tuple(
        marks_of_items((*cast.still, *([actor] if actor else [])), sheet.width, sheet.height)
        for actor in story.actor
    )


def _about_colour(rng: Random, actor: Item, *, lean: bool = False) -> Asked:
    """`lean`: it is the thing of the question before."""
    name = actor.colour.name
    start = rng.choice(("What colour is", "What color is", "Which colour is", "Which color is"))
    question = f"{start} {'it' if lean else f'the {actor.kind}'}?"
    answer = f"The {actor.kind} is {name}."
    return asked(question, answer, expect_colour(name), ("colour", ""))


def _about_frames(number: int) -> Asked:
    return asked(
        "How many frames are there?", f"There are {counted(number, 'frame')}.",
        expect_count(number), ("frames", ""),
    )  # fmt: skip


def _about_still(rng: Random, cast: _Cast) -> Asked:
    """Whether something that is not the actor moves, or is there at all."""
    key = ("still", "")
    no = expect_yes_or_no(yes=False)
    if cast.still:
        kind = rng.choice(cast.still).kind
        question = rng.choice((f"Does the {kind} move?", f"Is the {kind} moving?"))
        return asked(question, f"No, the {kind} does not move.", no, key)
    kind = rng.choice([name for name in SHAPE_NAMES if name != cast.actor.kind])
    question = rng.choice((f"Is there {a(kind)} in the clip?", f"Do you see {a(kind)}?"))
    return asked(question, f"No, there is no {kind}.", no, key)


def _about_shape(rng: Random, actor: Item) -> Asked:
    name = actor.colour.name
    question = rng.choice((f"What shape is {name}?", f"Which shape is {name}?"))
    answer = f"The {name} shape is {a(actor.kind)}."
    return asked(question, answer, expect_shape(actor.kind), ("shape", ""))
