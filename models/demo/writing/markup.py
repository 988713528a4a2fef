"""A page as data, and its HTML: one plain form, so that an adapter can learn it by heart.

Everything stands inside the document; only what is used is styled.
"""

from dataclasses import dataclass
from html import escape

from models.demo.writing.colours import readable_on
from models.demo.writing.sections import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Colours by CSS name; an empty one leaves the colour to the rest of the page."""

    title: str
    background: str
    bar: str = ""
    title_colour: str = ""
    headings_colour: str = ""
    sections: tuple[Section, ...]
    button: str = ""
    button_colour: str = ""
    footer: str = ""


def to_html(page: Page) -> str:
    title = escape(page.title, quote=False)
    heading = f"<h1>{title}</h1>"
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f"<title>{title}</title>",
        "<style>",
        *_style(page),
        "</style>",
        "</head>",
        "<body>",
        f"<header>{heading}</header>" if page.bar else heading,
    ]
    for section in page.sections:
        lines += _section(section)
    if page.button:
        lines.append(f"<button>{escape(page.button, quote=False)}</button>")
    if page.footer:
        lines.append(f"<footer>{escape(page.footer, quote=False)}</footer>")
    return "\n".join((*lines, "</body>", "</html>"))


def capitalised(text: str) -> str:
    """Unlike str.capitalize, leaves what follows as it is."""
    return text[:1].upper() + text[1:]


def _style(page: Page) -> list[str]:
    text = readable_on(page.background)
    rules = [
        f"body {{ background: {page.background}; color: {text}; font-family: sans-serif; "
        "margin: 2em; }"
    ]
    if page.bar:
        text = readable_on(page.bar)
        rules.append(f"header {{ background: {page.bar}; color: {text}; padding: 1em; }}")
    if page.title_colour:
        rules.append(f"h1 {{ color: {page.title_colour}; }}")
    if page.headings_colour:
        rules.append(f"h2 {{ color: {page.headings_colour}; }}")
    if page.button_colour:
        text = readable_on(page.button_colour)
        rules.append(f"button {{ background: {page.button_colour}; color: {text}; padding: 1em; }}")
    return rules


def _section(section: Section) -> list[str]:
    lines = [f"<h2>{escape(section.heading, quote=False)}</h2>"]
    if section.text:
        lines.append(f"<p>{escape(section.text, quote=False)}</p>")
    if section.items:
        items = (f"<li>{escape(capitalised(item), quote=False)}</li>" for item in section.items)
        lines += ["<ul>", *items, "</ul>"]
    if section.rows:
        cells = (
            f"<tr><td>{escape(capitalised(left), quote=False)}</td>"
            f"<td>{escape(capitalised(right), quote=False)}</td></tr>"
            for left, right in section.rows
        )
        lines += ["<table>", *cells, "</table>"]
    return lines
