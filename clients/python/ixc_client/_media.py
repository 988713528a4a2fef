"""Pictures and clips: as a caller hands them in, and as the server keeps them.

They travel as the bytes they are: the client neither decodes nor shrinks them, and needs no imaging
library. Knows nothing of the wire; `_requests` writes these into messages.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from ixc_client._blob import Blob, Source, describe, open_blob
from ixc_client._errors import IxcError, MediaUnreadable, UsageError

# What `ixc upload` prints and `Media.name` holds. A file of such a path is "./media/…".
_NAME = re.compile(r"media/[0-9a-f]{64}")


class MediaState(StrEnum):
    UNKNOWN = "unknown"  # a state newer than this client
    PROCESSING = "processing"  # all bytes are there and are being looked at
    ACTIVE = "active"  # prompts can name it
    FAILED = "failed"  # it cannot be used; `Media.error` says why


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """A picture's size and price: its tiles and tokens as the only one of a message."""

    width: int
    height: int
    tiles_wide: int
    tiles_high: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """A clip's frames and price: tiles and tokens of a `Video` without any settings."""

    width: int
    height: int
    duration: float  # seconds
    fps: float
    frames: int
    codec: str
    shown_frames: int
    tiles_wide: int
    tiles_high: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """An uploaded picture or clip, named by its own bytes. Goes wherever a path may stand."""

    name: str
    mime_type: str
    size_bytes: int
    state: MediaState
    image: ImageInfo | None  # set for a picture that is ACTIVE
    video: VideoInfo | None  # set for a clip that is ACTIVE
    error: IxcError | None
    create_time: datetime | None
    ttl: float
    expire_time: datetime | None


MediaSource = Source | Media


class _Shown:
    """What pictures and clips have in common: where the bytes are, and a name in the prompt."""

    __slots__ = ("label", "source")
    noun: ClassVar[str]

    def __init__(self, source: MediaSource, label: str | None) -> None:
        self.source = source
        self.label = label

    @property
    def media(self) -> str:
        """The name it was uploaded under; "" if its bytes have still to be sent."""
        if isinstance(self.source, Media):
            return self.source.name
        return self.source if isinstance(self.source, str) and _NAME.fullmatch(self.source) else ""

    def open(self) -> Blob:
        if isinstance(self.source, Media) or self.media:
            raise UsageError(f"the bytes of {self.media} are on the server, not here")
        source = self.source
        if isinstance(source, str) and source.startswith("media/") and not Path(source).exists():
            raise MediaUnreadable(
                f"{source!r} is no file, nor the name of an uploaded {self.noun}: "
                "that is media/ and 64 of 0-9 and a-f"
            )
        return open_blob(self.source, self.noun)

    def read(self) -> bytes:
        """The encoded bytes, whole. An open file is read from where it stands."""
        return self.open().whole()

    def __str__(self) -> str:
        return self.media or describe(self.source)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"


class Image(_Shown):
    """A picture: a path, its bytes, an open binary file, or one that was uploaded.

    `hd_num` bounds the number of tiles it is cut into (None: the model's default, fewer tiles
    being cheaper and coarser); `label` is the name it has in the prompt (None: "Image1", …).
    """

    __slots__ = ("hd_num",)
    noun = "picture"

    def __init__(
        self, source: MediaSource, *, hd_num: int | None = None, label: str | None = None
    ) -> None:
        if isinstance(source, Media) and source.video is not None:
            raise UsageError(f"{source.name} is a clip: Video(…)")
        super().__init__(source, label)
        self.hd_num = hd_num


class Video(_Shown):
    """A clip: a path, its bytes, an open binary file, or one that was uploaded.

    The model sees frames of it: `fps` for each second (None: 1) between `start` and `end`, in
    seconds (None: all of it); if these are more than `max_frames` (None: 32), so many, evenly
    spread. More frames cost more tokens. `label` is its name in the prompt (None: "Image1", …).
    """

    __slots__ = ("end", "fps", "max_frames", "start")
    noun = "clip"

    def __init__(
        self,
        source: MediaSource,
        *,
        max_frames: int | None = None,
        fps: float | None = None,
        start: float | None = None,
        end: float | None = None,
        label: str | None = None,
    ) -> None:
        if isinstance(source, Media) and source.image is not None:
            raise UsageError(f"{source.name} is a picture: Image(…)")
        for name, value in (("start", start), ("end", end)):
            if value is not None and not 0 <= value < 1e9:
                raise UsageError(f"{name} must be seconds from the clip's beginning, not {value}")
        super().__init__(source, label)
        self.max_frames = max_frames
        self.fps = fps
        self.start = start
        self.end = end


ImageLike = Image | MediaSource
VideoLike = Video | MediaSource
# Beside a text in a pair: what is no Video is a picture.
ShownLike = ImageLike | Video


def as_images(value: ImageLike | Iterable[ImageLike]) -> tuple[Image, ...]:
    """One picture or several, in order."""
    return tuple(item if isinstance(item, Image) else Image(item) for item in _each(value))


def as_videos(value: VideoLike | Iterable[VideoLike]) -> tuple[Video, ...]:
    """One clip or several, in order."""
    return tuple(item if isinstance(item, Video) else Video(item) for item in _each(value))


def as_shown(value: ShownLike | Iterable[ShownLike]) -> tuple[Image | Video, ...]:
    """Pictures, and clips that say so, in order."""
    return tuple(item if isinstance(item, Image | Video) else Image(item) for item in _each(value))


def _each(value: Any) -> Iterable[Any]:
    """A single one needs no list around it. Open files can be iterated, but are single."""
    single = isinstance(value, _Shown | Media | str | os.PathLike | bytes) or hasattr(value, "read")
    return (value,) if single else value
