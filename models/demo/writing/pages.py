"""Drawn instructions and the pages that they ask for.

    Draw ──► Subject ──► Page ──► HTML, the answer
                           └──► Wishes ──► the instruction, and what the judge looks for

A page holds what its instruction asks; what it does not ask is left out, so that an adapter learns
to follow rather than to adorn. Titles, headings and colours come from pools with held-out parts:
an instruction from an evaluation seed has a name that no training page has.
"""

from dataclasses import dataclass

from PIL import Image

from models.demo.writing.colours import ColourRole, draw_scheme
from models.demo.writing.markup import Page, to_html
from models.demo.writing.screenshots import SCREENSHOT_PROMPTS, draw_screen, screenshot
from models.demo.writing.sections import Section, invented_heading, sentence, table
from models.demo.writing.subjects import Subject, draw_subject
from models.demo.writing.vocabulary import Draw, Pool
from models.demo.writing.wishes import Wishes, instruction

_FOOTERS = Pool.of((
    "Thank you for your visit.", "See you soon.", "Made with love.", "All rights reserved.",
    "We look forward to meeting you.", "Tell your friends about us.", "Have a lovely day.",
    "Write to us at any time.", "Follow us every day.", "Come back soon.", "Made by hand.",
    "Stay curious.", "Good food, good mood.", "Open for everyone.", "Since 1987.", "Since 2004.",
    "Founded in 1952.", "Free for all.", "Always at your side.", "Welcome home.",
))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PageExample:
    """`picture` is the screenshot to be turned into a page, where there is one."""

    instruction: str
    picture: Image.Image | None = None
    html: str
    wishes: Wishes


def draw_page(seed: int, *, invented_share: float = 0.0) -> PageExample:
    """An instruction in words. The same seed gives the same example.

    `invented_share`: how often its colours are names that CSS does not know, for training alone.
    """
    draw = Draw(seed)
    subject = draw_subject(draw)
    sections, listed, has_table = _sections(draw, subject)
    roles = _roles(draw)
    light = ColourRole.BACKGROUND not in roles
    scheme = draw_scheme(draw, light=light, invented_share=invented_share)
    button = draw.one(subject.buttons, unseen_share=0.5) if ColourRole.BUTTON in roles else ""
    if not button and draw.chance(0.3):
        button = draw.one(subject.buttons, unseen_share=0.5)
    page = Page(
        title=subject.name,
        background=scheme[ColourRole.BACKGROUND] if ColourRole.BACKGROUND in roles else "white",
        bar=scheme[ColourRole.BAR] if ColourRole.BAR in roles else "",
        title_colour=scheme[ColourRole.TITLE] if ColourRole.TITLE in roles else "",
        headings_colour=scheme[ColourRole.HEADINGS] if ColourRole.HEADINGS in roles else "",
        sections=sections,
        button=button,
        button_colour=scheme[ColourRole.BUTTON] if ColourRole.BUTTON in roles else "",
        footer=draw.one(_FOOTERS) if draw.chance(0.25) else "",
    )
    wishes = Wishes(
        title=page.title,
        colours=tuple((role, scheme[role]) for role in roles),
        headings=tuple(section.heading for section in sections),
        list_heading=listed.heading if listed else "",
        items=listed.items if listed else (),
        tables=tuple(section.heading for section in sections if section.rows) if has_table else (),
        button=page.button,
        footer=page.footer,
    )
    words = instruction(draw, wishes, kind=subject.kind)
    return PageExample(instruction=words, html=to_html(page), wishes=wishes)


def draw_screenshot(seed: int) -> PageExample:
    """A picture of a simple page, which is to be written as HTML."""
    draw = Draw(seed)
    screen = draw_screen(draw)
    wishes = Wishes(
        title=screen.title,
        colours=((ColourRole.BAR, screen.bar), (ColourRole.BACKGROUND, screen.background)),
        headings=tuple(section.heading for section in screen.sections),
    )
    return PageExample(
        instruction=draw.one(SCREENSHOT_PROMPTS, unseen_share=0.0),
        picture=screenshot(draw, screen),
        html=to_html(screen),
        wishes=wishes,
    )


def _roles(draw: Draw) -> tuple[ColourRole, ...]:
    """One to four; a bar or a title of its own colour, since one might not be legible on the
    other.
    """
    roles = []
    if draw.chance(0.85):
        roles.append(ColourRole.BACKGROUND)
    if draw.chance(0.3):
        roles.append(ColourRole.BAR)
    elif draw.chance(0.55):
        roles.append(ColourRole.TITLE)
    if draw.chance(0.4):
        roles.append(ColourRole.HEADINGS)
    if draw.chance(0.15):
        roles.append(ColourRole.BUTTON)
    return tuple(roles) or (ColourRole.BACKGROUND,)


def _sections(draw: Draw, subject: Subject) -> tuple[tuple[Section, ...], Section | None, bool]:
    """Two to four sections; which one's list was asked for item by item; whether a table was."""
    count = draw.rng.choice((2, 2, 3, 3, 3, 4))
    sections: list[Section] = []
    listed: Section | None = None
    if has_list := draw.chance(0.5):
        heading = draw.one(subject.lists, unseen_share=0.5)
        things = draw.some(subject.things, draw.rng.choice((2, 3, 3)))
        sections.append(Section(heading=heading, items=tuple(things)))
        if draw.chance(0.6):
            listed = sections[0]
    if has_table := draw.chance(0.2 if has_list else 0.3):
        heading = draw.one(subject.tables, unseen_share=0.5)
        sections.append(table(draw, heading, subject.things))
    while len(sections) < count:
        heading = draw.one(subject.headings, unseen_share=0.5)
        if draw.chance(0.2):
            heading = invented_heading(draw)
        if heading not in [section.heading for section in sections]:
            text = sentence(draw, heading, name=subject.name, kind=subject.kind)
            sections.append(Section(heading=heading, text=text))
    draw.rng.shuffle(sections)
    return tuple(sections), listed, has_table
