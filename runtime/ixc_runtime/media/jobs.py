"""What the front end and a media worker say to each other: msgpack, one frame a message.

A frame is four bytes of length, big end first, and that many bytes. The first frame to a worker
is its `WorkerLimits`, answered by `Ready`; then each job is answered by one outcome. A worker
takes jobs on pictures or on clips, as its limits say, and never both.
"""

from typing import Literal

import msgspec

HEADER_BYTES = 4
MAX_FRAME_BYTES = 1 << 16  # messages are names and numbers; pixels travel in files


class WorkerLimits(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What a worker may take. Set by the worker on itself before it sees any bytes of others."""

    kind: Literal["pictures", "clips"]
    max_pixels: int  # of a picture, or of one frame
    max_frames: int  # in a clip
    max_seconds: float  # a clip's length
    max_fps: int
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


class ProbeVideo(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Read a clip's index and decode its first frame."""

    path: str


class RenderVideo(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Decode these frames into one strip, transform it, and write it as `RenderImage` does.

    `width` and `height` are those that `ProbeVideo` found: they decide the strip's size.
    """

    path: str
    frames: tuple[int, ...]
    width: int
    height: int
    tile_size: int
    output: str


Job = ProbeImage | RenderImage | ProbeVideo | RenderVideo


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The limits are in force and the decoders loaded."""


class ImageProbed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    width: int
    height: int
    format: str


class VideoProbed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    width: int
    height: int
    num_frames: int
    fps: float
    format: str
    codec: str


class ImageRendered(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    width: int
    height: int


class JobFailed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """`message` is written by us, for the caller: never an exception's text, never a path.

    unsupported: not one of the formats, or `codec` is none that we decode; undecodable: broken,
    or beyond a limit; exhausted: as undecodable, and the worker has run out of memory and should
    be replaced; unreadable: our own file could not be opened.
    """

    kind: Literal["unsupported", "undecodable", "exhausted", "unreadable"]
    message: str
    codec: str = ""


class RefusedError(Exception):
    """Carries a refusal out of a worker's nested calls."""

    def __init__(self, outcome: JobFailed) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome


Outcome = Ready | ImageProbed | VideoProbed | ImageRendered | JobFailed

limits_decoder = msgspec.msgpack.Decoder(WorkerLimits)
job_decoder: msgspec.msgpack.Decoder[Job] = msgspec.msgpack.Decoder(
    ProbeImage | RenderImage | ProbeVideo | RenderVideo
)
outcome_decoder: msgspec.msgpack.Decoder[Outcome] = msgspec.msgpack.Decoder(
    Ready | ImageProbed | VideoProbed | ImageRendered | JobFailed
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
