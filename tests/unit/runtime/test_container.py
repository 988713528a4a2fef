"""Reading a container's word on its video tracks, from whole, cut and mangled files."""

import contextlib
import random

import pytest

from ixc_runtime.media.container import BrokenContainerError, VideoTrack, read_video_tracks
from ixc_runtime.media.formats import sniff_image_format, sniff_video_format
from tests.fakes.clips import made_clip, real_clip


def tracks_of(path) -> tuple[VideoTrack, ...]:
    with path.open("rb") as file:
        video_format = sniff_video_format(file.read(12))
    assert video_format is not None
    return read_video_tracks(path, video_format)


@pytest.mark.parametrize(
    ("name", "video_format", "codec"),
    [
        ("av1.mp4", "MP4", "AV1"),
        ("av1.webm", "WEBM", "AV1"),
        ("fragmented.mp4", "MP4", "H.264"),
        ("h264.mkv", "WEBM", "H.264"),
        ("h264.mov", "MOV", "H.264"),
        ("h265.mp4", "MP4", "H.265"),
        ("mjpeg.mov", "MOV", "jpeg"),
        ("mpeg4.mp4", "MP4", "MPEG-4"),
        ("vp8.webm", "WEBM", "VP8"),
        ("vp9.webm", "WEBM", "VP9"),
    ],
)
def test_each_codec(name, video_format, codec):
    """Named as people name it, in either family of containers."""
    path = made_clip(name)
    assert video_format == sniff_video_format(path.read_bytes()[:12])
    assert tracks_of(path) == (VideoTrack(codec=codec, width=64, height=48),)
    assert tracks_of(path)[0].is_supported == (codec not in {"AV1", "jpeg"})


def test_a_track_beside_sound():
    """Of a film with sound, the picture's track alone."""
    assert tracks_of(real_clip("bikes.mp4")) == (VideoTrack(codec="H.264", width=640, height=272),)


def test_sound_alone():
    """A file without pictures is not a clip."""
    with pytest.raises(BrokenContainerError, match="no video track"):
        tracks_of(made_clip("sound-only.mp4"))


def test_a_recording_without_a_duration():
    """What a browser records cannot be indexed; the message says what to do."""
    with pytest.raises(BrokenContainerError, match="remux"):
        tracks_of(made_clip("no-duration.webm"))


@pytest.mark.parametrize(
    "head",
    [b"", b"hello", b"\0\0\0 ftypavif", b"\0\0\0\x18ftypheic", b"RIFF\0\0\0\0AVI LIST", b"OggS"],
)
def test_what_is_no_clip(head):
    """Text, still pictures in a clip's container, and containers we do not take."""
    assert sniff_video_format(head) is None


def test_pictures_and_clips_are_apart():
    """No file is taken for both."""
    for name in ("av1.mp4", "vp9.webm", "h264.mov"):
        assert sniff_image_format(made_clip(name).read_bytes()[:12]) is None


@pytest.mark.parametrize("name", ["h264.mov", "vp9.webm", "fragmented.mp4"])
def test_cut_anywhere(tmp_path, name):
    """Tracks are found or the file is called broken; nothing else can come of it."""
    whole, path = made_clip(name).read_bytes(), tmp_path / "cut"
    for length in range(12, len(whole)):
        path.write_bytes(whole[:length])
        with contextlib.suppress(BrokenContainerError):
            assert tracks_of(path)


@pytest.mark.parametrize("name", ["h264.mov", "vp9.webm", "av1.mp4", "h264.mkv"])
def test_mangled(tmp_path, name):
    """Bytes changed at random do not make the walk go astray, and names stay printable."""
    dice, whole, path = random.Random(name), made_clip(name).read_bytes(), tmp_path / "mangled"
    for _ in range(400):
        clip = bytearray(whole)
        for _ in range(dice.randint(1, 8)):
            clip[dice.randrange(12, len(clip))] = dice.randrange(256)
        path.write_bytes(clip)
        try:
            tracks = tracks_of(path)
        except BrokenContainerError:
            continue
        assert all(track.codec.isprintable() and len(track.codec) <= 32 for track in tracks)


def test_an_endless_index(tmp_path):
    """A file of a million empty boxes is given up, not walked."""
    path = tmp_path / "boxes"
    path.write_bytes(b"\0\0\0\x0cftypisom" + b"\0\0\0\x08free" * 1_000_000)
    with pytest.raises(BrokenContainerError, match="more than 20000 parts"):
        tracks_of(path)
