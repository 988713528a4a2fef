"""When an answer is right: fair to other words for the same thing, strict with everything else."""

import pytest

from models.demo.drawing.judging import (
    Expectation,
    expect_colour,
    expect_count,
    expect_direction,
    expect_none,
    expect_number,
    expect_picture,
    expect_place,
    expect_shape,
    expect_verbatim,
    expect_yes_or_no,
)

NO_STAR = expect_none(rivals=("red", "blue"))

ACCEPTED = [
    (expect_colour("grey"), "The circle is gray."),
    (expect_colour("red"), "It is RED!"),
    (expect_shape("cross"), "There are crosses."),
    (expect_shape("star", asked="circle"), "The shape left of the circle is a star."),
    (expect_count(3), "There are 3 circles."),
    (expect_count(3), "Three."),
    (expect_count(1), "There is one star."),
    (expect_place("top left"), "The star is in the upper left corner."),
    (expect_place("left"), "It is on the left."),
    (expect_place("left"), "It is at the middle left."),
    (expect_place("centre"), "In the center."),
    (expect_direction("from left to right"), "It moves to the right."),
    (expect_direction("upwards"), "The star moves up."),
    (expect_picture(2), "Image 2 has more circles."),
    (expect_picture(2), "The second picture has more circles."),
    (expect_verbatim("house"), 'The word is "House".'),
    (expect_verbatim("house"), "The word is house."),
    (expect_verbatim("house"), "HOUSE"),
    (expect_verbatim("big red sale"), 'The text is "big red sale".'),
    (expect_verbatim("42"), "The number in Image1 is 42."),
    (expect_number(7, rivals=("7", "12")), "The value of tea is seven."),
    (NO_STAR, "There is no star in the picture."),
    (NO_STAR, "There isn't a star."),
    (expect_yes_or_no(yes=False), "No, there is no star."),
    (expect_yes_or_no(yes=True), "Yes, there is a star."),
    (expect_yes_or_no(yes=True), "There is a star."),
]
REFUSED = [
    (expect_colour("red"), "The circle is red and blue."),
    (expect_colour("red"), "The circle is reddish."),
    (expect_colour("red"), "There is no circle."),
    (expect_colour("red"), ""),
    (expect_shape("star"), "The shape is a star or a cross."),
    (expect_count(3), "There are 3 or four."),
    (expect_count(3), "There are 13."),
    (expect_count(1), "There are no stars."),
    (expect_place("top"), "The star is in the top left."),
    (expect_place("top left"), "The star is at the top."),
    (expect_place("left"), "The star is in the bottom left."),
    (expect_place("centre"), "On the right."),
    (expect_direction("from left to right"), "It moves from right to left."),
    (expect_direction("from left to right"), "It moves left."),
    (expect_direction("upwards"), "It moves up to the right."),
    (expect_direction("downwards"), "It moves upwards."),
    (expect_picture(2), "Image1 has more circles than Image2."),
    (expect_picture(2), "Both have two."),
    (expect_verbatim("house"), 'The word is "houses".'),
    (expect_verbatim("house"), 'The word is "mouse" or "house".'),
    (expect_verbatim("house"), "The word is mouse house."),
    (expect_verbatim("42"), "The number is 142."),
    (expect_verbatim("42"), "The number is 4."),
    (expect_number(7, rivals=("7", "12")), "The values are 7 and 12."),
    (NO_STAR, "The star is red."),
    (NO_STAR, "Yes, there is no blue one."),
    (expect_yes_or_no(yes=False), "Yes."),
    (expect_yes_or_no(yes=True), "No, there is a circle."),
    (expect_yes_or_no(yes=True), "There is no star."),
]


@pytest.mark.parametrize(("expectation", "answer"), ACCEPTED)
def test_answers_a_reader_would_call_right(expectation: Expectation, answer: str) -> None:
    """Case, quotes, spelling, digits and other words for the same thing do not count."""
    assert expectation.accepts(answer)


@pytest.mark.parametrize(("expectation", "answer"), REFUSED)
def test_answers_a_reader_would_call_wrong(expectation: Expectation, answer: str) -> None:
    """Another answer, two answers at once, half an answer or none are wrong."""
    assert not expectation.accepts(answer)
