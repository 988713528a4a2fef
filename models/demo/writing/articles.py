"""Articles as data and as Markdown, and ways in which a model writes them badly.

    # Title                 the form that the adapter learns: a title, an opening, two or
    opening                 three headed sections, an ending of one sentence
    ## Heading
    text
    ending

The bad ones are made from the good ones, each with one fault that small models really have, so that
preference training has something to turn away from.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random


@dataclass(frozen=True, slots=True, kw_only=True)
class Article:
    title: str
    opening: str
    sections: tuple[tuple[str, str], ...]  # heading, text
    ending: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BadArticle:
    """`ends`: whether its writer stops after it. One who goes in circles does not."""

    fault: str
    text: str
    ends: bool


def to_markdown(article: Article) -> str:
    parts = [f"# {article.title}", article.opening]
    for heading, text in article.sections:
        parts += [f"## {heading}", text]
    return "\n\n".join((*parts, article.ending))


def bad_article(article: Article, others: Sequence[Article], rng: Random) -> BadArticle:
    """One of the faults, by chance. `others` must hold an article with another title."""
    return rng.choice(_FAULTS)(article, others, rng)


def write_articles(articles: Iterable[Article], file: Path) -> None:
    lines = (json.dumps(asdict(article), ensure_ascii=False) for article in articles)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_articles(file: Path) -> list[Article]:
    articles = []
    for line in file.read_text(encoding="utf-8").splitlines():
        fields = json.loads(line)
        sections = tuple((heading, text) for heading, text in fields.pop("sections"))
        articles.append(Article(**fields, sections=sections))
    return articles


def _repeating(article: Article, others: Sequence[Article], rng: Random) -> BadArticle:
    """Says one paragraph again and again before it finds its end."""
    del others
    paragraphs = to_markdown(article).split("\n\n")
    index = rng.choice([at for at, text in enumerate(paragraphs) if not text.startswith("#")])
    paragraphs[index] = " ".join([paragraphs[index]] * rng.randrange(4, 7))
    return BadArticle(fault="repeating", text="\n\n".join(paragraphs), ends=True)


def _endless(article: Article, others: Sequence[Article], rng: Random) -> BadArticle:
    """Starts its sections anew where it should end."""
    del others
    again = [f"## {heading}\n\n{text}" for heading, text in article.sections]
    rng.shuffle(again)
    text = "\n\n".join((to_markdown(article), *again, again[0]))
    return BadArticle(fault="endless", text=text, ends=False)


def _unheaded(article: Article, others: Sequence[Article], rng: Random) -> BadArticle:
    """One long text: no title, or no headings, or neither."""
    del others
    paragraphs = to_markdown(article).split("\n\n")
    dropped = rng.choice(("# ", "## ", "#"))
    kept = [text for text in paragraphs if not text.startswith(dropped)]
    return BadArticle(fault="unheaded", text="\n\n".join(kept), ends=True)


def _off_topic(article: Article, others: Sequence[Article], rng: Random) -> BadArticle:
    """The right title, and then what belongs under another."""
    other = rng.choice([one for one in others if one.title != article.title])
    return BadArticle(
        fault="off topic",
        text=to_markdown(
            Article(
                title=article.title,
                opening=rng.choice((article.opening, other.opening)),
                sections=other.sections,
                ending=other.ending,
            )
        ),
        ends=True,
    )


_FAULTS: tuple[Callable[[Article, Sequence[Article], Random], BadArticle], ...] = (
    _repeating,
    _endless,
    _unheaded,
    _off_topic,
)
