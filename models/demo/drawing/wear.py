"""What happens to pictures before anyone sees them: compression, noise, blur, another exposure.

Each is slight: whatever could be told apart before can be told apart after it.
"""

from io import BytesIO
from random import Random

from PIL import Image, ImageChops, ImageFilter

from models.demo.drawing.assets import grain

_SMALL = 120_000  # pixels; larger pictures are compressed and blurred more rarely, to save time


def worn(rng: Random, image: Image.Image) -> Image.Image:
    """The picture after one such thing, or untouched, as most are."""
    is_small = image.width * image.height <= _SMALL
    kind = rng.random()
    if kind < (0.14 if is_small else 0.05):
        return _compressed(image, quality=rng.randint(30, 85))
    if kind < 0.22:
        return _noisy(rng, image, strength=rng.uniform(0.02, 0.1))
    if kind < (0.27 if is_small else 0.24):
        return image.filter(ImageFilter.BoxBlur(rng.uniform(0.3, 0.8)))
    if kind < 0.36:
        return _exposed(image, gain=rng.uniform(0.88, 1.1), lift=rng.uniform(-8, 10))
    return image


def _compressed(image: Image.Image, *, quality: int) -> Image.Image:
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    file.seek(0)
    with Image.open(file) as compressed:
        return compressed.convert("RGB")


def _noisy(rng: Random, image: Image.Image, *, strength: float) -> Image.Image:
    noise = grain()
    width, height = min(image.width, noise.width), min(image.height, noise.height)
    left, top = rng.randint(0, noise.width - width), rng.randint(0, noise.height - height)
    piece = noise.crop((left, top, left + width, top + height))
    if piece.size != image.size:
        piece = piece.resize(image.size, Image.Resampling.NEAREST)
    # Half of the noise darkens: its mean is taken off again.
    return ImageChops.add(
        image, piece.point(lambda v: v * strength), offset=-round(127.5 * strength)
    )


def _exposed(image: Image.Image, *, gain: float, lift: float) -> Image.Image:
    return image.point([max(0, min(255, round(gain * v + lift))) for v in range(256)] * 3)
