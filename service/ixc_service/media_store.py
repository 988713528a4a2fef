"""Encoded pictures and clips on disk, each in a file named by the SHA-256 of its bytes.

    put:   temporary file ─ fsync ─ rename to {digest} ─ fsync of the folder
    adopt: a whole, fsynced file of an upload ─ link as {digest} ─ fsync of the folder

so that a name always stands for its whole content, and what a committed turn refers to is there
after a crash. Equal bytes of different owners are one file; who may use it is not known here.
Bytes are recognised by how they begin and never decoded here.
"""

import asyncio
import contextlib
import hashlib
import os
import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ixc_runtime import (
    SNIFFED_BYTES,
    ImageSource,
    VideoSource,
    sniff_image_format,
    sniff_video_format,
)
from ixc_service.errors import StoreUnavailable

_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "MP4": "video/mp4",
    "MOV": "video/quicktime",
    "WEBM": "video/webm",
}
_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/x-ms-bmp": "image/bmp",
    "video/x-m4v": "video/mp4",
    # The first bytes do not tell it from its subset.
    "video/x-matroska": "video/webm",
    "video/matroska": "video/webm",
}


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture's or clip's bytes and their name."""

    data: bytes
    digest: str

    @classmethod
    def of(cls, data: bytes) -> "Encoded":
        return cls(data, hashlib.sha256(data).hexdigest())


def media_type(data: bytes) -> str | None:
    """The media type that the first bytes show; None for a format we do not take."""
    head = data[:SNIFFED_BYTES]
    found = sniff_image_format(head) or sniff_video_format(head)
    return None if found is None else _TYPES[found]


def same_type(claimed: str, found: str) -> bool:
    return _ALIASES.get(claimed.lower(), claimed.lower()) == found


def objection(claimed: str, found: str | None) -> str | None:
    """Why bytes of the type `found` cannot be taken for what the caller says; None if they can."""
    if found is None:
        return "the bytes are no PNG, JPEG, WebP, GIF, BMP, MP4, MOV or WebM"
    if claimed and not same_type(claimed, found):
        return f"the bytes are {found}, which mime_type contradicts"
    return None


class MediaStore:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._pins: Counter[tuple[str, str]] = Counter()
        self._held: Counter[str] = Counter()  # the same, whoever holds them
        self._writing: set[str] = set()  # names of files that are not whole yet

    def source(self, digest: str) -> ImageSource:
        return ImageSource(digest=digest, path=self._folder / digest)

    def video_source(self, digest: str) -> VideoSource:
        return VideoSource(digest=digest, path=self._folder / digest)

    def is_pinned(self, owner: str, digest: str) -> bool:
        return self._pins[owner, digest] > 0

    @contextlib.contextmanager
    def pinned(self, owner: str, digests: Iterable[str]) -> Iterator[None]:
        """Keeps these from expiring meanwhile, on this owner's account."""
        held = Counter(digests)
        pins = Counter({(owner, digest): count for digest, count in held.items()})
        self._pins.update(pins)
        self._held.update(held)
        try:
            yield
        finally:
            self._pins -= pins
            self._held -= held

    async def put(self, contents: Iterable[Encoded]) -> None:
        """Stores what is not there yet; on disk when it returns."""
        await asyncio.to_thread(self._put, tuple(contents))

    async def adopt(self, path: Path, digest: str) -> None:
        """Takes a whole file of these bytes in; the file stays where it is, too."""
        await asyncio.to_thread(self._adopt, path, digest)

    def require(self, digests: Iterable[str]) -> None:
        """Raises StoreUnavailable if a file that is referred to has been taken away."""
        for digest in digests:
            if not (self._folder / digest).is_file():
                raise StoreUnavailable("a picture or clip is missing", media=digest)

    async def expire(self, in_use: Collection[str], older_than: float) -> int:
        """Removes files that are not in use, nobody holds, and that are older than that."""
        return await asyncio.to_thread(self._expire, in_use, older_than)

    def _put(self, contents: tuple[Encoded, ...]) -> None:
        try:
            added = [self._put_one(content) for content in contents]
            if any(added):
                self._sync_folder()
        except OSError as error:
            raise StoreUnavailable("the media store refused", errno=error.errno) from error

    def _adopt(self, path: Path, digest: str) -> None:
        target = self._folder / digest
        try:
            with contextlib.suppress(FileExistsError):
                target.hardlink_to(path)
            os.utime(target)
            self._sync_folder()
        except OSError as error:
            raise StoreUnavailable("the media store refused", errno=error.errno) from error

    def _put_one(self, content: Encoded) -> bool:
        target = self._folder / content.digest
        try:
            os.utime(target)  # its age counts from its latest use
        except FileNotFoundError:
            pass
        else:
            return False
        partial = self._folder / f".{secrets.token_hex(16)}"
        self._writing.add(partial.name)
        try:
            with partial.open("xb") as file:
                file.write(content.data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        finally:
            self._writing.discard(partial.name)
        return True

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _expire(self, in_use: Collection[str], older_than: float) -> int:
        """Leftovers of a crash, whose names begin with a dot, go by the same rule."""
        removed = 0
        for entry in os.scandir(self._folder):
            if entry.name in in_use or self._held[entry.name] or entry.name in self._writing:
                continue
            with contextlib.suppress(FileNotFoundError):
                if entry.stat(follow_symlinks=False).st_mtime < older_than:
                    Path(entry.path).unlink()
                    removed += 1
        return removed
