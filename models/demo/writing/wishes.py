"""What an instruction asks of a page: what the page is judged by, and the instruction's words."""

from dataclasses import dataclass

from models.demo.writing.colours import ColourRole, spoken
from models.demo.writing.markup import capitalised
from models.demo.writing.names import with_article
from models.demo.writing.vocabulary import Draw, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Everything asked by name; what is not asked is left to the page's author."""

    title: str
    colours: tuple[tuple[ColourRole, str], ...] = ()
    headings: tuple[str, ...]
    list_heading: str = ""  # the section that is to list `items`
    items: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()  # headings of sections that are to hold a table
    button: str = ""
    footer: str = ""


_OPENINGS = Pool.of((
    "Create a web page for {a_kind} called {name}.",
    "Make a small website for {a_kind}. The name is {name}.",
    'Build an HTML page titled "{name}".',
    "I need a homepage for {a_kind}. It is called {name}.",
    "{name} is {a_kind}. Write its web page in HTML.",
    "A website for {a_kind}. The name is {name}.",
    "Write the HTML code of a web page for {name}, {a_kind}.",
    'Design a simple page for {a_kind} with the title "{name}".',
    "Please write a web page about {name}.",
    "Generate a web page: {name}, {a_kind}.",
    "Web page for {a_kind} named {name}.",
    'Make a one-page site. Its title is "{name}", and it is about {a_kind}.',
    "Can you make me a web page for {name}?",
    "Write HTML for {a_kind} with the name {name}.",
    "We are {a_kind}, and our name is {name}. Please create our website.",
    "Title of the page: {name}. It is {a_kind}.",
    "A page for {name}.",
    "Build a landing page for {name} ({kind}).",
    'Please create a simple website named "{name}".',
    "Make a web page. Title: {name}. Subject: {kind}.",
    "I would like a web page for my {kind}, {name}.",
    "Write a small self-contained HTML page for {name}.",
    'Create the homepage of "{name}".',
    "Develop a website for {a_kind}; its name is {name}.",
))  # fmt: skip
_COLOUR_CLAUSES = {
    ColourRole.BACKGROUND: Pool.of((
        "The background is {c}.", "Use {a_c} background.", "{C} background.",
        "Make the background {c}.", "The page has {a_c} background.", "Background colour: {c}.",
        "Background: {c}.", "It should have {a_c} background.", "I want {a_c} background.",
        "The colour of the background is {c}.", "Set the background to {c}.",
        "Give it {a_c} background.", "Please choose {c} as the background colour.",
    )),
    ColourRole.BAR: Pool.of((
        "The top navigation bar is {c}.", "Top Navigation Bar is {c}.",
        "The title is in {a_c} bar.",
        "At the top there is {a_c} bar with the title.", "{C} header.", "Header colour: {c}.",
        "The header is {c}.", "Use {a_c} header.", "Put the title in {a_c} bar.",
        "The bar at the top is {c}.", "It has {a_c} top bar.", "Make the header bar {c}.",
        "Top bar: {c}.",
    )),
    ColourRole.TITLE: Pool.of((
        "The title is {c}.", "Write the title in {c}.", "{C} title.", "Title colour: {c}.",
        "The main heading is {c}.", "The title should be {c}.", "Use {c} for the title.",
        "Make the title {c}.", "The colour of the title is {c}.", "Set the main heading in {c}.",
        "The title is written in {c}.", "I want {a_c} title.",
    )),
    ColourRole.HEADINGS: Pool.of((
        "The section headings are {c}.", "Write the headings of the sections in {c}.",
        "Section headings in {c}.", "{C} section headings.", "Use {c} for the section headings.",
        "The headings of the sections are {c}.", "Make the section headings {c}.",
        "The sections have {c} headings.", "Section headings: {c}.", "Subheadings in {c}.",
        "The subheadings are {c}.", "Each section has {a_c} heading.",
    )),
    ColourRole.BUTTON: Pool.of((
        "The button is {c}.", "Make the button {c}.", "{C} button.", "Button colour: {c}.",
        "Use {c} for the button.", "The button should be {c}.", "I want {a_c} button.",
        "The colour of the button is {c}.",
    )),
}  # fmt: skip
_SHORT_COLOURS = {
    ColourRole.BACKGROUND: "{c} background",
    ColourRole.BAR: "{c} top bar",
    ColourRole.TITLE: "{c} title",
    ColourRole.HEADINGS: "{c} section headings",
    ColourRole.BUTTON: "{c} button",
}
_COLOUR_LISTS = Pool.of((
    "Colours: {list}.", "Use {a_list}.", "It has {a_list}.", "Style: {list}.", "With {a_list}.",
    "I would like {a_list}.", "Please use these colours: {list}.", "Make it with {a_list}.",
))  # fmt: skip
_SECTIONS = Pool.of((
    "It has the sections {list}.", "Sections: {list}.", "Include the sections {list}.",
    "Add sections for {list}.", "There are sections called {list}.", "The sections are {list}.",
    "It should contain {list}.", "Add the headings {list}.", "The page has sections for {list}.",
    "Please include {list}.", "Below it, there are sections named {list}.", "With sections {list}.",
    "It needs the sections {list}.", "Write a section for each of these: {list}.",
    "The content is divided into {list}.", "Its parts are {list}.", "Parts: {list}.",
))  # fmt: skip
_LISTS = Pool.of((
    "Under {heading}, list {items}.", "The {heading} section lists {items}.", "{heading}: {items}.",
    "List {items} under {heading}.", "In {heading} there is a list of {items}.",
    "{heading} has {items}.", "Put {items} into {heading}.", "Items of {heading}: {items}.",
    "{heading} shows {items}.", "As {heading}, name {items}.",
))  # fmt: skip
_TABLES = Pool.of((
    "Show {heading} as a table.", "Put a table under {heading}.", "{heading} is a table.",
    "Use a table for {heading}.", "There is a table in {heading}.", "Table: {heading}.",
    "The {heading} section holds a table.", "{heading} should be a table.",
))  # fmt: skip
_BUTTONS = Pool.of((
    'Add a button that says "{label}".', 'A button says "{label}".', 'Button: "{label}".',
    'At the end there is a button labelled "{label}".', 'Include a button with the text "{label}".',
    'There is a "{label}" button.', 'Put a "{label}" button below.', "Add a button: {label}.",
    'I need a button with "{label}" on it.', 'It ends with a button "{label}".',
))  # fmt: skip
_FOOTERS = Pool.of((
    'The footer says "{text}"', 'In the footer stands "{text}"', 'Footer: "{text}"',
    'Write "{text}" in the footer.', 'Add the footer "{text}"', 'The page ends with "{text}"',
    'Put "{text}" at the very bottom as a footer.', 'Footer text: "{text}"',
))  # fmt: skip


