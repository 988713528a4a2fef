"""Photographs for tests, from scikit-image's wheel. Only its files are wanted."""

import importlib.metadata
from pathlib import Path

# Three formats' worth of the real thing: what cameras, microscopes and telescopes have made.
PHOTOGRAPHS = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "no_time_for_that_tiny.gif",
    "retina.jpg",
    "rocket.jpg",
)


def photograph(name: str) -> Path:
    for file in importlib.metadata.files("scikit-image") or ():
        if file.name == name:
            return Path(str(file.locate()))
    raise FileNotFoundError(f"scikit-image has no {name}")
