"""How an answer is judged, by its text alone.

An answer is right if it says what is expected and, beside that, nothing that would be another
answer to the same question. What does not count: case, quotes, punctuation, American or British
spelling, digits or words for counts, "Image 2" or "the second picture" for "Image2".

A printed word is compared letter for letter but for its case: `HOUSE` on a sign is answered
"house" or "HOUSE".
"""

import re
from dataclasses import dataclass

COLOUR_NAMES = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey",
)  # fmt: skip
SHAPE_NAMES = (
    "circle", "square", "triangle", "star", "rectangle", "heart",
    "cross", "diamond", "hexagon", "oval", "arrow", "moon",
)  # fmt: skip
COUNT_NAMES = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
)  # fmt: skip
PLACE_NAMES = (
    "top left", "top", "top right",
    "left", "centre", "right",
    "bottom left", "bottom", "bottom right",
)  # fmt: skip
DIRECTION_NAMES = ("from left to right", "from right to left", "upwards", "downwards")

_SPELLINGS = {
    "gray": "grey", "violet": "purple", "center": "centre", "middle": "centre", "upper": "top",
    "lower": "bottom", "crescent": "moon", "ellipse": "oval", "isn't": "is not",
    "aren't": "are not", "doesn't": "does not", "don't": "do not", "zero": "no", "none": "no",
    "nothing": "no", "neither": "no", "bigger": "larger", "biggest": "largest",
    "upward": "upwards", "up": "upwards", "downward": "downwards", "down": "downwards",
    "rightward": "rightwards", "leftward": "leftwards",
    **{str(number): name for number, name in enumerate(COUNT_NAMES)},
}  # fmt: skip
_PLURALS = {f"{name}s": name for name in SHAPE_NAMES} | {"crosses": "cross"}
_PICTURE = re.compile(r"\b(?:image|picture|photo)\s*(?:no\.?\s*|number\s*)?(\d)\b")
_ORDINAL = re.compile(r"\b(first|second|third) (?:image|picture|photo|one)\b")
_QUOTED = re.compile(r"[\"“”]([^\"“”]*)[\"“”]")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?\d?|-?\d+(?:\.\d+)?")
_FILLER = frozenset(
    ("the", "a", "this", "that", "word", "words", "text", "line", "number", "printed", "written",
     "shown", "is", "it", "says", "say", "reads", "on", "in", "here", "sign", "picture", "image",
     "image1", "image2", "image3", "of")
)  # fmt: skip
_DENIALS = ("no", "not any", "is not", "are not", "does not", "do not")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What must be said, and what must not be said beside it.

    `said`: of each group one phrase must occur. `rivals`: phrases that must not occur once those
    are taken away; so "top left" is no rival of itself, and "top left" does not pass for "top".
    `is_verbatim`: nothing else may be said at all, but for words like "the word is".
    """

    said: tuple[tuple[str, ...], ...]
    rivals: frozenset[str] = frozenset()
    is_verbatim: bool = False

    def accepts(self, answer: str) -> bool:
        """Whether a reader of the picture would call this answer right."""
        quoted = _QUOTED.findall(answer) if self.is_verbatim else []
        words = _words(" ".join(quoted) if quoted else answer, counts=not self.is_verbatim)
        for phrases in self.said:
            for phrase in sorted(phrases, key=len, reverse=True):
                without = _without(words, phrase.split())
                if without is not None:
                    words = without
                    break
            else:
                return False
        if self.is_verbatim:
            return not words if quoted else all(word in _FILLER for word in words)
        return not any(_without(words, rival.split()) is not None for rival in self.rivals)


def expect_colour(name: str) -> Expectation:
    return Expectation(said=((name,),), rivals=frozenset(COLOUR_NAMES) - {name} | {"no"})


def expect_shape(name: str, *, asked: str = "") -> Expectation:
    """`asked`: a shape that the question names and the answer may repeat."""
    rivals = frozenset(SHAPE_NAMES) - {name, asked} | {"no"}
    return Expectation(said=((name,),), rivals=rivals)


def expect_count(count: int) -> Expectation:
    name = COUNT_NAMES[count]
    return Expectation(said=((name,),), rivals=frozenset(COUNT_NAMES) - {name} | {"not"})


def expect_place(name: str) -> Expectation:
    """`left` may be called the centre left, as the middle of the left side."""
    phrases = (name,) if " " in name else (name, f"centre {name}", f"{name} centre")
    rivals = frozenset(("top", "bottom", "left", "right", "centre", "no")) - set(name.split())
    return Expectation(said=(phrases,), rivals=rivals)


def expect_direction(name: str) -> Expectation:
    phrases = {
        "from left to right": ("left to right", "to the right", "rightwards"),
        "from right to left": ("right to left", "to the left", "leftwards"),
        "upwards": ("upwards", "bottom to top", "to the top"),
        "downwards": ("downwards", "top to bottom", "to the bottom"),
    }[name]
    rivals = ("left", "right", "upwards", "downwards", "rightwards", "leftwards", "top", "bottom")
    return Expectation(said=(phrases,), rivals=frozenset(rivals))


def expect_picture(number: int) -> Expectation:
    rivals = {"image1", "image2", "image3", "image4", "both", "same"} - {f"image{number}"}
    return Expectation(said=((f"image{number}",),), rivals=frozenset(rivals))


def expect_yes_or_no(*, yes: bool) -> Expectation:
    if yes:
        return Expectation(said=(("yes", "there is", "there are"),), rivals=frozenset(_DENIALS))
    return Expectation(said=(_DENIALS,), rivals=frozenset(("yes",)))


def expect_none(*, rivals: tuple[str, ...] = ()) -> Expectation:
    """It is denied; `rivals` are what an invented answer would say."""
    return Expectation(said=(_DENIALS,), rivals=frozenset(("yes", *rivals)))


def expect_verbatim(text: str) -> Expectation:
    return Expectation(said=((text.lower(),),), is_verbatim=True)


def expect_number(number: int, *, rivals: tuple[str, ...]) -> Expectation:
    """A value of a chart, in digits or, up to ten, in a word."""
    said = _number_word(str(number))
    return Expectation(said=((said,),), rivals=frozenset(map(_number_word, rivals)) - {said})


def expect_phrase(phrase: str, *, rivals: tuple[str, ...]) -> Expectation:
    """One of several phrases that exclude each other."""
    return Expectation(said=((phrase,),), rivals=frozenset(rivals) - {phrase})


def _number_word(digits: str) -> str:
    return _SPELLINGS.get(digits, digits)


def _words(text: str, *, counts: bool) -> list[str]:
    """Lower-case words in one spelling. `counts`: numbers and synonyms are made words too."""
    text = text.lower().replace("’", "'")
    if not counts:
        return _WORD.findall(text)
    text = _PICTURE.sub(r"image\1", text)
    text = _ORDINAL.sub(lambda m: f"image{('first', 'second', 'third').index(m[1]) + 1}", text)
    words: list[str] = []
    for word in _WORD.findall(text):
        words += _SPELLINGS.get(word, _PLURALS.get(word, word)).split()
    return words


def _without(words: list[str], phrase: list[str]) -> list[str] | None:
    """The words less every occurrence of the phrase; None if it does not occur."""
    left: list[str] = []
    at, found = 0, False
    while at < len(words):
        if words[at : at + len(phrase)] == phrase:
            at, found = at + len(phrase), True
        else:
            left.append(words[at])
            at += 1
    return left if found else None
