"""Bytes on their way in: chunk by chunk into a staging file, and as a whole into the media store.

    spec ─► row, room in the quota ─► chunk: written, fsynced ─► … ─► digest checked
                                      the file's length is what is committed     │
                        row of the object, staging file gone ◄─ linked into the media store

A crash at any point loses no committed byte and tells no lie: before the row of the object is
written the staging file is still whole, and finishing again does the same again. Only a digest that
does not hold throws bytes away.

One stream at a time writes: a newer one takes the upload over, and the older finds out at its next
chunk. Knows files and offsets; what is in the bytes, beyond how they begin, is not its business.
"""

import asyncio
import contextlib
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import google_crc32c

from ixc_runtime import SNIFFED_BYTES
from ixc_runtime.errors import MediaTypeUnsupported, RuntimeFault
from ixc_service.errors import (
    RequestInvalid,
    StoreUnavailable,
    UploadConflict,
    UploadDigestMismatch,
    UploadOffsetMismatch,
    Violation,
)
from ixc_service.limits import Limits
from ixc_service.media_store import MediaStore, media_type, objection
from ixc_service.moments import Clock
from ixc_service.store import MediaRecord, MediaRecords, UploadRecord

_READ_BYTES = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadWish:
    """What a stream announces."""

    owner: str
    upload_id: str
    digest: str
    mime_type: str
    size_bytes: int
    ttl_seconds: float


@dataclass
class _Seat:
    """The one place to write from; `holder` is the stream that came last."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    holder: "Transfer | None" = None
    num_streams: int = 0


class Uploads:
    """`folder` is on the file system of the media store, for files move between them by a link."""

    def __init__(
        self,
        folder: Path,
        records: MediaRecords,
        media: MediaStore,
        *,
        clock: Clock,
        limits: Limits,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self.records = records
        self.media = media
        self.limits = limits
        self.closing = asyncio.Event()  # set once the server stops: streams end, to be taken up
        self._clock = clock
        self._seats: dict[tuple[str, str], _Seat] = {}

    @contextlib.asynccontextmanager
    async def transfer(self, wish: UploadWish) -> AsyncIterator["Transfer"]:
        """One stream's part of an upload. Raises UploadIdReused or MediaQuota."""
        place = (wish.owner, wish.upload_id)
        seat = self._seats.setdefault(place, _Seat())
        seat.num_streams += 1
        try:
            async with seat.lock:
                record = await self.records.begin_upload(self._new_record(wish), self._clock.now())
                transfer = Transfer(self, seat, record)
                seat.holder = transfer
                transfer.committed_size = await _on_disk(_length, transfer.path)
            yield transfer
        finally:
            seat.num_streams -= 1
            if not seat.num_streams:
                del self._seats[place]
            await self.records.prolong_upload(*place, self.expiry())

    async def progress(self, owner: str, upload_id: str) -> tuple[UploadRecord, int]:
        """An upload, and how many of its bytes are on disk."""
        record = await self.records.get_upload(owner, upload_id, self._clock.now())
        if record.is_finished:
            return record, record.size_bytes
        return record, await _on_disk(_length, self.folder / record.staging)

    async def expire(self) -> int:
        """Forgets old uploads, and removes the files that no upload needs."""
        names = await _on_disk(os.listdir, self.folder)
        needed = await self.records.expire_uploads(self._clock.now(), self._seats.keys())
        stale = [name for name in names if name not in needed]
        for name in stale:
            await _on_disk(_remove, self.folder / name)
        return len(stale)

    def now(self) -> float:
        return self._clock.now()

    def expiry(self) -> float:
        return self._clock.now() + self.limits.upload_ttl_seconds

    def _new_record(self, wish: UploadWish) -> UploadRecord:
        return UploadRecord(
            owner=wish.owner,
            upload_id=wish.upload_id,
            digest=wish.digest,
            mime_type=wish.mime_type,
            size_bytes=wish.size_bytes,
            ttl_seconds=wish.ttl_seconds,
            staging=secrets.token_hex(16),
            is_finished=False,
            expire_time=self.expiry(),
        )


