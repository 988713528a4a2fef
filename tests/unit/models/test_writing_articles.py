"""Titles, drafts and articles: what SmolLM2 may contribute, and how good and bad ones are made."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from models.demo.writing import (
    EVALUATION_SEEDS,
    TRAINING_SEEDS,
    draw_article_task,
    judge_article,
)
from models.demo.writing.articles import Article, bad_article, to_markdown
from models.demo.writing.drafts import (
    assemble,
    draft_bank,
    prompt_for,
    read_bank,
    usable,
    write_bank,
)
from models.demo.writing.titles import Paragraph, all_paragraphs, draw_plan
from tests.fakes.drafted_bank import drafted_bank

TEA = Paragraph(topic="green tea", heading="The Taste of Green Tea", about="the taste of green tea")
FIRST = "The taste of green tea is fresh and light."
GOOD = f"{FIRST} It goes well with a quiet afternoon."


def article(title: str, thing: str) -> Article:
    return Article(
        title=title,
        opening=f"There is much to be said about {thing}, and little of it is known.",
        sections=(
            ("A Look Back", f"In the past, {thing} could be found in every house by the sea."),
            ("Today", f"These days, people look for {thing} on quiet Sunday mornings."),
        ),
        ending=f"Whoever finds {thing} will keep looking.",
    )


def test_the_same_seed() -> None:
    """Gives the same title, headings and request; both belong to each other."""
    for seed in (*TRAINING_SEEDS[:50], *EVALUATION_SEEDS[:50]):
        assert draw_plan(seed) == draw_plan(seed)
        task = draw_article_task(seed)
        assert task.title == draw_plan(seed).title
        assert task.title in task.prompt


def test_titles_of_evaluations() -> None:
    """Are all different, those of no training article, and on topics that nobody drafted."""
    trained = {draw_plan(seed).title for seed in TRAINING_SEEDS[:3000]}
    plans = [draw_plan(seed) for seed in EVALUATION_SEEDS[7:207]]
    assert not trained & {plan.title for plan in plans}
    assert len({plan.title for plan in plans}) == len(plans)
    drafted = {paragraph.topic for paragraph in all_paragraphs()}
    assert not drafted & {plan.opening.topic for plan in plans}


def test_paragraphs_of_training() -> None:
    """Are all drafted: a plan never asks for one that is not."""
    drafted = {paragraph.about for paragraph in all_paragraphs()}
    for plan in map(draw_plan, TRAINING_SEEDS[:500]):
        wanted = (plan.opening, *plan.sections, plan.ending)
        assert {paragraph.about for paragraph in wanted} <= drafted


@pytest.mark.parametrize(
    ("draft", "text"),
    [
        (GOOD, GOOD),
        (f"  {GOOD} And a third one. And more", GOOD),
        (f"{GOOD}\n\nAnother paragraph.", GOOD),
        (f"{FIRST} It is also said that", FIRST),
        ("Green tea tastes fine.", None),
        ("green tea has a taste that many people know and love.", None),
        ("The taste of black coffee is strong, and some people like it.", None),
        ("As an AI language model, the taste of green tea is unknown to me.", None),
        ("Here are two sentences about the taste of green tea for you.", None),
        ("The taste of green tea was described in 1843 by a man of the sea.", None),
        ("The taste of green tea was described by Doctor Leonard of the sea.", None),
        ('The taste of green tea is called "fresh" by the people of the town.', None),
        ("The fresh taste of green tea is fresh, and it is a fresh and light thing.", None),
        ("In my opinion, the taste of green tea is fresh and very light.", None),
        ("Der Geschmack von green tea ist frisch und leicht und angenehm mild.", None),
        ("The taste of green tea is fresh and light and goes with a", None),
        ("", None),
    ],
)
def test_a_draft(draft: str, text: str | None) -> None:
    """Is cut to its first two whole sentences, or refused."""
    assert usable(draft, TEA) == text


def test_a_bank(tmp_path: Path) -> None:
    """Holds the good drafts of each paragraph once, asks for each as often as told, and is kept."""
    asked: list[str] = []

    def write(prompts: Sequence[str]) -> list[str]:
        asked.extend(prompts)
        return [GOOD, GOOD, "No.", "No.", "No.", "No."]

    other = Paragraph(topic="snow", about="snow")
    bank = draft_bank([TEA, other, TEA], write, samples=3)
    assert asked == [prompt_for(TEA)] * 3 + [prompt_for(other)] * 3
    assert bank == {TEA.about: (GOOD,)}
    write_bank(bank, tmp_path / "bank.json")
    assert read_bank(tmp_path / "bank.json") == bank


def test_assembling() -> None:
    """Makes articles that pass their judge, of two or three sections that the bank has."""
    bank = drafted_bank()
    for seed in TRAINING_SEEDS[:100]:
        plan = draw_plan(seed)
        made = assemble(plan, bank, Random(seed))
        assert made is not None
        assert len(made.sections) in (2, 3)
        assert {heading for heading, _ in made.sections} <= {one.heading for one in plan.sections}
        assert judge_article(to_markdown(made), title=plan.title, stopped=True).passed


def test_assembling_from_too_little() -> None:
    """Makes nothing: not without an opening, an ending, or a second section."""
    plan = draw_plan(0)
    full = drafted_bank((plan.opening, *plan.sections, plan.ending))
    assert assemble(plan, full, Random(0)) is not None
    sections = [paragraph.about for paragraph in plan.sections]
    for lacking in ([plan.opening.about], [plan.ending.about], sections[1:]):
        bank = {about: texts for about, texts in full.items() if about not in lacking}
        assert assemble(plan, bank, Random(0)) is None


def test_bad_articles() -> None:
    """Each has the fault that its name says, by the judge of good ones."""
    good = article("The Benefits of Wild Mushrooms", "wild mushrooms")
    other = article("The Joy of Sailing Ships", "sailing ships")
    faults: dict[str, set[str]] = {}
    for seed in range(60):
        bad = bad_article(good, [good, other], Random(seed))
        judged = judge_article(bad.text, title=good.title, stopped=bad.ends)
        assert not judged.passed or bad.fault == "off topic"
        names = {name for name in ("titled", "sectioned", "on_topic", "varied", "stopped")
                 if not getattr(judged, name)}  # fmt: skip
        faults.setdefault(bad.fault, set()).update(names)
    assert faults["repeating"] == {"varied"}
    assert "stopped" in faults["endless"]
    assert faults["unheaded"] == {"titled", "sectioned"}
    assert faults["off topic"] == {"on_topic"}
