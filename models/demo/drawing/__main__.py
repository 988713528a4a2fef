"""Draws sheets of examples with their questions and answers, one for each task, to be looked at."""

import argparse
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from models.demo.drawing import TASKS, Example, draw

_CELL = (480, 430)
_COLUMNS = 4
_PICTURE_HEIGHT = 220


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.demo.drawing", description=__doc__)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--tasks", nargs="*", default=TASKS, choices=TASKS)
    parser.add_argument("--number", type=int, default=16, help="examples of each task")
    parser.add_argument("--seed", type=int, default=0, help="the first one's seed")
    arguments = parser.parse_args()
    arguments.out_dir.mkdir(parents=True, exist_ok=True)
    for task in arguments.tasks:
        path = arguments.out_dir / f"{task}.png"
        seeds = range(arguments.seed, arguments.seed + arguments.number)
        contact_sheet([draw(task, seed) for seed in seeds]).save(path)
        print(path)


def contact_sheet(examples: list[Example]) -> Image.Image:
    """Pictures above, turns and caption below. Pictures too large for their cell are shrunk."""
    width, height = _CELL
    rows = -(-len(examples) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * width, rows * height), "white")
    draw_on = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    for index, example in enumerate(examples):
        left, top = index % _COLUMNS * width, index // _COLUMNS * height
        x = left + 4
        pictures = example.pictures or example.frames
        for picture in pictures:
            shown = picture.copy()
            shown.thumbnail(((width - 8) // len(pictures) - 4, _PICTURE_HEIGHT))
            sheet.paste(shown, (x, top + 4))
            x += shown.width + 4
        lines = [f"{turn.question}  {turn.answer}" for turn in example.turns]
        text = [part for line in (*lines, example.caption) for part in textwrap.wrap(line, 66)]
        draw_on.text(
            (left + 4, top + _PICTURE_HEIGHT + 10), "\n".join(text), font=font, fill="black"
        )
        draw_on.rectangle((left, top, left + width - 1, top + height - 1), outline=(200, 200, 200))
    return sheet


if __name__ == "__main__":
    main()
