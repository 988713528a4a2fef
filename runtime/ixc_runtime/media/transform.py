"""The reference's image transform with Pillow: any picture in, a white canvas of RGB tiles out.

Pixels equal the reference's bit for bit (`geometry` holds the arithmetic). What it leaves open or
gets wrong is settled so:

* RGB comes first, by Pillow's plain conversion. Transparency is dropped, not composited, and EXIF
  orientation is not applied: the model was trained on pictures read that way.
* 16-bit greyscale keeps its upper eight bits (plain conversion would clip it to white).
* Of an animation, the first frame.

A change that gives other pixels for the same input raises `geometry.TRANSFORM_VERSION`.
"""

from PIL import Image

from ixc_runtime.media.geometry import TilePlan, plan_tiles


def transform_image(image: Image.Image, *, hd_num: int, tile_size: int) -> Image.Image:
    """Resample to the tile plan and pad with white. The input picture may be consumed."""
    plan = plan_tiles(image.width, image.height, hd_num=hd_num, tile_size=tile_size)
    return resample_and_pad(to_rgb(image), plan)


def resample_and_pad(image: Image.Image, plan: TilePlan) -> Image.Image:
    """Scale an RGB picture to the plan's size and set it on the plan's white canvas."""
    size, canvas_size = (plan.width, plan.height), (plan.canvas_width, plan.canvas_height)
    if not plan.transposed:
        return _resample_and_pad(image, size, canvas_size)
    image = image.transpose(Image.Transpose.TRANSPOSE)
    canvas = _resample_and_pad(image, size[::-1], canvas_size[::-1])
    return canvas.transpose(Image.Transpose.TRANSPOSE)


def to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;"):
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    return image.convert("RGB") if image.mode != "RGB" else image


def _resample_and_pad(
    image: Image.Image, size: tuple[int, int], canvas_size: tuple[int, int]
) -> Image.Image:
    resized = image.resize(size, Image.Resampling.BILINEAR)
    if size == canvas_size:
        return resized
    canvas = Image.new("RGB", canvas_size, "white")
    canvas.paste(resized, (0, 0))
    return canvas
