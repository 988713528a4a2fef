"""The image transform against the reference's recorded hashes, and where the reference is silent.

The recordings lie under tests/parity/; IXC_GOLDEN names another folder instead.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy
import pytest
from PIL import Image, ImageDraw

from ixc_runtime.media.geometry import num_image_tokens, plan_tiles
from ixc_runtime.media.transform import to_rgb, transform_image

PARITY = Path(__file__).parents[2] / "parity"


def recorded_transforms() -> list:
    named = os.environ.get("IXC_GOLDEN")
    files = [Path(named, "expected.json")] if named else sorted(PARITY.rglob("expected.json"))
    return [
        pytest.param(entry, id="{width}x{height} hd {hd_num}".format_map(entry))
        for file in files
        for entry in json.loads(file.read_text())["image_transform"]
    ]


def picture(width: int, height: int, seed: int) -> Image.Image:
    """The recipe of the recording: three gradients and 25 filled shapes."""
    y, x = numpy.mgrid[0:height, 0:width]
    channels = (
        x * 255 // max(width - 1, 1),
        y * 255 // max(height - 1, 1),
        (x + y) * 255 // max(width + height - 2, 1),
    )
    image = Image.fromarray(numpy.stack(channels, axis=-1).astype(numpy.uint8))
    draw = ImageDraw.Draw(image)
    random = numpy.random.default_rng(seed)
    for _ in range(25):
        left, top = random.integers(0, width), random.integers(0, height)
        side = random.integers(5, max(6, min(width, height) // 3))
        colour = tuple(int(value) for value in random.integers(0, 255, 3))
        box = [int(left), int(top), int(left + side), int(top + side)]
        if random.random() < 0.5:
            draw.ellipse(box, fill=colour)
        else:
            draw.rectangle(box, fill=colour)
    return image


@pytest.mark.parametrize("entry", recorded_transforms())
def test_a_recorded_picture(entry):
    """Size, tiles, tokens and every pixel equal the reference's."""
    image = picture(entry["width"], entry["height"], entry["picture_seed"])
    assert entry["input_sha256"] == hashlib.sha256(image.tobytes()).hexdigest()
    plan = plan_tiles(image.width, image.height, hd_num=entry["hd_num"], tile_size=560)
    canvas = transform_image(image, hd_num=entry["hd_num"], tile_size=560)
    assert canvas.size == (plan.canvas_width, plan.canvas_height)
    if entry.get("reference_raises"):
        return
    assert (entry["out_width"], entry["out_height"]) == canvas.size
    assert (entry["tiles_w"], entry["tiles_h"]) == (plan.tiles_wide, plan.tiles_high)
    assert entry["tokens"] == num_image_tokens(plan.tiles_wide, plan.tiles_high, 20)
    assert entry["sha256_rgb"] == hashlib.sha256(canvas.tobytes()).hexdigest()


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000), (1, 65_535)])
def test_a_line_of_pixels(size):
    """A shape that crashes the reference gives a strip of white tiles with the line along it."""
    canvas = transform_image(Image.new("RGB", size, "red"), hd_num=6, tile_size=56)
    wide = size[0] > size[1]
    assert canvas.size == ((336, 56) if wide else (56, 336))
    assert canvas.getpixel((0, 0)) == (255, 0, 0)
    assert canvas.getpixel((335, 0) if wide else (0, 335)) == (255, 0, 0)
    assert canvas.getpixel((335, 1) if wide else (1, 335)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "I", "I;16"])
def test_any_colour_mode(mode):
    """Whatever a file decodes to becomes RGB of the planned size."""
    canvas = transform_image(Image.new(mode, (30, 20)), hd_num=1, tile_size=56)
    assert canvas.mode == "RGB"
    assert canvas.size == (56, 56)


def test_sixteen_bit_grey_keeps_its_shades():
    """A mid grey of 16 bits stays a mid grey; plain conversion would make it white."""
    grey = Image.fromarray(numpy.full((4, 4), 0x8000, dtype=numpy.uint16))
    assert grey.mode == "I;16"
    assert to_rgb(grey).getpixel((0, 0)) == (128, 128, 128)


def test_padding_follows_the_shape():
    """White is added below a landscape picture and to the right of a portrait one."""
    landscape = transform_image(Image.new("RGB", (112, 60), "blue"), hd_num=4, tile_size=56)
    portrait = transform_image(Image.new("RGB", (60, 112), "blue"), hd_num=4, tile_size=56)
    assert landscape.size == portrait.size == (112, 112)
    assert landscape.getpixel((0, 111)) == portrait.getpixel((111, 0)) == (255, 255, 255)
    assert landscape.getpixel((111, 0)) == portrait.getpixel((0, 111)) == (0, 0, 255)
