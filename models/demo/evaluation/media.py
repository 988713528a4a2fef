"""Drawn pictures and clips as the files a user would send: PNG, and MP4 with H.264."""

import io
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from PIL import Image, ImageOps

# The drawn frames of a clip are a second apart, as the model sees them.
_FRAMES_PER_SECOND = 1
_QUALITY = "18"  # x264's constant rate factor; 18 is about where eyes see no loss


def png(picture: Image.Image) -> bytes:
    encoded = io.BytesIO()
    picture.save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()


def mp4(frames: Sequence[Image.Image]) -> bytes:
    """The frames as they are, one a second, as good as without loss.

    Colours are stored at half the resolution, as nearly every clip's are, so a side of odd length
    gets its last row or column twice.
    """
    import av  # a large one, and nothing but clips needs it

    width, height = (side + side % 2 for side in frames[0].size)
    encoded = io.BytesIO()
    with av.open(encoded, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(_FRAMES_PER_SECOND))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": _QUALITY, "preset": "veryfast", "threads": "1"}
        for picture in frames:
            pixels = np.asarray(_of_size(picture, width, height))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return encoded.getvalue()


def _of_size(picture: Image.Image, width: int, height: int) -> Image.Image:
    if picture.size == (width, height):
        return picture
    if not (0 <= width - picture.width <= 1 and 0 <= height - picture.height <= 1):
        raise ValueError(f"a frame of {picture.size} in a clip of {width}x{height}")
    right, below = width - picture.width, height - picture.height
    wider = ImageOps.expand(picture, (0, 0, right, below))
    if right:
        wider.paste(wider.crop((width - 2, 0, width - 1, height)), (width - 1, 0))
    if below:
        wider.paste(wider.crop((0, height - 2, width, height - 1)), (0, height - 1))
    return wider
