"""Encoded pictures on disk, each in a file named by the SHA-256 of its bytes.

    put: temporary file ─ fsync ─ rename to {digest} ─ fsync of the folder

so that a name always stands for its whole content, and what a committed turn refers to is there
after a crash. Bytes are recognised by how they begin and never decoded here.
"""

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ixc_runtime import ImageSource
from ixc_service.errors import StoreUnavailable

# How a file of each format we take begins: bytes at places.
_MAGIC: tuple[tuple[str, tuple[tuple[int, bytes], ...]], ...] = (
    ("image/png", ((0, b"\x89PNG\r\n\x1a\n"),)),
    ("image/jpeg", ((0, b"\xff\xd8\xff"),)),
    ("image/webp", ((0, b"RIFF"), (8, b"WEBP"))),
    ("image/gif", ((0, b"GIF8"),)),
    ("image/bmp", ((0, b"BM"),)),
)
_ALIASES = {"image/jpg": "image/jpeg", "image/x-ms-bmp": "image/bmp"}


@dataclass(frozen=True, slots=True)
class Picture:
    """Encoded bytes and their name."""

    data: bytes
    digest: str

    @classmethod
    def of(cls, data: bytes) -> "Picture":
        return cls(data, hashlib.sha256(data).hexdigest())


def media_type(data: bytes) -> str | None:
    """The media type that the first bytes show; None for a format we do not take."""
    for name, marks in _MAGIC:
        if all(data[at : at + len(mark)] == mark for at, mark in marks):
            return name
    return None


def same_type(claimed: str, found: str) -> bool:
    return _ALIASES.get(claimed.lower(), claimed.lower()) == found


class MediaStore:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._pins: Counter[str] = Counter()

    def source(self, digest: str) -> ImageSource:
        return ImageSource(digest=digest, path=self._folder / digest)

    @contextlib.contextmanager
    def pinned(self, digests: Iterable[str]) -> Iterator[None]:
        """Keeps these from expiring meanwhile."""
        held = Counter(digests)
        self._pins.update(held)
        try:
            yield
        finally:
            self._pins -= held

    async def put(self, pictures: Iterable[Picture]) -> None:
        """Stores what is not there yet; on disk when it returns."""
        await asyncio.to_thread(self._put, tuple(pictures))

    def require(self, digests: Iterable[str]) -> None:
        """Raises StoreUnavailable if a picture of an earlier turn has been taken away."""
        for digest in digests:
            if not (self._folder / digest).is_file():
                raise StoreUnavailable("a picture of an earlier turn is missing", media=digest)

    async def expire(self, in_use: Collection[str], older_than: float) -> int:
        """Removes files that no turn refers to, nobody holds, and that are older than that."""
        return await asyncio.to_thread(self._expire, in_use, older_than)

    def _put(self, pictures: tuple[Picture, ...]) -> None:
        try:
            added = [self._put_one(picture) for picture in pictures]
            if any(added):
                self._sync_folder()
        except OSError as error:
            raise StoreUnavailable("the media store refused", errno=error.errno) from error

    def _put_one(self, picture: Picture) -> bool:
        target = self._folder / picture.digest
        try:
            os.utime(target)  # its age counts from its latest use
        except FileNotFoundError:
            pass
        else:
            return False
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", delete=False) as file:
            try:
                file.write(picture.data)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(target)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
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
            if entry.name in in_use or self._pins[entry.name]:
                continue
            with contextlib.suppress(FileNotFoundError):
                if entry.stat(follow_symlinks=False).st_mtime < older_than:
                    Path(entry.path).unlink()
                    removed += 1
        return removed
