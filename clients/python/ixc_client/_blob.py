"""Bytes wherever they are: at hand, in a file, behind an open one. Read piece by piece.

A clip may have a gigabyte, so nothing here holds a file as a whole unless it is asked to, or the
source can be read only once. Knows nothing of pictures, clips or the wire.
"""

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ixc_client._errors import MediaUnreadable

Source = str | os.PathLike[str] | bytes | BinaryIO

_HASHED_AT_ONCE = 1 << 20


class Blob:
    """`name` says in errors what could not be read."""

    __slots__ = ("_read", "name", "size")

    def __init__(self, name: str, size: int, read: Callable[[int, int], bytes]) -> None:
        self.name = name
        self.size = size
        self._read = read

    def read(self, offset: int, count: int) -> bytes:
        """From `offset` as many of `count` bytes as there are; never none."""
        try:
            data = self._read(offset, count)
        except (OSError, ValueError) as error:  # a closed file is a ValueError
            raise _unreadable(self.name, error) from error
        if not data:
            raise MediaUnreadable(
                f"{self.name} ended at {offset} of {self.size} bytes: it changed meanwhile"
            )
        return data

    def whole(self) -> bytes:
        pieces = []
        offset = 0
        while offset < self.size:
            pieces.append(self.read(offset, self.size - offset))
            offset += len(pieces[-1])
        return b"".join(pieces)

    def sha256(self) -> str:
        digest = hashlib.sha256()
        offset = 0
        while offset < self.size:
            piece = self.read(offset, min(_HASHED_AT_ONCE, self.size - offset))
            digest.update(piece)
            offset += len(piece)
        return digest.hexdigest()


def open_blob(source: Source, noun: str = "file") -> Blob:
    """Raises MediaUnreadable, now and not in the middle of sending, for what is not there."""
    name = f"the {noun} {describe(source)}"
    try:
        if isinstance(source, bytes):
            blob = _of_bytes(source, name)
        elif isinstance(source, str | os.PathLike):
            blob = _of_path(Path(source).expanduser(), name)
        else:
            blob = _of_file(source, name)
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from error
    if not blob.size:
        raise MediaUnreadable(f"{name} is empty")
    return blob


def describe(source: object) -> str:
    """How errors name a source: by its path where it has one."""
    if isinstance(source, bytes):
        return f"of {len(source)} bytes"
    if isinstance(source, str | os.PathLike):
        return repr(os.fspath(source))
    return repr(getattr(source, "name", "file"))


def _of_bytes(data: bytes, name: str) -> Blob:
    return Blob(name, len(data), lambda offset, count: data[offset : offset + count])


def _of_path(path: Path, name: str) -> Blob:
    # Opened for each piece: no descriptor is left behind, however the sending ends.
    def read(offset: int, count: int) -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(count)

    with path.open("rb") as file:
        return Blob(name, os.fstat(file.fileno()).st_size, read)


def _of_file(file: BinaryIO, name: str) -> Blob:
    """From where it stands. One that cannot seek, such as a pipe, is read into memory."""
    if isinstance(file, io.TextIOBase):
        raise MediaUnreadable(f"{name} gives text; open the file in binary mode")
    if not (hasattr(file, "seekable") and file.seekable()):
        data = file.read()
        if not isinstance(data, bytes):
            raise MediaUnreadable(f"{name} gives {type(data).__name__}, not bytes")
        return _of_bytes(data, name)
    start = file.tell()
    end = file.seek(0, io.SEEK_END)

    def read(offset: int, count: int) -> bytes:
        file.seek(start + offset)
        return file.read(count)

    return Blob(name, max(0, end - start), read)


def _unreadable(name: str, error: OSError | ValueError) -> MediaUnreadable:
    why = getattr(error, "strerror", None) or error
    return MediaUnreadable(f"cannot read {name}: {why}")
