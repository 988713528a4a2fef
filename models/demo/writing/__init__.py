"""Web pages and articles: what the adapters web and write learn, and how they are judged.

draw_page, draw_screenshot   instructions and the pages they ask for
draw_article_task            titles in some request's words
judge_page, judge_article    what an answer is worth, property by property
"""

from models.demo.writing.checks import (
    ArticleJudgement,
    PageJudgement,
    judge_article,
    judge_page,
)
from models.demo.writing.pages import PageExample, draw_page, draw_screenshot
from models.demo.writing.titles import ArticleTask, draw_article_task
from models.demo.writing.vocabulary import EVALUATION_SEEDS, TRAINING_SEEDS
from models.demo.writing.wishes import Wishes

__all__ = [
    "EVALUATION_SEEDS",
    "TRAINING_SEEDS",
    "ArticleJudgement",
    "ArticleTask",
    "PageExample",
    "PageJudgement",
    "Wishes",
    "draw_article_task",
    "draw_page",
    "draw_screenshot",
    "judge_article",
    "judge_page",
]
