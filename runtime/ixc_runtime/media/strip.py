"""A clip's frames drawn into one labelled strip with Pillow, and the strip's transform.

Pixels equal the reference's (`video` holds the arithmetic) but for the labels' font: the
reference downloads SimHei, which is not free. Ours is Pillow's built-in one (Aileron Regular,
public domain) under Pillow's own plain text layout, so labels need no font on the machine and
do not depend on one. Recorded hashes hold with it; a Pillow that drew text differently would be
noticed by them and calls for a new `video.STRIP_VERSION`.
"""

from collections.abc import Iterable

from PIL import Image, ImageDraw, ImageFont

from ixc_runtime.media.transform import resample_and_pad
from ixc_runtime.media.video import StripPlan


def draw_strip(frames: Iterable[Image.Image], plan: StripPlan) -> Image.Image:
    """White canvas, every frame at its place below a label `<IMAGE k>`, black rules between.

    Frames are taken one at a time, so only one lies in memory beside the strip. One that is not
    of the planned size's ratio (a clip may change size midway) is stretched to it.
    """
    strip = Image.new("RGB", (plan.width, plan.height), "white")
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(plan.label_height)
    for index, frame in enumerate(frames):
        size = (plan.frame_width, plan.frame_height)
        resized = frame.resize(size, Image.Resampling.BILINEAR)
        if plan.is_stacked:
            left, top = 0, index * (plan.label_height + plan.frame_height + plan.gap)
        else:
            left, top = index * (plan.frame_width + plan.gap), 0
        strip.paste(resized, (left, top + plan.label_height))
        draw.text((left, top), f"<IMAGE {index}>", font=font, fill="black")
        if index + 1 < plan.num_frames:
            draw.line(_rule(plan, left, top), fill="black", width=plan.rule_width)
    return strip


def transform_strip(strip: Image.Image, plan: StripPlan) -> Image.Image:
    """Resample to one tile across and pad the long side with white."""
    return resample_and_pad(strip, plan.tiles)


def _rule(plan: StripPlan, left: int, top: int) -> list[tuple[int, int]]:
    """Across the strip in the middle of the gap that follows the frame."""
    if plan.is_stacked:
        y = top + plan.label_height + plan.frame_height + plan.gap // 2
        return [(0, y), (plan.width, y)]
    x = left + plan.frame_width + plan.gap // 2
    return [(x, 0), (x, plan.height)]
