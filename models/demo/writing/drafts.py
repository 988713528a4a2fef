"""Paragraphs drafted by SmolLM2, and articles put together from them.

    every paragraph a plan may want ──prompt, several samples──► drafts ──filters──► bank
    plan ──its paragraphs from the bank──► article, or nothing

Asked for a whole article, a model of this size wanders off; asked for two sentences about one
thing, it keeps to it. What an adapter learns from the result is the form, in the model's own words.
Names and numbers are filtered out, since it makes them up, and so are stories of its own life.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random

from models.demo.writing.articles import Article, to_markdown
from models.demo.writing.checks import judge_article
from models.demo.writing.measures import is_english, repetition, topic_share
from models.demo.writing.titles import ArticlePlan, Paragraph

_SENTENCE_END = re.compile(r"(?<=[a-z]{2}[.!?]) +(?=[A-Z])")
_UNWANTED = re.compile(
    r"\bas an ai\b|\bi\b|\bi'm\b|\bmy\b|\bsentences?\b|\bparagraph\b|\bblog\b|\barticle\b|\bessay\b"
    r"|\bhere(?:'s| is| are)\b|\bsure\b|\bcertainly\b|\bone day\b|\bonce\b|\bas the sun\b|\bsorry\b"
    r"|\bconsult\b|\bwas a\b|[0-9#*_`|<>\[\]{}:;\"“”()\\]",
    re.IGNORECASE,
)
_NAME = re.compile(r"(?<=[a-z,] )[A-Z]\w+")  # a capital within a sentence
_FEWEST_WORDS, _MOST_WORDS = 8, 55
_MOST_OF_ONE_WORD = 2
_MOST_SECTIONS, _FEWEST_SECTIONS = 3, 2

Write = Callable[[Sequence[str]], Sequence[str]]
Bank = Mapping[str, tuple[str, ...]]  # what a paragraph is about → good texts


def prompt_for(paragraph: Paragraph) -> str:
    count = "two sentences" if paragraph.heading else "one or two sentences"
    return f"Write {count} about {paragraph.about}."


def draft_bank(paragraphs: Iterable[Paragraph], write: Write, *, samples: int) -> Bank:
    """`write` answers prompts in their order, each time a little differently."""
    different = {paragraph.about: paragraph for paragraph in paragraphs}
    asked = [paragraph for paragraph in different.values() for _ in range(samples)]
    bank: dict[str, dict[str, None]] = {}
    for paragraph, draft in zip(asked, write(list(map(prompt_for, asked))), strict=True):
        text = usable(draft, paragraph)
        if text is not None:
            bank.setdefault(paragraph.about, {})[text] = None
    return {about: tuple(texts) for about, texts in bank.items()}


def assemble(plan: ArticlePlan, bank: Bank, rng: Random) -> Article | None:
    """None if the bank has nothing for the opening, the ending, or all but one section."""
    if plan.opening.about not in bank or plan.ending.about not in bank:
        return None
    sections = [one for one in plan.sections if one.about in bank]
    sections = sections[: rng.choice((_FEWEST_SECTIONS, _MOST_SECTIONS, _MOST_SECTIONS))]
    if len(sections) < _FEWEST_SECTIONS:
        return None
    article = Article(
        title=plan.title,
        opening=rng.choice(bank[plan.opening.about]),
        sections=tuple((one.heading, rng.choice(bank[one.about])) for one in sections),
        ending=rng.choice(bank[plan.ending.about]),
    )
    judged = judge_article(to_markdown(article), title=plan.title, stopped=True)
    return article if judged.passed else None


def usable(draft: str, paragraph: Paragraph) -> str | None:
    """The draft's first whole sentences, two at most, if they are fit to print."""
    first = draft.strip().split("\n")[0]
    sentences = [sentence.strip() for sentence in _SENTENCE_END.split(first)][:2]
    if sentences and not sentences[-1].endswith((".", "!", "?")):
        sentences.pop()  # cut off by the bound on its tokens
    text = " ".join(sentences)
    fits = (
        _FEWEST_WORDS <= len(text.split()) <= _MOST_WORDS
        and text[0].isupper()
        and is_english(text)
        and not _UNWANTED.search(text)
        and not repetition(text).is_endless
        and not _harps(text, paragraph.topic)
        and all(name in paragraph.about for name in _NAME.findall(text))
        and topic_share(paragraph.topic, text) >= 0.5
    )
    return text if fits else None


def write_bank(bank: Bank, file: Path) -> None:
    file.write_text(json.dumps(bank, ensure_ascii=False, indent=1), encoding="utf-8")


def read_bank(file: Path) -> Bank:
    bank = json.loads(file.read_text(encoding="utf-8"))
    return {about: tuple(texts) for about, texts in bank.items()}


def _harps(text: str, topic: str) -> bool:
    """Some longer word that is not the topic stands there again and again."""
    counts = Counter(re.findall(r"[a-z]{5,}", text.lower()))
    return any(count > _MOST_OF_ONE_WORD and word not in topic for word, count in counts.items())
