"""Pictures in the terminal."""

import io

import pytest
from PIL import Image
from rich.color import ColorTriplet
from rich.console import Console
from rich.segment import Segment

from ixc_cli.thumbnail import thumbnail


def lines_of(*pictures: Image.Image, columns: int = 40, rows: int = 10) -> list[list[Segment]]:
    console = Console(file=io.StringIO(), color_system="truecolor", width=columns)
    return list(
        Segment.split_lines(console.render(thumbnail(pictures, columns=columns, rows=rows)))
    )


def colours(segment: Segment) -> list[ColorTriplet | None]:
    assert segment.style is not None
    return [
        colour.triplet if colour else None
        for colour in (segment.style.color, segment.style.bgcolor)
    ]


def test_two_pixels_a_character() -> None:
    """The upper one is the character's colour, the lower one its ground's."""
    picture = Image.new("RGB", (2, 2), "red")
    picture.putpixel((1, 1), (0, 0, 255))
    (line,) = lines_of(picture, columns=2, rows=1)
    assert [segment.text for segment in line] == ["▀", "▀"]
    assert colours(line[0]) == [(255, 0, 0), (255, 0, 0)]
    assert colours(line[1]) == [(255, 0, 0), (0, 0, 255)]


@pytest.mark.parametrize("size", [(400, 300), (30, 900), (1000, 10), (3, 3)])
def test_it_fits(size: tuple[int, int]) -> None:
    """Whatever the picture's shape, and as large as it can be."""
    lines = lines_of(Image.new("RGB", size))
    widths = {sum(map(len, (segment.text for segment in line))) for line in lines}
    assert max(widths) <= 40
    assert len(lines) <= 10
    assert max(widths) == 40 or len(lines) == 10


def test_pictures_beside_one_another() -> None:
    """With a gap, and as high as the highest; below a lower one the terminal shows."""
    lines = lines_of(Image.new("RGB", (10, 10), "red"), Image.new("RGB", (10, 2), "blue"))
    assert len(lines) == 10
    assert {sum(len(segment.text) for segment in line) for line in lines} == {19 + 2 + 19}
    assert lines[5][-1].text == " "


def test_no_picture() -> None:
    """Is the caller's mistake."""
    with pytest.raises(ValueError, match="no picture to show"):
        lines_of()
