"""Measures of plain English text: is it about its title, does it go round in circles.

Used twice: on SmolLM2's drafts before they are trained on, and on answers when they are judged.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_STEM_LETTERS = 5
_STOP_WORDS = _listed("""
    a an and are as at be been but by can could do does for from had has have how i if in into is
    it its just like may more most much my no not of on one or our out over so some such than that
    the their them then there these they this those through to up us very was we were what when
    where which while who why will with would you your about after all also any because both each
    every few many other own same should only
    """)
# Words of titles that say how something is written about, not what.
_KIND_WORDS = _listed("""
    beginner's beginners guide introduction short history benefits tips matters art joy story life
    day ideas simple easy secrets first steps step things know makes made get start started better
    world best love great years today looking closely understanding discovering enjoying praise
    secret beauty magic need learn teaches home age past present good
    five getting practical
    """)
_LETTERS = re.compile(r"[A-Za-z]")
_MOST_OF_EIGHT_WORDS = 2
_LEAST_DISTINCT_TRIPLES = 0.6
_MIN_ENGLISH_SHARE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """`eight_words`: how often the commonest run of eight words stands in the text.
    `distinct_triples`: share of its runs of three words that are different ones.
    """

    eight_words: int
    distinct_triples: float

    @property
    def is_endless(self) -> bool:
        return (
            self.eight_words > _MOST_OF_EIGHT_WORDS
            or self.distinct_triples < _LEAST_DISTINCT_TRIPLES
        )


def repetition(text: str) -> Repetition:
    words = _words(text)
    eights, triples = Counter(_runs(words, 8)), Counter(_runs(words, 3))
    return Repetition(
        eight_words=max(eights.values(), default=0),
        distinct_triples=len(triples) / triples.total() if triples else 1.0,
    )


def topic_words(title: str) -> list[str]:
    """What a title is about: its words but for small ones and those that name a kind of text.

    A title of nothing else is about those. Behind a colon stands what is said of the topic.
    """
    topic = title.split(":", maxsplit=1)[0]
    words = [word for word in _words(topic) if len(word) > 2 and word not in _STOP_WORDS]
    return [word for word in words if word not in _KIND_WORDS] or words


def topic_share(title: str, text: str) -> float:
    """Share of the title's topic words that the text has too, by their first five letters."""
    wanted = {_stem(word) for word in topic_words(title)}
    found = {_stem(word) for word in _words(text)}
    return len(wanted & found) / len(wanted) if wanted else 1.0


def is_english(text: str) -> bool:
    """Latin letters, and as many small words as English has."""
    words = _words(text)
    letters = sum(character.isalpha() for character in text)
    if not words or len(_LETTERS.findall(text)) < letters:
        return False
    small = sum(word in _STOP_WORDS for word in words)
    return small / len(words) >= _MIN_ENGLISH_SHARE


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower().replace("’", "'"))


def _stem(word: str) -> str:
    return word.removesuffix("'s")[:_STEM_LETTERS].removesuffix("s")


def _runs(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + length]) for at in range(len(words) - length + 1)]
