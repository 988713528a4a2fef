"""Endless batches for the three adapters, made by worker processes from seeds.

    web   instruction (or screenshot) → page
    sft   a title in some request's words → article, put together from the bank
    dpo   the same request twice: a good article in the even rows, a bad one in the odd rows

Worker k of n takes every n-th seed, so nothing is drawn twice in a run.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ixc_runtime.checkpoint.demo_model import SYSTEM_INSTRUCTION
from models.demo.training.batches import (
    HD_NUM_SINGLE,
    Batch,
    Framer,
    Length,
    Sample,
    batches,
    prepare_picture,
)
from models.demo.writing.articles import Article, bad_article, to_markdown
from models.demo.writing.drafts import Bank, assemble
from models.demo.writing.pages import draw_page, draw_screenshot
from models.demo.writing.titles import draw_article_task, draw_plan

INVENTED_COLOURS_SHARE = 0.3  # of the pages
SYSTEM_SHARE = 0.1  # conversations that open with the model's own system text


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """What all three have in common. A continued run starts behind its last seed."""

    tokenizer_file: Path
    lengths: tuple[Length, ...]
    first_seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WebLessons(Lessons):
    screenshot_share: float

    def samples(self, framer: Framer, seeds: Iterator[int]) -> Iterator[Sample]:
        for seed in seeds:
            rng = Random(seed)
            shot = rng.random() < self.screenshot_share
            example = (
                draw_screenshot(seed)
                if shot
                else draw_page(seed, invented_share=INVENTED_COLOURS_SHARE)
            )
            pictures = (
                [prepare_picture(example.picture, hd_num=HD_NUM_SINGLE)] if example.picture else []
            )
            yield framer.chat(
                [(example.instruction, example.html)],
                pictures,
                task="screenshot" if shot else "page",
                system=_system(rng),
                decisive=[[[f": {colour};"] for _, colour in example.wishes.colours]],
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ArticleLessons(Lessons):
    bank: Bank

    def samples(self, framer: Framer, seeds: Iterator[int]) -> Iterator[Sample]:
        for seed, article in _articles(self.bank, seeds):
            prompt = draw_article_task(seed).prompt
            turns = [(prompt, to_markdown(article))]
            yield framer.chat(turns, task="article", system=_system(Random(seed)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceLessons(Lessons):
    """One length alone, its batch even: pairs must not be sorted apart."""

    bank: Bank

    def samples(self, framer: Framer, seeds: Iterator[int]) -> Iterator[Sample]:
        longest = self.lengths[-1].tokens
        last: Article | None = None
        for seed, article in _articles(self.bank, seeds):
            other, last = last, article
            if other is None or other.title == article.title:
                continue
            rng = Random(seed)
            prompt, system = draw_article_task(seed).prompt, _system(rng)
            good = framer.chat([(prompt, to_markdown(article))], task="good", system=system)
            worse = bad_article(article, [other], rng)
            bad = framer.chat([(prompt, worse.text)], task=worse.fault, system=system)
            if not worse.ends:
                bad = _cut(bad, min(longest, len(bad.ids) - 2))  # not its end of turn
            if max(len(good.ids), len(bad.ids)) <= longest:
                yield good
                yield bad


AnyLessons = WebLessons | ArticleLessons | PreferenceLessons


class LessonBatches(IterableDataset[Batch]):
    def __init__(self, lessons: AnyLessons) -> None:
        super().__init__()
        self._lessons = lessons

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        info = get_worker_info()
        index, count = (info.id, info.num_workers) if info else (0, 1)
        framer = Framer(self._lessons.tokenizer_file)
        samples = self._lessons.samples(framer, _seeds(self._lessons.first_seed + index, count))
        return batches(samples, self._lessons.lengths, framer.pad)


def load_lessons(lessons: AnyLessons, *, num_workers: int) -> DataLoader[Batch]:
    return DataLoader(
        LessonBatches(lessons),
        batch_size=None,
        num_workers=num_workers,
        prefetch_factor=3 if num_workers else None,
        in_order=False,
    )


def _articles(bank: Bank, seeds: Iterator[int]) -> Iterator[tuple[int, Article]]:
    for seed in seeds:
        article = assemble(draw_plan(seed), bank, Random(seed))
        if article is not None:
            yield seed, article


def _seeds(first: int, step: int) -> Iterator[int]:
    while True:
        yield first
        first += step


def _system(rng: Random) -> str | None:
    return SYSTEM_INSTRUCTION if rng.random() < SYSTEM_SHARE else None


def _cut(sample: Sample, length: int) -> Sample:
    return replace(sample, ids=sample.ids[:length], labels=sample.labels[:length])
