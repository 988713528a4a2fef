"""A picture in the terminal: two pixels a character, upper half over lower half.

Only for people to recognise it; the model sees the real one. Needs Pillow, which comes with the
`server` extra.
"""

from collections.abc import Sequence

from PIL import Image
from rich.color import Color
from rich.segment import Segment, Segments
from rich.style import Style

_UPPER_HALF = "▀"
_GAP = 2  # columns between pictures that stand beside one another


def thumbnail(pictures: Sequence[Image.Image], *, columns: int, rows: int) -> Segments:
    """The pictures beside one another, as large as fits into so many characters.

    Meant for terminals with colours: elsewhere nothing but half blocks would be seen.
    """
    if not pictures:
        raise ValueError("no picture to show")
    width = max(1, (columns - _GAP * (len(pictures) - 1)) // len(pictures))
    small = [_fitted(picture, width, 2 * rows) for picture in pictures]
    height = max(picture.height for picture in small)
    segments: list[Segment] = []
    for upper in range(0, height, 2):
        for place, picture in enumerate(small):
            if place:
                segments.append(Segment(" " * _GAP))
            segments += [_character(picture, x, upper) for x in range(picture.width)]
        segments.append(Segment.line())
    return Segments(segments)


def _fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    scale = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _character(picture: Image.Image, x: int, upper: int) -> Segment:
    """Where a picture is shorter than its neighbours, or of odd height, the terminal shows."""
    if upper >= picture.height:
        return Segment(" ")
    lower = _colour(picture, x, upper + 1) if upper + 1 < picture.height else None
    return Segment(_UPPER_HALF, Style(color=_colour(picture, x, upper), bgcolor=lower))


def _colour(picture: Image.Image, x: int, y: int) -> Color:
    pixel = picture.getpixel((x, y))
    assert isinstance(pixel, tuple), "RGB has three values"
    red, green, blue = pixel
    return Color.from_rgb(red, green, blue)
