"""What a picture or clip costs by itself is what a prompt with it alone is charged."""

from pathlib import Path

import pytest

from ixc_runtime.config import IxcSettings, TowerShape
from ixc_runtime.media.geometry import ImageInfo
from ixc_runtime.media.price import default_price
from ixc_runtime.media.video import VideoInfo
from ixc_runtime.prompt.layout import lay_out
from ixc_runtime.prompt.tokenizer import load_tokenizer, resolve_roles
from ixc_runtime.request import (
    Conversation,
    ImagePart,
    ImageSource,
    Message,
    Role,
    VideoPart,
    VideoSource,
)
from tests.fakes.tiny_tokenizer import write_tokenizer_model

TOWER = TowerShape(tile_size=56, patch_size=14, grid=4)
IMAGE = ImagePart(source=ImageSource(digest="p", path=Path("p")))
VIDEO = VideoPart(source=VideoSource(digest="p", path=Path("p")))


def video(**changes: object) -> VideoInfo:
    fields = {"width": 64, "height": 48, "num_frames": 300, "fps": 30.0, "codec": "VP9"}
    return VideoInfo(format="WEBM", **{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("part", "info", "num_frames"),
    [
        (IMAGE, ImageInfo(width=1, height=1, format="PNG"), 0),
        (IMAGE, ImageInfo(width=400, height=300, format="PNG"), 0),
        (IMAGE, ImageInfo(width=65_535, height=1, format="PNG"), 0),
        (VIDEO, video(), 10),
        (VIDEO, video(num_frames=1), 1),
        (VIDEO, video(width=48, height=64, num_frames=30_000), 32),
    ],
)
def test_the_price_is_the_prompts(part, info, num_frames, tmp_path):
    """Tiles and tokens, to the last one."""
    write_tokenizer_model(tmp_path, vocab_size=1000)
    tokenizer, settings = load_tokenizer(tmp_path), IxcSettings()
    layout = lay_out(
        Conversation(messages=(Message(role=Role.USER, parts=(part,)),)),
        tokenizer=tokenizer,
        roles=resolve_roles(tokenizer, settings),
        settings=settings,
        tower=TOWER,
        media_info={"p": info},
    )
    (span,) = layout.images
    price = default_price(info, TOWER, hd_num=settings.hd_num_single)
    assert (price.tiles_wide, price.tiles_high) == (span.tiles_wide, span.tiles_high)
    assert price.num_tokens == span.num_tokens
    assert price.num_frames == len(span.frames) == num_frames
