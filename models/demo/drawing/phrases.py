"""The many ways in which questions are put, and words for what is asked about.

Answers are not here: each kind of question has one form of answer, which stands where the
question is made. British spelling; `worded` turns some questions into American ones.
"""

from random import Random

from models.demo.drawing.judging import COUNT_NAMES

_PICTURE_WORDS = ("picture", "picture", "image", "photo")
_OPEN_WORDS = ("What", "Which", "How", "Where", "Is ", "Can ", "Do ", "Does ", "In ")
_LEADS = ("", "", "", "", "", "", "Please tell me: ", "Look closely. ", "Tell me, ", "Hey, ")

PHRASES: dict[str, tuple[str, ...]] = {
    "colour": (
        "What colour is the {x}?", "What is the colour of the {x}?", "Which colour is the {x}?",
        "What colour does the {x} have?", "The {x} is what colour?", "Name the colour of the {x}.",
        "Tell me the colour of the {x}.", "Which colour does the {x} have?",
        "What colour is the {x} in the {picture}?", "In which colour is the {x} drawn?",
        "Say what colour the {x} is.", "What's the colour of the {x}?",
        "Can you tell me what colour the {x} is?", "Colour of the {x}?",
    ),
    "colours": (
        "What colour are the {x}?", "What is the colour of the {x}?", "Which colour are the {x}?",
        "What colour do the {x} have?", "Name the colour of the {x}.",
        "What colour are the {x} in the {picture}?", "Tell me what colour the {x} are.",
    ),
    "colour it": (
        "What colour is it?", "And what colour is it?", "Which colour is it?",
        "And its colour?", "What is its colour?", "What colour does it have?",
    ),
    "colours them": (
        "What colour are they?", "And what colour are they?", "Which colour are they?",
        "And their colour?", "What colour do they have?",
    ),
    "colour of ground": (
        "What colour is the background?", "Which colour is the background?",
        "What is the colour of the background?", "What colour is behind the shapes?",
        "And the background, what colour is it?",
    ),
    "shape by colour": (
        "What shape is {c}?", "Which shape is {c}?", "What is the {c} shape?",
        "What is the {c} thing?", "The {c} thing is what shape?", "What shape is the {c} object?",
        "Which shape is {c} in the {picture}?", "What kind of shape is {c}?",
        "Name the {c} shape.", "What shape does the {c} thing have?", "What is {c} here?",
        "What form does the {c} object have?", "Tell me which shape is {c}.",
    ),
    "shape by place": (
        "What shape is {p}?", "Which shape is {p}?", "What is {p}?", "What can you see {p}?",
        "What is there {p}?", "What do you see {p}?", "What is shown {p}?",
        "Which shape do you see {p}?", "What stands {p}?", "Name the shape {p}.",
    ),
    "only shape": (
        "What shape is it?", "What shape is this?", "Which shape is shown?",
        "What shape do you see?", "What shape is in the {picture}?", "Which shape is this?",
        "What is the shape in the {picture}?", "What shape is drawn here?", "Name the shape.",
        "What kind of shape is this?", "What do you call this shape?",
        "Which shape can you see in the {picture}?", "What shape does the {picture} show?",
    ),
    "count": (
        "How many {xs} are there?", "How many {xs} are in the {picture}?",
        "How many {xs} do you see?", "How many {xs} can you see?", "Count the {xs}.",
        "What is the number of {xs}?", "How many {xs} are shown?", "How many {xs} are drawn here?",
        "How many {xs} does the {picture} show?", "Please count the {xs}.",
        "How many {xs} can you count?", "How many {xs} has the {picture}?",
        "Tell me how many {xs} there are.", "Number of {xs}?", "What's the count of {xs}?",
    ),
    "count them": (
        "How many of them are there?", "How many are there?", "And how many are there?",
        "How many do you see?", "Can you count them?",
    ),
    "place": (
        "Where is the {x}?", "Where is the {x} in the {picture}?", "Where can I find the {x}?",
        "Where do you see the {x}?", "In which part of the {picture} is the {x}?",
        "Where in the {picture} is the {x}?", "What is the position of the {x}?",
        "Where do I find the {x}?", "Where does the {x} stand?", "At what place is the {x}?",
        "Tell me where the {x} is.", "Can you say where the {x} is?", "Locate the {x}.",
        "Position of the {x}?",
    ),
    "place it": (
        "Where is it?", "And where is it?", "Where can I find it?", "Where do you see it?",
        "And its position?", "Where in the {picture} is it?",
    ),
    "size": (
        "Is the {x} large or small?", "How large is the {x}?", "How big is the {x}?",
        "What size is the {x}?", "What size does the {x} have?", "Is the {x} big or small?",
    ),
    "size it": (
        "Is it large or small?", "How big is it?", "What size is it?", "And its size?",
        "And how large is it?",
    ),
    "largest": (
        "Which shape is the largest?", "What is the largest shape?", "Which shape is the biggest?",
        "Which of the shapes is the largest?", "What is the biggest shape in the {picture}?",
    ),
    "relation": (
        "What is {r} the {x}?", "What shape is {r} the {x}?", "Which shape is {r} the {x}?",
        "What do you see {r} the {x}?", "What can be seen {r} the {x}?",
        "Name the shape {r} the {x}.",
    ),
    "is it so": (
        "Is the {x} {r} the {y}?", "Is it true that the {x} is {r} the {y}?",
        "Can the {x} be found {r} the {y}?", "Does the {x} stand {r} the {y}?",
    ),
    "word": (
        "What word is printed?", "What word is printed in the {picture}?", "Which word is this?",
        "Which word do you see?", "What word can you read?", "Read the word.", "What does it say?",
        "What is written here?", "What word is shown?", "What does the {picture} say?",
        "Which word is written in the {picture}?", "What is the word?", "Can you read the word?",
        "What word is written there?", "Please read the word in the {picture}.",
        "What does the text say?", "What's the printed word?", "Read what is written.",
        "Which word does the {picture} show?", "What word stands there?",
    ),
    "word on sign": (
        "What does the sign say?", "What word is on the sign?", "Read the sign.",
        "What is written on the sign?", "Which word is on the sign?", "What is on the sign?",
        "What word stands on the sign?",
    ),
    "number": (
        "What number is printed?", "Which number is this?", "What number do you see?",
        "Read the number.", "What number can you read?", "What is the number?",
        "Which number does the {picture} show?", "What number is in the {picture}?",
        "What number is written here?", "Which number is printed in the {picture}?",
    ),
    "line": (
        "What is written here?", "Read the text.", "What does the text say?",
        "What does the {picture} say?", "Read the line.", "What text do you see?",
        "What text is printed in the {picture}?", "What can you read?", "Which words are printed?",
        "Please read the text in the {picture}.", "What is printed here?",
    ),
    "is there": (
        "Is there {a_x}?", "Is there {a_x} in the {picture}?", "Do you see {a_x}?",
        "Can you see {a_x}?", "Does the {picture} show {a_x}?", "Is {a_x} in the {picture}?",
        "Can you find {a_x}?", "Is there {a_x} anywhere?", "Has the {picture} got {a_x}?",
        "Is {a_x} shown?", "Can {a_x} be seen?",
    ),
    "describe": (
        "Describe the {picture}.", "What do you see?", "What is in the {picture}?",
        "What does the {picture} show?", "Please describe this {picture}.",
        "What can you see in the {picture}?", "Tell me what you see.", "What is shown here?",
        "Describe what you see.", "Give a short description of the {picture}.",
        "What's in this {picture}?", "Can you describe the {picture}?", "What is this?",
        "Tell me about this {picture}.", "Describe this.", "What is there to see?",
    ),
}  # fmt: skip


