"""The tasks for the adapters: what is drawn passes its own judge, property by property."""

from collections.abc import Callable

import pytest

from models.demo.evaluation.case import Case, Reply
from models.demo.evaluation.written import (
    PASSED,
    WRITTEN,
    article_case,
    page_case,
    screenshot_case,
    written_tasks,
)
from models.demo.writing.pages import PageExample, draw_page, draw_screenshot
from models.demo.writing.vocabulary import EVALUATION_SEEDS

SEEDS = EVALUATION_SEEDS[:20]
ARTICLE = """# {title}

Much can be said about {title}.

## A Look Back

It began long ago in a small town near the sea.

## Today

People still enjoy it with their friends and families.
"""


def verdicts(case: Case, text: str, *, is_complete: bool = True) -> dict[str, bool]:
    (question,) = case.questions
    assert question.judge is not None
    return dict(question.judge(Reply(text=text, is_complete=is_complete, seconds=0.0)))


def test_the_tasks() -> None:
    """Each with its adapter, a target for what counts and a row for every property."""
    tasks = {task.name: task for task in written_tasks(7)}
    assert tuple(tasks) == WRITTEN
    assert [task.adapter for task in tasks.values()] == ["web", "web", "write"]
    assert {task.count for task in tasks.values()} == {7}
    assert tasks["web"].targets[PASSED] == 0.95
    for task in tasks.values():
        (question,) = task.make(SEEDS[0]).questions
        found = verdicts(task.make(SEEDS[0]), "")
        assert set(found) == set(task.targets)
        assert question.text


@pytest.mark.parametrize(
    ("make", "draw"), [(page_case, draw_page), (screenshot_case, draw_screenshot)]
)
def test_a_drawn_page(make: Callable[[int], Case], draw: Callable[[int], PageExample]) -> None:
    """Has everything that its instruction asks for; cut off, it has not."""
    for seed in SEEDS:
        html = draw(seed).html
        assert set(verdicts(make(seed), html).values()) == {True}
        cut = verdicts(make(seed), html[: len(html) // 2], is_complete=False)
        assert not cut["stopped"]
        assert not cut[PASSED]


def test_a_screenshot_is_shown() -> None:
    """As a picture; an instruction comes without."""
    (picture,) = screenshot_case(SEEDS[0]).shown.pictures
    assert picture.startswith(b"\x89PNG")
    assert page_case(SEEDS[0]).shown.is_empty


def test_an_article() -> None:
    """Passes with its title, its headings and an end; not under another title."""
    case = article_case(SEEDS[0])
    title = case.questions[0].expected.removeprefix("an article titled ")[1:-1]
    assert title in case.questions[0].text
    assert verdicts(case, ARTICLE.format(title=title))[PASSED]
    other = verdicts(case, ARTICLE.format(title="Submarines"))
    assert not other["titled"]
    assert not other[PASSED]
    assert not verdicts(case, ARTICLE.format(title=title), is_complete=False)["stopped"]
