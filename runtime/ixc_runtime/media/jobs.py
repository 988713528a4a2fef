"""What the front end and a media worker say to each other: msgpack, one frame a message.

A frame is four bytes of length, big end first, and that many bytes. The first frame to a worker
is its `WorkerLimits`, answered by `Ready`; then each job is answered by one outcome. New kinds of
work (a video's frames) are new members of the two unions.
"""

from typing import Literal

import msgspec

HEADER_BYTES = 4
MAX_FRAME_BYTES = 1 << 16  # messages are names and numbers; pixels travel in files


class WorkerLimits(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What a worker may take. Set by the worker on itself before it sees any picture."""

    max_pixels: int
    memory_bytes: int  # of address space, interpreter included
    file_bytes: int  # of the one file it writes
    job_seconds: float  # of processor time; the front end watches the clock


class ProbeImage(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Read a picture's header."""

    path: str


class RenderImage(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Decode and transform a picture into `output`, an existing empty file, as raw RGB rows."""

    path: str
    hd_num: int
    tile_size: int
    output: str


Job = ProbeImage | RenderImage


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The limits are in force and the decoders loaded."""


class ImageProbed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    width: int
    height: int
    format: str


class ImageRendered(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    width: int
    height: int


class JobFailed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """`message` is written by us, for the caller: never an exception's text, never a path.

    unsupported: not one of the formats; undecodable: a broken picture, or one beyond a limit;
    exhausted: as undecodable, and the worker has run out of memory and should be replaced;
    unreadable: our own file could not be opened.
    """

    kind: Literal["unsupported", "undecodable", "exhausted", "unreadable"]
    message: str


Outcome = Ready | ImageProbed | ImageRendered | JobFailed

limits_decoder = msgspec.msgpack.Decoder(WorkerLimits)
job_decoder: msgspec.msgpack.Decoder[Job] = msgspec.msgpack.Decoder(ProbeImage | RenderImage)
outcome_decoder: msgspec.msgpack.Decoder[Outcome] = msgspec.msgpack.Decoder(
    Ready | ImageProbed | ImageRendered | JobFailed
)


def to_frame(message: WorkerLimits | Job | Outcome) -> bytes:
    body = msgspec.msgpack.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"a message of {len(body)} bytes exceeds {MAX_FRAME_BYTES}")
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def body_length(header: bytes) -> int:
    """The length a frame announces; ValueError beyond the bound."""
    length = int.from_bytes(header, "big")
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {length} bytes exceeds {MAX_FRAME_BYTES}")
    return length
