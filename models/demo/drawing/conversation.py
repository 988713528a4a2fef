"""Several turns about one picture: later questions may lean on earlier ones.

A picture costs far more than a turn, so most examples have three. Their texts stay within a
budget of tokens, which is estimated here without a tokenizer: the words we use are one each.
"""

import re
from collections.abc import Callable, Sequence
from random import Random

from models.demo.drawing.asking import Asked
from models.demo.drawing.denials import ask_absent, ask_present
from models.demo.drawing.example import Turn
from models.demo.drawing.layout import Drawn
from models.demo.drawing.questions import (
    ask_colour,
    ask_count,
    ask_ground_colour,
    ask_largest,
    ask_place,
    ask_relation,
    ask_shape,
    ask_size,
    ask_their_colour,
)
from models.demo.drawing.reading import ask_ink, ask_printed, ask_printed_place

MOST_TOKENS = 100
_TOKENS_PER_TURN = 11  # roles and the ends of turns
_PIECE = re.compile(r"[A-Za-z]+|\d|[^\sA-Za-z\d]")
_DIGITS = re.compile(r"\s\d")  # a space before a digit is a token of its own
# What our words take beyond one token each.
_MORE = {
    "hexagon": 1,
    "hexagons": 2,
    "ovals": 1,
    "fewest": 1,
    "shrinks": 1,
    "Locate": 1,
    "locate": 1,
}
_TRIES = 28

Maker = Callable[[Random, Drawn], Asked | None]

_MAKERS: tuple[tuple[Maker, int], ...] = (
    (ask_colour, 4),
    (ask_shape, 4),
    (ask_count, 4),
    (ask_place, 4),
    (ask_absent, 4),
    (ask_present, 2),
    (ask_printed, 5),
    (ask_ink, 1),
    (ask_printed_place, 1),
    (ask_relation, 3),
    (ask_size, 1),
    (ask_largest, 1),
    (ask_ground_colour, 1),
)
_WEIGHTS = [weight for _, weight in _MAKERS]


def converse(rng: Random, drawn: Drawn, first: Asked) -> tuple[Turn, ...]:
    """The first question and up to three more, none asked twice."""
    turns, keys, last = [first.turn], {first.key}, first
    wished = rng.choices((1, 2, 3, 4), (6, 14, 45, 35))[0]
    for _ in range(_TRIES):
        if len(turns) == wished:
            break
        leans = (last.one or last.many) and rng.random() < 0.4
        asked = _follow_up(rng, drawn, last) if leans else _any(rng, drawn)
        if asked and asked.key not in keys and fits([*turns, asked.turn]):
            turns.append(asked.turn)
            keys.add(asked.key)
            last = asked
    return tuple(turns)


def fits(turns: Sequence[Turn]) -> bool:
    return sum(map(turn_tokens, turns)) <= MOST_TOKENS


def shortened(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """As many of the first turns as fit."""
    kept = list(turns)
    while not fits(kept):
        kept.pop()
    return tuple(kept)


def turn_tokens(turn: Turn) -> int:
    """At least as many tokens as SmolLM2's tokenizer makes of the turn."""
    return _TOKENS_PER_TURN + text_tokens(turn.question) + text_tokens(turn.answer)


def text_tokens(text: str) -> int:
    """A token for a word, a mark or a digit, and what some words take beyond that."""
    pieces = _PIECE.findall(text)
    return len(pieces) + sum(_MORE.get(piece, 0) for piece in pieces) + len(_DIGITS.findall(text))


def _any(rng: Random, drawn: Drawn) -> Asked | None:
    maker = rng.choices(_MAKERS, _WEIGHTS)[0][0]
    return maker(rng, drawn)


def _follow_up(rng: Random, drawn: Drawn, last: Asked) -> Asked | None:
    """A question that says "it" or "they" and so needs the one before."""
    if last.one:
        kind = rng.random()
        if kind < 0.45:
            return ask_colour(rng, drawn, item=last.one)
        if kind < 0.85:
            return ask_place(rng, drawn, item=last.one)
        return ask_size(rng, drawn, item=last.one)
    if last.many and last.key[0] != "count":
        return ask_count(rng, drawn, kind=last.many, them=True)
    if last.many:
        return ask_their_colour(rng, drawn, last.many)
    return None
