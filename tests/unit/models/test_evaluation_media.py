"""Drawn pictures and clips reach a server as real files."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ixc_runtime.media.container import read_video_tracks
from models.demo.evaluation.media import mp4, png


def frame(place: int, width: int = 96, height: int = 64) -> Image.Image:
    picture = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(picture).rectangle((place, 20, place + 20, 40), fill="red")
    return picture


def test_a_picture() -> None:
    """To the pixel."""
    picture = frame(3)
    with Image.open(io.BytesIO(png(picture))) as read:
        assert read.tobytes() == picture.tobytes()


@pytest.mark.parametrize("size", [(96, 64), (97, 63), (64, 97)])
def test_a_clip(tmp_path: Path, size: tuple[int, int]) -> None:
    """H.264, a frame a second, as many as were drawn, and red is where it was; odd sizes too."""
    decord = pytest.importorskip("decord")
    frames = [frame(10 * number, *size) for number in range(4)]
    path = tmp_path / "clip.mp4"
    path.write_bytes(mp4(frames))
    (track,) = read_video_tracks(path, "MP4")
    assert track.codec == "H.264"
    reader = decord.VideoReader(str(path))
    assert len(reader) == 4
    assert reader.get_avg_fps() == 1
    for drawn, read in zip(frames, reader, strict=True):
        pixels = read.asnumpy()[: size[1], : size[0]].astype(int)
        assert np.abs(pixels - np.asarray(drawn).astype(int)).mean() < 4
        last = read.asnumpy()[-1, -1]
        assert last.min() > 240  # what was added to an odd side is what stood beside it


def test_frames_of_different_sizes() -> None:
    """Are refused with both sizes."""
    with pytest.raises(ValueError, match=r"a frame of \(64, 64\) in a clip of 96x64"):
        mp4([frame(0), frame(0, 64, 64)])
