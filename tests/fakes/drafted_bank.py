"""A bank of paragraphs for every training article, written by nobody."""

from collections.abc import Iterable
from random import Random

from models.demo.writing.drafts import Bank
from models.demo.writing.titles import Paragraph, all_paragraphs
from models.demo.writing.vocabulary import words

_WORDS = words("""
    river, house, garden, window, letter, winter, stone, bridge, music, paper, morning, silver
    forest, candle, summer, village, harbour, story, kitchen, mountain
""")


def drafted_bank(paragraphs: Iterable[Paragraph] | None = None) -> Bank:
    """One text for each: on its topic, and no two alike."""
    chosen = all_paragraphs() if paragraphs is None else paragraphs
    return {one.about: (_text(one),) for one in chosen}


def _text(paragraph: Paragraph) -> str:
    some = Random(paragraph.about).sample(_WORDS, 9)
    return f"Many people know {paragraph.about} by the {' '.join(some)}."
