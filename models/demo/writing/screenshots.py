"""Pictures of simple pages: a bar with the title, headings, and a line of text under each.

Drawn with Pillow alone, so that drawing needs no browser. Titles and headings are words of the
list that the drawn pictures teach to read, set large enough for the demo's tower; the lines of
text are not, and say the same thing under every heading.
"""

from PIL import Image, ImageDraw, ImageFont

from models.demo.drawing.assets import Face, faces, unseen_words
from models.demo.drawing.assets import words as seen_words
from models.demo.writing.colours import readable_on
from models.demo.writing.markup import Page
from models.demo.writing.sections import Section
from models.demo.writing.vocabulary import Draw, Pool

SCREENSHOT_PROMPTS = Pool.of((
    "Generate the HTML code of this web image",
    "Generate the HTML code of this web image.",
    "Write this page as HTML.",
    "Turn this screenshot into a web page.",
    "Write the HTML code of this screenshot.",
    "Please rebuild this web page in HTML.",
))  # fmt: skip
# Colours that the drawn pictures teach by name and that CSS means alike.
_BARS = ("red", "orange", "green", "blue", "purple", "pink", "black", "grey")
_BACKGROUNDS = ("white", "white", "white", "yellow", "pink", "grey", "black")
_LETTERS = range(3, 9)


def draw_screen(draw: Draw) -> Page:
    background = draw.rng.choice(_BACKGROUNDS)
    bar = draw.rng.choice([colour for colour in _BARS if colour != background])
    title = " ".join(_words(draw, draw.rng.choice((1, 2))))
    headings = _words(draw, draw.rng.choice((2, 2, 3)))
    return Page(
        title=title,
        background=background,
        bar=bar,
        sections=tuple(Section(heading=heading, text=_line(heading)) for heading in headings),
    )


def screenshot(draw: Draw, page: Page) -> Image.Image:
    """As a browser might show it, in one of many fonts and some sizes."""
    rng = draw.rng
    width = rng.randrange(420, 680, 4)
    height = int(width * rng.uniform(0.66, 0.95))
    picture = Image.new("RGB", (width, height), page.background)
    canvas = ImageDraw.Draw(picture)
    face = rng.choice(faces())
    margin = width * rng.uniform(0.02, 0.06)
    bar_bottom = height * rng.uniform(0.18, 0.24)
    canvas.rectangle((0, 0, width, bar_bottom), fill=page.bar)
    ink = readable_on(page.bar)
    title_font = _fitting(face, page.title, height * rng.uniform(0.105, 0.125), 0.9 * width)
    canvas.text((margin, bar_bottom / 2), page.title, ink, title_font, anchor="lm")
    ink = readable_on(page.background)
    step = (height - bar_bottom) / len(page.sections)
    heading_font = face.at(height * rng.uniform(0.085, 0.1))
    text_font = face.at(height * 0.036)
    for index, section in enumerate(page.sections):
        top = bar_bottom + step * (index + 0.32)
        canvas.text((margin, top), section.heading, ink, heading_font, anchor="lm")
        canvas.text((margin, top + step * 0.38), section.text, ink, text_font, anchor="lm")
    return picture


def _fitting(face: Face, text: str, size: float, width: float) -> ImageFont.FreeTypeFont:
    """The wanted size, or as large as the width allows."""
    needed = face.at(size).getlength(text)
    return face.at(size * min(1.0, width / needed))


def _words(draw: Draw, count: int) -> list[str]:
    pool = unseen_words() if draw.is_evaluation else seen_words()
    fitting = [word for word in pool if len(word) in _LETTERS]
    return [word.capitalize() for word in draw.rng.sample(fitting, count)]


def _line(heading: str) -> str:
    return f"Read all about {heading.lower()} here."
