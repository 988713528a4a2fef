"""Draws the pictures and the clip that `make demo` shows: `python -m models.demo.story`.

They are kept beside this file, so that the demo needs neither fonts nor an encoder. The seeds are
evaluation seeds: the model was trained on none of them. It answers rightly about these; how often
it does at all stands in `models/demo/README.md`. Whoever changes how things are drawn gets other
pictures from the same seeds, and need not draw these anew.
"""

from pathlib import Path

from models.demo.drawing import EVALUATION_SEEDS, draw
from models.demo.evaluation.media import mp4, png

FILES = {
    "harbour.png": ("scene", EVALUATION_SEEDS.start + 10**10 + 3),
    "word.png": ("word", EVALUATION_SEEDS.start + 10**10 + 48),
    "clip.mp4": ("direction", EVALUATION_SEEDS.start + 10**10 + 37),
}


def main() -> None:
    for name, (task, seed) in FILES.items():
        example = draw(task, seed)
        data = mp4(example.frames) if example.frames else png(example.pictures[0])
        (Path(__file__).parent / name).write_bytes(data)
        print(f"{name}: {len(data):,} bytes")


if __name__ == "__main__":
    main()
