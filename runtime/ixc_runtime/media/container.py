"""What an MP4 or WebM file says of its video tracks, read without decoding anything.

The decoder has no AV1 and tells it from rubbish in no way that a caller could use, so codecs are
read from the container first. The walk is bounded: it steps from header to header, reads a few
bytes at each, and gives up after `_MAX_STEPS` of them. It knows nothing of frames.

MP4 (and MOV): boxes of size and kind, moov > trak > mdia > minf > stbl > stsd > sample entry.
WebM (and Matroska): EBML elements of id and size, Segment > Tracks > TrackEntry.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

# By sample entry (MP4) and by CodecID (WebM). What is not here is not given to the decoder.
_MP4_CODECS = {
    b"avc1": "H.264",
    b"avc3": "H.264",
    b"hvc1": "H.265",
    b"hev1": "H.265",
    b"vp08": "VP8",
    b"vp09": "VP9",
    b"mp4v": "MPEG-4",
}
_WEBM_CODECS = {
    b"V_MPEG4/ISO/AVC": "H.264",
    b"V_MPEGH/ISO/HEVC": "H.265",
    b"V_VP8": "VP8",
    b"V_VP9": "VP9",
    b"V_MPEG4/ISO/SP": "MPEG-4",
    b"V_MPEG4/ISO/ASP": "MPEG-4",
}
SUPPORTED_CODECS = tuple(dict.fromkeys(_MP4_CODECS.values()))
_KNOWN_BY_NAME = {b"av01": "AV1", b"V_AV1": "AV1"}

_MAX_STEPS = 20_000
_MAX_NAME_BYTES = 64

_CLUSTER, _SEGMENT, _INFO, _TRACKS = 0x1F43B675, 0x18538067, 0x1549A966, 0x1654AE6B
_DURATION, _TRACK, _TRACK_TYPE = 0x4489, 0xAE, 0x83
_CODEC_ID, _VIDEO, _PIXEL_WIDTH, _PIXEL_HEIGHT = 0x86, 0xE0, 0xB0, 0xBA


class BrokenContainerError(Exception):
    """The message is written by us, for the caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoTrack:
    """`codec` is one of `SUPPORTED_CODECS`, or else a printable name that is not."""

    codec: str
    width: int
    height: int

    @property
    def is_supported(self) -> bool:
        return self.codec in SUPPORTED_CODECS


def read_video_tracks(path: Path, video_format: str) -> tuple[VideoTrack, ...]:
    """Every video track of the file, at least one. Raises BrokenContainerError."""
    with path.open("rb") as file:
        walk = _Walk(file)
        tracks = tuple(_webm_tracks(walk) if video_format == "WEBM" else _mp4_tracks(walk))
    if not tracks:
        raise BrokenContainerError("the clip has no video track")
    return tracks


class _Walk:
    """Bounded reading at absolute places of a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._steps = 0
        self.end = file.seek(0, 2)

    def read(self, at: int, count: int) -> bytes:
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise BrokenContainerError(f"the clip's index has more than {_MAX_STEPS} parts")
        self._file.seek(at)
        data = self._file.read(count)
        if len(data) < count:
            raise BrokenContainerError("the clip is cut off")
        return data


# MP4


def _mp4_tracks(walk: _Walk) -> Iterator[VideoTrack]:
    moov = next((body for kind, body in _boxes(walk, (0, walk.end)) if kind == b"moov"), None)
    if moov is None:
        raise BrokenContainerError("the clip is cut off: its index (moov) is missing")
    for kind, trak in _boxes(walk, moov):
        if kind == b"trak":
            yield from _sample_entries(walk, trak)


def _sample_entries(walk: _Walk, trak: tuple[int, int]) -> Iterator[VideoTrack]:
    """Those of a track whose handler is video; a track may change its codec midway."""
    mdia = _child(walk, trak, b"mdia")
    handler = mdia and _child(walk, mdia, b"hdlr")
    if not mdia or not handler or walk.read(handler[0] + 8, 4) != b"vide":
        return
    minf = _child(walk, mdia, b"minf")
    stbl = minf and _child(walk, minf, b"stbl")
    stsd = stbl and _child(walk, stbl, b"stsd")
    if not stsd:
        raise BrokenContainerError("the clip's index (moov) is broken")
    for kind, entry in _boxes(walk, (stsd[0] + 8, stsd[1])):
        # reserved 6, reference 2, predefined and reserved 16, then the size
        width, height = struct.unpack(">HH", walk.read(entry[0] + 24, 4))
        yield VideoTrack(
            codec=_MP4_CODECS.get(kind) or _printable(kind), width=width, height=height
        )


def _child(walk: _Walk, parent: tuple[int, int], wanted: bytes) -> tuple[int, int] | None:
    return next((body for kind, body in _boxes(walk, parent) if kind == wanted), None)


def _boxes(walk: _Walk, within: tuple[int, int]) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Kind and body (begin, end) of each box; a box that overruns its parent ends the walk."""
    at, end = within
    while at + 8 <= end:
        size, kind = struct.unpack(">I4s", walk.read(at, 8))
        header = 8
        if size == 1:
            (size,) = struct.unpack(">Q", walk.read(at + 8, 8))
            header = 16
        elif size == 0:
            size = end - at
        if size < header:
            raise BrokenContainerError("the clip's index (moov) is broken")
        if at + size > end:
            raise BrokenContainerError("the clip is cut off")
        yield kind, (at + header, at + size)
        at += size


