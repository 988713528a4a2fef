"""CSS's named colours by how dark they are, so that drawn pages can be read."""

from enum import StrEnum

from models.demo.drawing.assets import words as seen_words
from models.demo.writing.vocabulary import Draw, Pool, words


class ColourRole(StrEnum):
    """What of a page has a colour that an instruction may ask for."""

    BACKGROUND = "background"
    BAR = "bar"  # behind the title
    TITLE = "title"
    HEADINGS = "headings"  # of the sections
    BUTTON = "button"


LIGHT = Pool.of(
    words("""
    white, ivory, beige, lavender, mintcream, aliceblue, linen, honeydew, seashell, azure, cornsilk
    lightyellow, whitesmoke, floralwhite, oldlace, snow, ghostwhite, lavenderblush, mistyrose
    antiquewhite, papayawhip, bisque, wheat, lightcyan, lightgray, lightblue, lightgreen, lightpink
    palegreen, powderblue, thistle, gainsboro, khaki, peachpuff, moccasin, lemonchiffon
    paleturquoise, palegoldenrod, blanchedalmond, navajowhite
    """),
    common=words("white, lightblue, lightgray, lightgreen, beige, ivory"),
)
DEEP = Pool.of(
    words("""
    black, navy, maroon, darkgreen, darkblue, midnightblue, indigo, purple, darkslategray, darkred
    saddlebrown, darkolivegreen, darkmagenta, rebeccapurple, darkslateblue
    """),
    common=words("black, navy, darkblue, darkgreen"),
)
INK = Pool.of(
    words("""
    navy, maroon, darkgreen, darkblue, midnightblue, indigo, purple, darkslategray, darkred, teal
    saddlebrown, darkolivegreen, darkcyan, brown, firebrick, crimson, forestgreen, seagreen
    steelblue, royalblue, slategray, sienna, darkmagenta, mediumblue, green, blue, red, dimgray
    rebeccapurple, darkorchid, mediumvioletred, darkslateblue, olive, darkviolet, blueviolet
    olivedrab, dodgerblue, slateblue, chocolate, darkgoldenrod, black, deeppink
    """),
    common=words("black, red, blue, green, navy, purple, brown, darkblue, darkgreen, teal"),
)
BRIGHT = Pool.of(
    words("""
    gold, orange, yellow, coral, salmon, hotpink, turquoise, aquamarine, springgreen, skyblue
    lime, cyan, orchid, violet, plum, tomato, lightsalmon, sandybrown, greenyellow, lightcoral
    deepskyblue, mediumturquoise, darkorange, pink, limegreen, lightskyblue, burlywood
    """),
    common=words("orange, yellow, gold, pink, cyan"),
)
_SPACED_PREFIXES = ("light", "dark", "medium", "pale", "deep", "royal", "steel", "forest", "sky")
_DARK_NAMES = frozenset((*DEEP.seen, *DEEP.unseen, *INK.seen, *INK.unseen))
_LONGEST_FIRST = sorted(
    {name for pool in (LIGHT, DEEP, INK, BRIGHT) for name in (*pool.seen, *pool.unseen)},
    key=len,
    reverse=True,
)


def readable_on(colour: str) -> str:
    """Colour of text on this ground; an invented colour is as dark as the known one in it."""
    known = next((name for name in _LONGEST_FIRST if colour.endswith(name)), colour)
    return "white" if known in _DARK_NAMES else "black"


def draw_scheme(draw: Draw, *, light: bool, invented_share: float = 0.0) -> dict[ColourRole, str]:
    """A colour for each role; title and headings differ and are legible on the background.

    `invented_share`: how often all of them are names that CSS does not know.
    """
    dark = not light and draw.chance(0.2)
    background = draw.one(DEEP if dark else LIGHT, unseen_share=0.5)
    writing = BRIGHT if dark else INK
    title, headings = draw.some(writing, 2, unseen_share=0.5)
    bar = draw.one(BRIGHT if dark or draw.chance(0.3) else INK, unseen_share=0.5)
    button = draw.one(draw.rng.choice((INK, BRIGHT)), unseen_share=0.5)
    if invented_share and draw.chance(invented_share):
        background, bar, title, headings, button = (
            _invented(draw, colour) for colour in (background, bar, title, headings, button)
        )
    return {
        ColourRole.BACKGROUND: background,
        ColourRole.BAR: bar,
        ColourRole.TITLE: title,
        ColourRole.HEADINGS: headings,
        ColourRole.BUTTON: button,
    }


def _invented(draw: Draw, colour: str) -> str:
    """A name that nobody knows: from it one learns to copy names, not to know some of them."""
    name = f"{draw.rng.choice(seen_words())}{colour}"
    return colour if name in _LONGEST_FIRST else name


def spoken(draw: Draw, colour: str) -> str:
    """As people write it: mostly as CSS does, at times in two words."""
    for prefix in _SPACED_PREFIXES:
        if colour.startswith(prefix) and colour != prefix and draw.chance(0.4):
            return f"{prefix} {colour.removeprefix(prefix)}"
    return colour