def worded(rng: Random, kind: str, **slots: str) -> str:
    """A question of the kind, its slots filled in."""
    question = rng.choice(PHRASES[kind]).format(picture=rng.choice(_PICTURE_WORDS), **slots)
    if rng.random() < 0.5:
        question = american(question)
    if rng.random() < 0.12:
        question = question.lower()
    return led(rng, question)


def led(rng: Random, question: str) -> str:
    """The question, now and then with some words before it."""
    if not question.startswith(_OPEN_WORDS):
        return question  # "Tell me" and "And where is it?" begin as they do
    lead = rng.choice(_LEADS)
    return lead + (question[0].lower() + question[1:] if lead.endswith((": ", ", ")) else question)


def american(text: str) -> str:
    for british, other in (("olour", "olor"), ("grey", "gray"), ("centre", "center")):
        text = text.replace(british, other)
    return text


def a(noun: str) -> str:
    """The noun with its article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"


def counted(count: int, noun: str) -> str:
    """A number of things in words: three circles, one star, no hearts."""
    return f"{COUNT_NAMES[count]} {noun if count == 1 else plural(noun)}"


def at(place: str) -> str:
    """A place with its preposition: "in the top left", "on the left", "at the top"."""
    if " " in place or place == "centre":
        return f"in the {place}"
    return f"on the {place}" if place in ("left", "right") else f"at the {place}"


def listed(parts: list[str]) -> str:
    """Parts in a row: a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