class Transfer:
    """A stream's hold on an upload, until a newer stream takes it."""

    def __init__(self, uploads: Uploads, seat: _Seat, record: UploadRecord) -> None:
        self.record = record
        self.path = uploads.folder / record.staging
        self.committed_size = 0
        self._uploads = uploads
        self._seat = seat

    async def write(self, offset: int, data: bytes, crc32c: int | None) -> None:
        """Appends a chunk; on disk when it returns."""
        async with self._exclusively():
            self._check_chunk(offset, data, crc32c)
            await _on_disk(_append, self.path, offset, data)
            self.committed_size += len(data)
            if offset < SNIFFED_BYTES <= self.committed_size:
                await self._check_beginning()

    async def finish(self) -> MediaRecord:
        """Checks the whole and hands it over; the staging file is gone when it returns."""
        record, uploads = self.record, self._uploads
        async with self._exclusively():
            if not self._is_complete:
                raise UploadOffsetMismatch(
                    f"{self.committed_size} of {record.size_bytes} bytes have come",
                    committed_size=self.committed_size,
                )
            if await _on_disk(_digest, self.path) != record.digest:
                await _on_disk(_remove, self.path)
                self.committed_size = 0
                raise UploadDigestMismatch(
                    "the bytes are not those of sha256; all were thrown away", committed_size=0
                )
            found = await self._check_beginning()
            with uploads.media.pinned(record.owner, [record.digest]):
                await uploads.media.adopt(self.path, record.digest)
                made = await uploads.records.finish_upload(record, found, uploads.now())
            await _on_disk(_remove, self.path)
            return made

    @property
    def _is_complete(self) -> bool:
        return self.committed_size == self.record.size_bytes

    @contextlib.asynccontextmanager
    async def _exclusively(self) -> AsyncIterator[None]:
        async with self._seat.lock:
            if self._seat.holder is not self:
                raise UploadConflict(
                    "another stream goes on with this upload", upload=self.record.upload_id
                )
            yield

    def _check_chunk(self, offset: int, data: bytes, crc32c: int | None) -> None:
        if offset != self.committed_size:
            raise UploadOffsetMismatch(
                f"the chunk begins at {offset}, the upload stands at {self.committed_size}",
                committed_size=self.committed_size,
            )
        if offset + len(data) > self.record.size_bytes:
            raise _invalid(
                "chunk.data",
                f"ends at {offset + len(data)}, the upload at {self.record.size_bytes}",
            )
        if crc32c is not None and google_crc32c.value(data) != crc32c:
            raise UploadDigestMismatch(
                "the chunk does not have its crc32c", committed_size=self.committed_size
            )

    async def _check_beginning(self) -> str:
        """The media type that the first bytes show. What we do not take is forgotten at once."""
        record, limits = self.record, self._uploads.limits
        found = media_type(await _on_disk(_head, self.path))
        fault: RuntimeFault | None = None
        if problem := objection(record.mime_type, found):
            fault = MediaTypeUnsupported(problem, media=record.digest)
        is_image = found is not None and found.startswith("image/")
        limit = limits.max_image_bytes if is_image else limits.max_video_bytes
        if fault is None and record.size_bytes > limit:
            fault = _invalid(
                "spec.size_bytes", f"is {record.size_bytes}, at most {limit} for {found}"
            )
        if fault is not None:
            await self._uploads.records.drop_upload(record.owner, record.upload_id)
            await _on_disk(_remove, self.path)
            raise fault
        return found or ""


def _invalid(where: str, description: str) -> RequestInvalid:
    return RequestInvalid((Violation(field=where, rule="OUT_OF_RANGE", description=description),))


# ---- files


async def _on_disk(work: Callable[..., T], *arguments: object) -> T:
    """Runs it in a thread, to its end even if the caller is cancelled meanwhile."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        if not running.cancelled():
            running.exception()
        raise
    except OSError as error:
        raise StoreUnavailable("the media store refused", errno=error.errno) from error


def _open(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _length(path: Path) -> int:
    """How many bytes are there. After a kill some may not be on disk yet; now they are."""
    try:
        descriptor = _open(path, os.O_RDWR)
    except FileNotFoundError:
        return 0
    with _closing(descriptor):
        os.fdatasync(descriptor)
        return os.fstat(descriptor).st_size


def _append(path: Path, offset: int, data: bytes) -> None:
    """All of it or, as far as the system lets us, nothing."""
    descriptor = _open(path, os.O_WRONLY | os.O_CREAT)
    with _closing(descriptor):
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(descriptor, memoryview(data)[done:], offset + done)
            os.fdatasync(descriptor)
        except OSError:
            os.ftruncate(descriptor, offset)
            raise
    if offset == 0:
        _sync_folder(path.parent)


def _head(path: Path) -> bytes:
    descriptor = _open(path, os.O_RDONLY)
    with _closing(descriptor):
        return os.pread(descriptor, SNIFFED_BYTES, 0)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    descriptor = _open(path, os.O_RDONLY)
    with _closing(descriptor):
        while piece := os.read(descriptor, _READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    with _closing(descriptor):
        os.fsync(descriptor)


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)
