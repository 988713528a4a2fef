"""One question of a conversation: the turn, and what the next question may call "it" or "they"."""

from dataclasses import dataclass

from models.demo.drawing.example import Turn
from models.demo.drawing.judging import Expectation
from models.demo.drawing.shapes import Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A turn, a key that no other question of the conversation should share, and its focus.

    `one` is a single item that the next question may call "it"; `many` a kind to be called "they".
    """

    turn: Turn
    key: tuple[str, str]
    one: Item | None = None
    many: str = ""


def asked(
    question: str,
    answer: str,
    expectation: Expectation | None,
    key: tuple[str, str],
    *,
    one: Item | None = None,
    many: str = "",
) -> Asked:
    turn = Turn(question=question, answer=answer, expectation=expectation)
    return Asked(turn=turn, key=key, one=one, many=many)
