"""The tasks for the adapters: pages from instructions and screenshots, articles from titles.

Every property that `models.demo.writing.checks` judges has a row of its own; `all` is the row of
those that the checks count as passed.
"""

from dataclasses import asdict, fields
from functools import partial

from models.demo.evaluation.case import Case, Question, Reply, Shown, Task
from models.demo.evaluation.media import png
from models.demo.writing.checks import ArticleJudgement, PageJudgement, judge_article, judge_page
from models.demo.writing.pages import PageExample, draw_page, draw_screenshot
from models.demo.writing.titles import draw_article_task
from models.demo.writing.vocabulary import EVALUATION_SEEDS
from models.demo.writing.wishes import Wishes

PASSED = "all"
DEFAULT_COUNT = 50
WRITTEN = ("web", "screenshot", "write")


def written_tasks(count: int = DEFAULT_COUNT) -> tuple[Task, ...]:
    """Pages, pages after screenshots, and articles, `count` of them each."""
    pages = _targets(PageJudgement, 0.95)
    articles = _targets(ArticleJudgement, 0.90)
    # The longest drawn page has some 300 tokens, the longest article some 500.
    return (
        Task(
            name="web",
            make=page_case,
            seeds=EVALUATION_SEEDS,
            adapter="web",
            max_output_tokens=768,
            targets=pages,
            count=count,
        ),
        Task(
            name="screenshot",
            make=screenshot_case,
            seeds=EVALUATION_SEEDS,
            adapter="web",
            max_output_tokens=768,
            targets=dict.fromkeys(pages),
            count=count,
        ),
        Task(
            name="write",
            make=article_case,
            seeds=EVALUATION_SEEDS,
            adapter="write",
            max_output_tokens=1024,
            targets=articles,
            count=count,
        ),
    )


def page_case(seed: int) -> Case:
    return _page(seed, draw_page(seed))


def screenshot_case(seed: int) -> Case:
    return _page(seed, draw_screenshot(seed))


def article_case(seed: int) -> Case:
    task = draw_article_task(seed)
    question = Question(
        text=task.prompt,
        expected=f"an article titled {task.title!r}",
        judge=partial(_judge_article, task.title),
    )
    return Case(seed=seed, shown=Shown(), questions=(question,))


def _page(seed: int, example: PageExample) -> Case:
    question = Question(
        text=example.instruction,
        expected=_in_words(example.wishes),
        judge=partial(_judge_page, example.wishes),
        form="page",
        key=example.wishes,
    )
    shown = Shown(pictures=(png(example.picture),)) if example.picture else Shown()
    return Case(seed=seed, shown=shown, questions=(question,))


def _judge_page(wishes: Wishes, reply: Reply) -> dict[str, bool]:
    judgement = judge_page(reply.text, wishes, stopped=reply.is_complete)
    return {PASSED: judgement.passed, **asdict(judgement)}


def _judge_article(title: str, reply: Reply) -> dict[str, bool]:
    judgement = judge_article(reply.text, title=title, stopped=reply.is_complete)
    return {PASSED: judgement.passed, **asdict(judgement)}


def _targets(
    judgement: type[PageJudgement | ArticleJudgement], passed: float
) -> dict[str, float | None]:
    return {PASSED: passed, **{field.name: None for field in fields(judgement)}}


def _in_words(wishes: Wishes) -> str:
    """What was asked for by name, for people who read the failures."""
    colours = (f"{role.value} {colour}" for role, colour in wishes.colours)
    return "; ".join((repr(wishes.title), *colours, *wishes.headings))
