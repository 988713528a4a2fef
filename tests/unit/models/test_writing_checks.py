"""The judges of pages and articles: what is right passes, and each planted fault is found."""

from dataclasses import asdict

import pytest

from models.demo.writing import Wishes, judge_article, judge_page
from models.demo.writing.colours import ColourRole
from models.demo.writing.measures import is_english, repetition, topic_share

WISHES = Wishes(
    title="Blue Harbour Bakery",
    colours=(
        (ColourRole.BACKGROUND, "ivory"),
        (ColourRole.BAR, "navy"),
        (ColourRole.HEADINGS, "teal"),
        (ColourRole.BUTTON, "gold"),
    ),
    headings=("Menu", "Prices"),
    list_heading="Menu",
    items=("rye bread", "apple cake"),
    tables=("Prices",),
    button="Order now",
    footer="See you soon.",
)
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Blue Harbour Bakery</title>
<style>
body { background: ivory; color: black; }
header { background: navy; color: white; }
h2 { color: teal; }
button { background: gold; }
</style>
</head>
<body>
<header><h1>Blue Harbour Bakery</h1></header>
<h2>Menu</h2>
<ul>
<li>Rye bread</li>
<li>Apple cake</li>
</ul>
<h2>Prices</h2>
<table>
<tr><td>Rye bread</td><td>$4</td></tr>
<tr><td>Apple cake</td><td>$3</td></tr>
</table>
<button>Order now</button>
<footer>See you soon.</footer>
</body>
</html>"""
TITLE_WISHES = Wishes(title="Fox", colours=((ColourRole.TITLE, "navy"),), headings=("News",))


def failed(answer: str, wishes: Wishes = WISHES, *, stopped: bool = True) -> set[str]:
    judged = judge_page(answer, wishes, stopped=stopped)
    found = {name for name, holds in asdict(judged).items() if not holds}
    assert judged.passed == (not found - {"furnished", "self_contained"})
    return found


def test_a_good_page() -> None:
    """Has everything."""
    assert failed(PAGE) == set()


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("<title>Blue Harbour Bakery", "<title>Bakery", "titled"),
        ("<h1>Blue Harbour Bakery", "<h1>Blue Harbor", "titled"),
        ("background: ivory", "background: beige", "coloured"),
        ("background: navy", "background: blue", "coloured"),
        ("h2 { color: teal; }", "", "coloured"),
        ("background: gold", "color: gold", "coloured"),
        ("<h2>Menu</h2>", "<p>Menu</p>", "sectioned"),
        ("<li>Apple cake</li>", "", "furnished"),
        ("<tr><td>Apple cake</td><td>$3</td></tr>", "", "furnished"),
        ("<button>Order now", "<button>Buy", "furnished"),
        ("<footer>See you soon.</footer>", "", "furnished"),
        (
            "<h2>Menu",
            '<img src="https://elsewhere.example/x.png" alt=""><h2>Menu',
            "self_contained",
        ),
        ("<style>", "<style>@import 'x.css';", "self_contained"),
        ("</title>", '</title><link rel="stylesheet" href="x.css">', "self_contained"),
    ],
)
def test_a_planted_fault(before: str, after: str, fault: str) -> None:
    """Is found, and nothing else is."""
    assert PAGE.count(before) >= 1
    found = failed(PAGE.replace(before, after, 1))
    # A title in a bar cannot be coloured where there is no such title.
    assert fault in found
    assert found <= {fault, "coloured", "furnished"}


@pytest.mark.parametrize(
    "broken",
    [
        PAGE.removeprefix("<!DOCTYPE html>\n"),
        PAGE.replace("</ul>", ""),
        PAGE.replace("</h2>", "</h3>"),
        PAGE.replace("</header>", "</div>"),
        PAGE.removesuffix("</html>"),
        PAGE[: len(PAGE) // 2],
        f"```html\n{PAGE}\n```",
        f"Here is the page: {PAGE}",
        f"{PAGE}\n<p>And more.</p>",
        "I cannot make pages.",
        "",
    ],
)
def test_what_is_no_page(broken: str) -> None:
    """Fails in everything that a page is judged by."""
    assert failed(broken) >= {"parses", "titled", "coloured", "sectioned"}


def test_a_page_that_does_not_stop() -> None:
    """Fails, however good it is."""
    assert failed(PAGE, stopped=False) == {"stopped"}


@pytest.mark.parametrize(
    "style",
    [
        "h1 { color: #000080; }",
        "h1 { color: rgb(0, 0, 128) }",
        "#top { color: NAVY }",
        "body { color: navy; }",
        "body > div h1.big { color: navy } h1 { color: red }",
        "h1 { color: red } h1 { color: navy }",
        "h1::before { color: red } h1:hover { color: green } h1 { color: navy }",
        "h1 ~~ { broken } h1 { color: navy; }",
    ],
)
def test_a_colour_in_another_form(style: str) -> None:
    """Is the same colour: notation, inheritance and the cascade are a browser's."""
    page = (
        f"<!DOCTYPE html><html><head><title>Fox</title><style>{style}</style></head><body><div>"
        '<h1 id="top" class="big">The Fox</h1><h2>Our News</h2></div></body></html>'
    )
    assert failed(page, TITLE_WISHES) == set()


