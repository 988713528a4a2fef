"""A page as a browser reads it: its elements, their texts, and the colours that its style gives.

Knows HTML and CSS; knows nothing of what was asked.
"""

import re
from collections.abc import Iterator

import cssselect2
import html5lib
import tinycss2
import tinycss2.color4
from cssselect2 import ElementWrapper
from html5lib.html5parser import ParseError

Rgba = tuple[float, ...]
Declarations = dict[str, str]

_HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
_BUTTONS = frozenset(("button", "a", "input"))
_LOADED = {"src": None, "srcset": None, "href": "link", "data": "object"}  # attribute → only of
_URL = re.compile(r"url\(|@import", re.IGNORECASE)


class NotHtml(ValueError):
    """Not a page: the message is the parser's first complaint."""


def read_page(text: str) -> "PageReading":
    """Strict: a missing doctype, an unclosed element or a stray tag raises NotHtml."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    try:
        root = parser.parse(text)
    except ParseError as error:
        raise NotHtml(str(error)) from error
    if "</html>" not in text.lower():
        raise NotHtml("the document is not closed")  # which the standard would forgive
    return PageReading(ElementWrapper.from_html_root(root))


class PageReading:
    def __init__(self, root: ElementWrapper) -> None:
        self._elements: list[ElementWrapper] = list(root.iter_subtree())
        self._matcher = cssselect2.Matcher()
        self._styles = ["".join(e.etree_element.itertext()) for e in self._named("style")]
        for style in self._styles:
            self._add_rules(style)

    @property
    def title(self) -> str:
        return " ".join(_text(element) for element in self._named("title"))

    @property
    def text(self) -> str:
        return " ".join(_text(element) for element in self._named("body"))

    @property
    def footer(self) -> str:
        return " ".join(_text(element) for element in self._named("footer"))

    @property
    def list_items(self) -> list[str]:
        return [_text(element) for element in self._named("li")]

    @property
    def num_tables(self) -> int:
        """Tables of at least two rows."""
        return sum(
            len([row for row in table.iter_subtree() if row.local_name == "tr"]) >= 2
            for table in self._named("table")
        )

    @property
    def is_self_contained(self) -> bool:
        """No picture, script or style sheet is fetched. Links may lead elsewhere."""
        for element in self._elements:
            for attribute, only in _LOADED.items():
                value = element.etree_element.get(attribute, "data:")
                if not value.startswith("data:") and only in (None, element.local_name):
                    return False
        return not any(_URL.search(style) for style in self._styles)

    def headings_with(self, words: str) -> list[ElementWrapper]:
        return [e for e in self._elements if e.local_name in _HEADINGS and _says(e, words)]

    def titles(self, words: str) -> list[ElementWrapper]:
        """Headings of the highest level that hold the title."""
        found = self.headings_with(words)
        highest = min((element.local_name for element in found), default="")
        return [element for element in found if element.local_name == highest]

    def buttons_with(self, words: str) -> list[ElementWrapper]:
        return [e for e in self._elements if e.local_name in _BUTTONS and _says(e, words)]

    def background(self) -> Rgba | None:
        """Of the whole page."""
        grounds = [self.ground(e) for name in ("body", "html") for e in self._named(name)]
        return next((ground for ground in grounds if ground is not None), None)

    def grounds_of_title(self, words: str) -> list[Rgba | None]:
        """Behind the title, up to the page's own; and of bars that hold no title."""
        behind = [
            element
            for title in self.titles(words)
            for element in (title, *title.ancestors)
            if element.local_name not in ("body", "html")
        ]
        return [self.ground(element) for element in (*behind, *self._named("header", "nav"))]

    def ground(self, element: ElementWrapper) -> Rgba | None:
        declared = self._declarations(element)
        for name in ("background-color", "background"):
            if (colour := self.colour(declared.get(name, ""))) is not None:
                return colour
        return None

    def ink(self, element: ElementWrapper) -> Rgba | None:
        """The colour of its text, its own or inherited."""
        for one in (element, *reversed(element.ancestors)):  # which come root first
            if (colour := self.colour(self._declarations(one).get("color", ""))) is not None:
                return colour
        return None

    @staticmethod
    def colour(value: str) -> Rgba | None:
        """The first colour in a declaration's value, whatever its notation."""
        for token in tinycss2.parse_component_value_list(value):
            parsed = tinycss2.color4.parse_color(token)
            if isinstance(parsed, tinycss2.color4.Color):
                red, green, blue, alpha = parsed.to("srgb")
                return (round(255 * red), round(255 * green), round(255 * blue), alpha)
        return None

    def _named(self, *names: str) -> Iterator[ElementWrapper]:
        return (element for element in self._elements if element.local_name in names)

    def _add_rules(self, style: str) -> None:
        for rule in tinycss2.parse_stylesheet(style, skip_comments=True, skip_whitespace=True):
            if rule.type != "qualified-rule":
                continue
            try:
                selectors = cssselect2.compile_selector_list(rule.prelude)
            except cssselect2.SelectorError:
                continue  # as browsers do
            declared = _declared(rule.content)
            for selector in selectors:
                if selector.pseudo_element is None:
                    self._matcher.add_selector(selector, declared)

    def _declarations(self, element: ElementWrapper) -> Declarations:
        """By rising specificity; the element's own attribute comes last. `!important` is not
        heeded.
        """
        found: Declarations = {}
        for _, _, _, declared in self._matcher.match(element):
            found |= declared
        return found | _declared(element.etree_element.get("style", ""))


def _declared(content: object) -> Declarations:
    declarations = tinycss2.parse_blocks_contents(content, skip_comments=True, skip_whitespace=True)
    return {
        one.lower_name: tinycss2.serialize(one.value)
        for one in declarations
        if one.type == "declaration"
    }


def _text(element: ElementWrapper) -> str:
    return " ".join("".join(element.etree_element.itertext()).split())


def _says(element: ElementWrapper, words: str) -> bool:
    label = f"{_text(element)} {element.etree_element.get('value', '')}"
    return " ".join(words.casefold().split()) in " ".join(label.casefold().split())
