"""What a picture or clip costs when it is asked about without any settings: arithmetic on its size.

Known before it stands in a prompt. There, other pictures beside it or settings of its part may
change the price; `prompt/layout.py` says by how much.
"""

from dataclasses import dataclass

from ixc_runtime.config import TowerShape
from ixc_runtime.media.geometry import ImageInfo, num_image_tokens, plan_tiles
from ixc_runtime.media.video import VideoInfo, plan_strip, sample_frames


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaPrice:
    """`num_frames` of a clip are shown; 0 for a picture."""

    tiles_wide: int
    tiles_high: int
    num_tokens: int
    num_frames: int = 0


def default_price(info: ImageInfo | VideoInfo, tower: TowerShape, *, hd_num: int) -> MediaPrice:
    """A picture's under a bound of `hd_num` tiles, or a clip's."""
    num_frames = 0
    if isinstance(info, VideoInfo):
        num_frames = len(sample_frames(info))
        plan = plan_strip(
            info.width, info.height, num_frames=num_frames, tile_size=tower.tile_size
        ).tiles
    else:
        plan = plan_tiles(info.width, info.height, hd_num=hd_num, tile_size=tower.tile_size)
    return MediaPrice(
        tiles_wide=plan.tiles_wide,
        tiles_high=plan.tiles_high,
        num_tokens=num_image_tokens(plan.tiles_wide, plan.tiles_high, tower.grid // 2),
        num_frames=num_frames,
    )