def instruction(draw: Draw, wishes: Wishes, *, kind: str) -> str:
    """One of countless ways to ask for the page."""
    a_kind = with_article(kind)
    opening = _phrase(draw, _OPENINGS, name=wishes.title, kind=kind, a_kind=a_kind)
    clauses = [*_colours(draw, wishes), _sections(draw, wishes)]
    if wishes.button:
        clauses.append(_phrase(draw, _BUTTONS, label=wishes.button))
    if wishes.footer:
        clauses.append(_phrase(draw, _FOOTERS, text=wishes.footer))
    if draw.chance(0.4):
        draw.rng.shuffle(clauses)
    clauses.insert(0 if draw.chance(0.85) else len(clauses), opening)
    return " ".join(clauses)


def _phrase(draw: Draw, pool: Pool, **values: str) -> str:
    return draw.one(pool, unseen_share=0.3).format(**values)


def _colours(draw: Draw, wishes: Wishes) -> list[str]:
    asked = [(role, spoken(draw, colour)) for role, colour in wishes.colours]
    if len(asked) > 1 and draw.chance(0.4):
        short = [_SHORT_COLOURS[role].format(c=colour) for role, colour in asked]
        with_articles = [one if one.endswith("s") else with_article(one) for one in short]
        values = {"list": _joined(short), "a_list": _joined(with_articles)}
        return [_phrase(draw, _COLOUR_LISTS, **values)]
    return [
        _phrase(
            draw,
            _COLOUR_CLAUSES[role],
            c=colour,
            C=capitalised(colour),
            a_c=with_article(colour),
        )
        for role, colour in asked
    ]


def _sections(draw: Draw, wishes: Wishes) -> str:
    headings = list(wishes.headings)
    if draw.chance(0.15):
        headings = [heading.lower() for heading in headings]
    elif draw.chance(0.15):
        headings = [f'"{heading}"' for heading in headings]
    clauses = [_phrase(draw, _SECTIONS, list=_joined(headings, last=draw.chance(0.8)))]
    if wishes.items:
        items = _joined(wishes.items if draw.chance(0.7) else list(map(capitalised, wishes.items)))
        clauses.append(_phrase(draw, _LISTS, heading=wishes.list_heading, items=items))
    clauses += [_phrase(draw, _TABLES, heading=heading) for heading in wishes.tables]
    return " ".join(clauses)


def _joined(parts: list[str] | tuple[str, ...], *, last: bool = True) -> str:
    if len(parts) == 1 or not last:
        return ", ".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
