"""What a page and an article are judged by, in evaluations and in tests.

Pages are judged as a browser reads them: html5lib parses them strictly, cssselect2 says which rules
of their style meet which element, and a colour asked for by name is found under any spelling that
CSS has for it. So whoever writes other HTML than our drawn pages is judged alike. Values that a
browser would have to compute, such as variables and scripts, count as no colour.

Articles are judged by text alone. Nobody here judges whether what they say is true.
"""

import re
from dataclasses import dataclass

from models.demo.writing.colours import ColourRole
from models.demo.writing.measures import repetition, topic_share
from models.demo.writing.page_reading import NotHtml, PageReading, read_page
from models.demo.writing.wishes import Wishes

_LEAST_ON_TOPIC = 0.5  # share of the title's topic words
_LEAST_SECTIONS = 2
_LEAST_SECTION_WORDS = 8
_HEADING = re.compile(r"^#{2,3} +(\S.*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageJudgement:
    """Each asked thing by itself; `passed` is what an evaluation counts.

    parses: valid HTML to the last tag. titled: the asked title in `title` and on the page.
    coloured: every asked colour where it was asked. sectioned: a heading for every asked section.
    furnished: asked list items, tables, button and footer. self_contained: nothing to be loaded
    from elsewhere. stopped: the model ended by itself.
    """

    parses: bool
    titled: bool
    coloured: bool
    sectioned: bool
    furnished: bool
    self_contained: bool
    stopped: bool

    @property
    def passed(self) -> bool:
        return self.parses and self.titled and self.coloured and self.sectioned and self.stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class ArticleJudgement:
    """titled: begins with "# " and the title. sectioned: at least two headings with text.
    on_topic: half of the title's topic words stand in the text. varied: no run of eight words
    more than twice, and 60 % of all runs of three words different. stopped: by itself.
    """

    titled: bool
    sectioned: bool
    on_topic: bool
    varied: bool
    stopped: bool

    @property
    def passed(self) -> bool:
        return self.titled and self.sectioned and self.on_topic and self.varied and self.stopped


def judge_page(answer: str, wishes: Wishes, *, stopped: bool) -> PageJudgement:
    try:
        page = read_page(answer)
    except NotHtml:
        return PageJudgement(
            parses=False,
            titled=False,
            coloured=False,
            sectioned=False,
            furnished=False,
            self_contained=False,
            stopped=stopped,
        )
    return PageJudgement(
        parses=True,
        titled=_has(page.title, wishes.title) and _has(page.text, wishes.title),
        coloured=all(_is_coloured(page, role, colour, wishes) for role, colour in wishes.colours),
        sectioned=all(page.headings_with(heading) for heading in wishes.headings),
        furnished=_is_furnished(page, wishes),
        self_contained=page.is_self_contained,
        stopped=stopped,
    )


def judge_article(answer: str, *, title: str, stopped: bool) -> ArticleJudgement:
    lines = [line.strip() for line in answer.strip().splitlines() if line.strip()]
    first = lines[0] if lines else ""
    body = "\n".join(line for line in lines if not line.startswith("#"))
    return ArticleJudgement(
        titled=first.startswith("# ") and _plain(first) == _plain(title),
        sectioned=_count_sections(lines) >= _LEAST_SECTIONS,
        on_topic=topic_share(title, body) >= _LEAST_ON_TOPIC,
        varied=bool(body) and not repetition(answer).is_endless,
        stopped=stopped,
    )


def _is_coloured(page: PageReading, role: ColourRole, colour: str, wishes: Wishes) -> bool:
    match role:
        case ColourRole.BACKGROUND:
            found = [page.background()]
        case ColourRole.BAR:
            found = page.grounds_of_title(wishes.title)
            return PageReading.colour(colour) in found
        case ColourRole.TITLE:
            found = [page.ink(element) for element in page.titles(wishes.title)]
        case ColourRole.HEADINGS:
            found = [page.ink(e) for name in wishes.headings for e in page.headings_with(name)]
        case ColourRole.BUTTON:
            found = [page.ground(element) for element in page.buttons_with(wishes.button)]
    return bool(found) and all(one == PageReading.colour(colour) for one in found)


def _is_furnished(page: PageReading, wishes: Wishes) -> bool:
    return (
        all(any(_has(text, item) for text in page.list_items) for item in wishes.items)
        and page.num_tables >= len(wishes.tables)
        and (not wishes.button or bool(page.buttons_with(wishes.button)))
        and _has(page.footer, wishes.footer)
    )


def _count_sections(lines: list[str]) -> int:
    """Different headings that have a text before the next heading."""
    words: dict[str, int] = {}
    heading = ""
    for line in lines:
        if match := _HEADING.match(line):
            heading = _plain(match[1])
        elif heading:
            words[heading] = words.get(heading, 0) + len(line.split())
    return sum(count >= _LEAST_SECTION_WORDS for count in words.values())


def _has(text: str, part: str) -> bool:
    return _plain(part) in _plain(text)


def _plain(text: str) -> str:
    """Letters and digits alone, in one case: quotation marks and dashes have many forms."""
    return " ".join(re.findall(r"\w+", text.casefold()))
