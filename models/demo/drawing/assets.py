"""Fonts, photographs and words that the pictures are made of, loaded once per process.

Fonts come from wheels made to carry them (open licences: OFL or Apache), and from Pillow itself;
photographs from the files in scikit-image's wheel. A package that is missing is an error: with
fewer fonts the same seed would give other pixels.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from random import Random

from PIL import Image, ImageFont

# Family package, its files, and how much larger than its neighbours it must be set to be as
# legible. Hairline weights are left out: at 20 pixels they are not there.
_FONT_FILES: tuple[tuple[str, tuple[str, ...], float], ...] = (
    ("font_source_sans_pro", ("SourceSansPro-Regular.ttf", "SourceSansPro-Bold.ttf",
                              "SourceSansPro-SemiboldIt.ttf", "SourceSansPro-Black.ttf"), 1.1),
    ("font_source_serif_pro", ("SourceSerifPro-Regular.ttf", "SourceSerifPro-Bold.ttf",
                               "SourceSerifPro-It.ttf", "SourceSerifPro-Black.ttf"), 1.1),
    ("font_lato", ("Lato-Regular.ttf", "Lato-Bold.ttf", "Lato-Black.ttf", "Lato-Italic.ttf"), 1.05),
    ("font_roboto", ("Roboto-Regular.ttf", "Roboto-Medium.ttf", "Roboto-Bold.ttf",
                     "Roboto-Italic.ttf"), 1.0),
    ("font_caladea", ("Caladea-Regular.ttf", "Caladea-Bold.ttf", "Caladea-Italic.ttf"), 1.1),
    ("font_manrope", ("Manrope-Regular.ttf", "Manrope-Bold.ttf", "Manrope-ExtraBold.ttf"), 1.0),
    ("font_hanken_grotesk", ("HankenGrotesk-Regular.otf", "HankenGrotesk-Bold.otf",
                             "HankenGrotesk-MediumItalic.otf"), 1.0),
    ("font_fredoka_one", ("FredokaOne-Regular.ttf",), 1.0),
    ("font_amatic_sc", ("AmaticSC-Bold.ttf",), 1.55),
    ("font_intuitive", ("Intuitive.ttf",), 1.15),
)  # fmt: skip
# Photographs without writing, and without round or heart-shaped things to be counted as drawn.
_PHOTOGRAPHS = (
    "brick.png", "camera.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png",
    "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "rocket.jpg",
    "astronaut.png",
)  # fmt: skip
_PHOTOGRAPH_SIDE = 360
_GRAIN_SIDE = 700
_SIZE_STEP = 2  # font sizes are rounded, so that their cache is hit


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """A font in no size yet. The empty path is Pillow's own font."""

    path: str
    factor: float

    def at(self, size: float) -> ImageFont.FreeTypeFont:
        """As legible as a common font of `size` pixels."""
        return _font(self.path, max(8, _SIZE_STEP * round(size * self.factor / _SIZE_STEP)))


@cache
def faces() -> tuple[Face, ...]:
    found = [Face(path="", factor=1.0)] * 2
    for package, names, factor in _FONT_FILES:
        folder = _folder(package) / "files"
        found += [Face(path=str(folder / name), factor=factor) for name in names]
    return tuple(found)


@cache
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    if not path:
        built_in = ImageFont.load_default(size)
        assert isinstance(built_in, ImageFont.FreeTypeFont)
        return built_in
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@cache
def photographs() -> tuple[Image.Image, ...]:
    """All photographs in RGB, small: backgrounds need no detail."""
    folder = _folder("skimage") / "data"
    loaded = []
    for name in _PHOTOGRAPHS:
        with Image.open(folder / name) as photograph:
            small = photograph.convert("RGB")
            small.thumbnail((_PHOTOGRAPH_SIDE, _PHOTOGRAPH_SIDE), Image.Resampling.BOX)
            loaded.append(small)
    return tuple(loaded)


@cache
def grain() -> Image.Image:
    """Coloured noise, every channel even between 0 and 255."""
    size = (_GRAIN_SIDE, _GRAIN_SIDE)
    return Image.frombytes("RGB", size, Random(20).randbytes(3 * _GRAIN_SIDE**2))


@cache
def words() -> tuple[str, ...]:
    """Words for training.

    Words of SmolLM2's vocabulary that are one token with and without a space before them and
    stand in SCOWL's list of small American English; words that name what we draw are left out.
    """
    return _word_list("words.txt")


@cache
def unseen_words() -> tuple[str, ...]:
    """Words like the others that no training picture shows."""
    return _word_list("unseen_words.txt")


def _word_list(name: str) -> tuple[str, ...]:
    return tuple((Path(__file__).parent / name).read_text(encoding="utf-8").split())


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"drawing needs the package {package.replace('_', '-')}")
    return Path(spec.submodule_search_locations[0])