def test_a_colour_in_an_attribute() -> None:
    """Overrides the style sheet."""
    page = (
        "<!DOCTYPE html><html><head><title>Fox</title><style>h1 { color: navy }</style></head>"
        '<body><h1 style="color: red">Fox</h1><h2>News</h2></body></html>'
    )
    assert failed(page, TITLE_WISHES) == {"coloured"}
    assert failed(page.replace("red", "navy"), TITLE_WISHES) == set()


TITLE = "The Benefits of Green Tea"
ARTICLE = f"""# {TITLE}

Green tea has been a part of many kitchens for a long time.

## The Taste

Its taste is fresh and a little bitter, and it changes with the water.

## At Home

Take your time, warm the pot first and let the leaves rest for a while.

A cup of it makes any afternoon better."""


def article_faults(answer: str, *, stopped: bool = True, title: str = TITLE) -> set[str]:
    judged = judge_article(answer, title=title, stopped=stopped)
    found = {name for name, holds in asdict(judged).items() if not holds}
    assert judged.passed == (not found)
    return found


def test_a_good_article() -> None:
    """Has everything; quotation marks around the title and its case do not matter."""
    assert article_faults(ARTICLE) == set()
    assert article_faults(ARTICLE.replace(TITLE, "“The benefits of green tea”")) == set()


@pytest.mark.parametrize(
    ("answer", "faults"),
    [
        ("", {"titled", "sectioned", "on_topic", "varied"}),
        (ARTICLE.replace(f"# {TITLE}", TITLE), {"titled"}),
        (ARTICLE.replace(f"# {TITLE}", "# Coffee"), {"titled"}),
        (ARTICLE.replace("## ", ""), {"sectioned"}),
        (ARTICLE.replace("## At Home", "## The Taste"), {"sectioned"}),
        (ARTICLE[: ARTICLE.index("Take your time")], {"sectioned"}),
        (ARTICLE.replace("Green tea has", "Snow has"), {"on_topic"}),
        (ARTICLE + "\nIts taste is fresh and a little bitter." * 12, {"varied"}),
        (ARTICLE + " so good" * 60, {"varied"}),
    ],
)
def test_a_bad_article(answer: str, faults: set[str]) -> None:
    """Each planted fault is found, and no other."""
    assert article_faults(answer) == faults


def test_an_article_that_does_not_stop() -> None:
    """Fails, however good it is."""
    assert article_faults(ARTICLE, stopped=False) == {"stopped"}


def test_a_run_of_eight_words() -> None:
    """Twice is a refrain, three times a loop."""
    run = "the rain in the hills falls softly again. "
    between = "Meanwhile something else happened elsewhere, and nobody minded it very much. "
    assert not repetition(run + between + run).is_endless
    assert repetition((run + between) * 3).is_endless


@pytest.mark.parametrize(
    ("title", "text", "share"),
    [
        ("French Pastries: A Sweet Indulgence", "Every pastry is sweet.", 0.5),
        ("The Benefits of Knitting", "She knits.", 0.0),
        ("The Benefits of Knitting", "Knitters are patient.", 1.0),
        ("A Guide", "Nothing.", 0.0),
        ("On and On", "Anything.", 1.0),
    ],
)
def test_the_topic_of_a_title(title: str, text: str, share: float) -> None:
    """Is in its words but small ones and those for kinds of text, by their first letters."""
    assert topic_share(title, text) == share


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("The tea is fresh and it tastes good.", True),
        ("Der Tee schmeckt frisch und gut.", False),
        ("\u4f60\u597d", False),
        ("tea tea tea tea tea", False),
        ("", False),
    ],
)
def test_english(text: str, english: bool) -> None:
    """Latin letters and as many small words as English has."""
    assert is_english(text) == english