# WebM


def _webm_tracks(walk: _Walk) -> Iterator[VideoTrack]:
    segments = (body for name, body in _elements(walk, (0, walk.end)) if name == _SEGMENT)
    segment = next(segments, None)
    if segment is None:
        raise BrokenContainerError("the clip is cut off: it has no Segment")
    has_duration = False
    for name, body in _elements(walk, segment):
        if name == _INFO:
            has_duration = any(child == _DURATION for child, _ in _elements(walk, body))
        elif name == _TRACKS:
            if not has_duration:
                raise BrokenContainerError(
                    "the clip does not state its duration, as recordings straight from a browser "
                    "do not; remux it first"
                )
            for child, track in _elements(walk, body):
                if child == _TRACK:
                    yield from _video_track(walk, track)
            return
        elif name == _CLUSTER:
            break
    raise BrokenContainerError("the clip's list of tracks is missing")


def _video_track(walk: _Walk, track: tuple[int, int]) -> Iterator[VideoTrack]:
    fields = dict(_elements(walk, track))
    if _TRACK_TYPE not in fields or _number(walk, fields[_TRACK_TYPE]) != 1:
        return
    if _CODEC_ID not in fields or _VIDEO not in fields:
        raise BrokenContainerError("the clip's list of tracks is broken")
    begin, end = fields[_CODEC_ID]
    codec = walk.read(begin, min(end - begin, _MAX_NAME_BYTES)).rstrip(b"\0")
    video = dict(_elements(walk, fields[_VIDEO]))
    if _PIXEL_WIDTH not in video or _PIXEL_HEIGHT not in video:
        raise BrokenContainerError("the clip's list of tracks is broken")
    yield VideoTrack(
        codec=_WEBM_CODECS.get(codec) or _printable(codec),
        width=_number(walk, video[_PIXEL_WIDTH]),
        height=_number(walk, video[_PIXEL_HEIGHT]),
    )


def _elements(walk: _Walk, within: tuple[int, int]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Id and body (begin, end) of each element; one of unknown size reaches to its parent's end."""
    at, end = within
    while at < end:
        name, _, at = _variable_int(walk, at)
        _, size, at = _variable_int(walk, at)
        stop = end if size is None else at + size
        if stop > end:
            raise BrokenContainerError("the clip is cut off")
        yield name, (at, stop)
        at = stop


def _variable_int(walk: _Walk, at: int) -> tuple[int, int | None, int]:
    """An EBML number of 1 to 8 bytes, whose leading zero bits say how many, and what follows it.

    As it stands, which is how ids are written; and without its leading one, which is how sizes
    are: None, of unknown size, if all other bits are ones.
    """
    first = walk.read(at, 1)[0]
    length = 9 - first.bit_length()
    if length > 8:
        raise BrokenContainerError("the clip's structure is broken")
    number = int.from_bytes(walk.read(at, length), "big")
    marker = 1 << 7 * length
    size = number - marker
    return number, None if size == marker - 1 else size, at + length


def _number(walk: _Walk, body: tuple[int, int]) -> int:
    begin, end = body
    if not 0 <= end - begin <= 8:
        raise BrokenContainerError("the clip's structure is broken")
    return int.from_bytes(walk.read(begin, end - begin), "big")


def _printable(name: bytes) -> str:
    """A codec's own name where it is short and plain; it will stand in a message."""
    if name in _KNOWN_BY_NAME:
        return _KNOWN_BY_NAME[name]
    text = "".join(chr(byte) for byte in name if 0x20 < byte < 0x7F)
    return text.strip()[:32] or "unnamed"
