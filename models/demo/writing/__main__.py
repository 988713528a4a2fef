"""`python -m models.demo.writing OUT`: a few examples to look at, as files in the folder OUT."""

import argparse
from pathlib import Path

from models.demo.writing.pages import PageExample, draw_page, draw_screenshot
from models.demo.writing.titles import draw_article_task, draw_plan
from models.demo.writing.vocabulary import EVALUATION_SEEDS


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw some pages and titles to look at.")
    parser.add_argument("out", type=Path, help="where the pages and screenshots go")
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--first-seed", type=int, default=EVALUATION_SEEDS.start)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for index in range(arguments.count):
        seed = arguments.first_seed + index
        _write(arguments.out, f"page-{index}", draw_page(seed))
        _write(arguments.out, f"screenshot-{index}", draw_screenshot(seed))
        headings = ", ".join(section.heading for section in draw_plan(seed).sections)
        print(f"article-{index}: {draw_article_task(seed).prompt}\n  headings among: {headings}")


def _write(folder: Path, name: str, example: PageExample) -> None:
    print(f"{name}: {example.instruction}")
    (folder / f"{name}.html").write_text(example.html, encoding="utf-8")
    if example.picture is not None:
        example.picture.save(folder / f"{name}.png")


if __name__ == "__main__":
    main()
