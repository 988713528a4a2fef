# ruff: noqa: S608 - the only text put into statements is our own: column names and conditions
"""Who has uploaded what, what is known of it, and which uploads are under way.

An object stays until its time is over and no live session of its owner refers to it. Quotas hold
for one owner's objects and unfinished uploads together: an upload takes its room when it begins.
Knows rows, not files.
"""

import dataclasses
import math
import sqlite3
from collections.abc import Collection
from typing import Any

import msgspec

from ixc_runtime import ImageInfo, VideoInfo
from ixc_service.errors import (
    MediaInUse,
    MediaNotFound,
    MediaQuota,
    UploadIdReused,
    UploadNotFound,
)
from ixc_service.identifiers import media_name, session_name
from ixc_service.store.database import Database
from ixc_service.store.records import MediaFailure, MediaRecord, MediaState, UploadRecord

_MEDIA = tuple(item.name for item in dataclasses.fields(MediaRecord))
_UPLOAD = tuple(item.name for item in dataclasses.fields(UploadRecord))
_ONE_MEDIA = "WHERE owner = ? AND digest = ?"
_ONE_UPLOAD = "WHERE owner = ? AND upload_id = ?"
# Live sessions of the same owner that refer to a row of `media`; takes the time.
_REFERRING = (
    "SELECT session_id FROM turn_media JOIN sessions USING (owner, session_id) "
    "WHERE turn_media.owner = media.owner AND turn_media.digest = media.digest "
    "AND sessions.last_used_time + sessions.ttl_seconds > ?"
)
_IS_LIVE = f"(media.expire_time > ? OR EXISTS ({_REFERRING}))"


class MediaRecords:
    def __init__(self, database: Database, *, max_media: int, max_media_bytes: int) -> None:
        self._database = database
        self._max_media = max_media
        self._max_media_bytes = max_media_bytes

    # ---- uploads

    async def begin_upload(self, upload: UploadRecord, now: float) -> UploadRecord:
        """The upload as it is known, its time begun anew; or this new one, if there is room."""

        def work(connection: sqlite3.Connection) -> UploadRecord:
            known = _find_upload(connection, upload.owner, upload.upload_id, now)
            if known is None or known.is_finished:  # finished, but the object is of no use any more
                self._admit(connection, upload, now)
                known = upload
            elif _wish(known) != _wish(upload):
                raise UploadIdReused(
                    "this upload_id came before with another spec", upload=upload.upload_id
                )
            known = dataclasses.replace(known, expire_time=upload.expire_time)
            _put(connection, "uploads", _UPLOAD, dataclasses.astuple(known))
            return known

        return await self._database.write(work)

    async def get_upload(self, owner: str, upload_id: str, now: float) -> UploadRecord:
        def work(connection: sqlite3.Connection) -> UploadRecord:
            upload = _find_upload(connection, owner, upload_id, now)
            if upload is None:
                raise UploadNotFound(upload_id)
            return upload

        return await self._database.read(work)

    async def prolong_upload(self, owner: str, upload_id: str, expire_time: float) -> None:
        await self._database.write(
            lambda connection: connection.execute(
                f"UPDATE uploads SET expire_time = ? {_ONE_UPLOAD}",
                (expire_time, owner, upload_id),
            )
        )

    async def drop_upload(self, owner: str, upload_id: str) -> None:
        await self._database.write(
            lambda connection: connection.execute(
                f"DELETE FROM uploads {_ONE_UPLOAD}", (owner, upload_id)
            )
        )

    async def finish_upload(self, upload: UploadRecord, mime_type: str, now: float) -> MediaRecord:
        """The object of an upload whose bytes are all in the media store."""

        def work(connection: sqlite3.Connection) -> MediaRecord:
            record = MediaRecord(
                owner=upload.owner,
                digest=upload.digest,
                mime_type=mime_type,
                size_bytes=upload.size_bytes,
                state=MediaState.PROCESSING,
                facts=None,
                ttl_seconds=upload.ttl_seconds,
                create_time=now,
                expire_time=now + upload.ttl_seconds,
            )
            earlier = _find(connection, upload.owner, upload.digest)
            if earlier is not None and earlier.state is not MediaState.FAILED:
                record = _prolonged(earlier, upload.ttl_seconds, now)
            _put(connection, "media", _MEDIA, _values(record))
            connection.execute(
                f"UPDATE uploads SET is_finished = 1 {_ONE_UPLOAD}",
                (upload.owner, upload.upload_id),
            )
            return record

        return await self._database.write(work)

    # ---- objects

    async def claim(
        self, owner: str, digest: str, ttl_seconds: float, now: float
    ) -> MediaRecord | None:
        """An object that need not be uploaded again, its time begun anew; None if it must be."""

        def work(connection: sqlite3.Connection) -> MediaRecord | None:
            record = _find_live(connection, owner, digest, now)
            if record is None or record.state is MediaState.FAILED:
                return None
            record = _prolonged(record, ttl_seconds, now)
            _put(connection, "media", _MEDIA, _values(record))
            return record

        return await self._database.write(work)

    async def get(self, owner: str, digest: str, now: float) -> MediaRecord:
        def work(connection: sqlite3.Connection) -> MediaRecord:
            record = _find_live(connection, owner, digest, now)
            if record is None:
                raise MediaNotFound(media_name(digest))
            return record

        return await self._database.read(work)

    async def page(
        self,
        owner: str,
        before: tuple[float, str] | None,
        count: int,
        now: float,
        *,
        states: Collection[MediaState] = (),
    ) -> list[MediaRecord]:
        """Live objects, newest first, from beyond `before` (create_time, digest)."""
        wanted = [str(state) for state in states or tuple(MediaState)]

        def work(connection: sqlite3.Connection) -> list[MediaRecord]:
            found = connection.execute(
                f"{_select(_MEDIA, 'media')} WHERE owner = ? AND (create_time, digest) < (?, ?) "
                f"AND {_IS_LIVE} AND state IN ({', '.join('?' * len(wanted))}) "
                "ORDER BY create_time DESC, digest DESC LIMIT ?",
                (owner, *(before or (math.inf, "")), now, now, *wanted, count),
            )
            return [_record(row) for row in found]

        return await self._database.read(work)

    async def settle(
        self, owner: str, digest: str, facts: ImageInfo | VideoInfo | MediaFailure
    ) -> MediaRecord | None:
        """Ends PROCESSING with what was found; None if the object is gone by now."""
        failed = isinstance(facts, MediaFailure)
        state = MediaState.FAILED if failed else MediaState.ACTIVE

        def work(connection: sqlite3.Connection) -> MediaRecord | None:
            connection.execute(
                f"UPDATE media SET state = ?, facts = ? {_ONE_MEDIA}",
                (state, msgspec.msgpack.encode(facts), owner, digest),
            )
            return _find(connection, owner, digest)

        return await self._database.write(work)

    async def delete(self, owner: str, digest: str, now: float, *, allow_missing: bool) -> None:
        """Removes an object, and what is remembered of its uploads."""

        def work(connection: sqlite3.Connection) -> None:
            if _find_live(connection, owner, digest, now) is None:
                if allow_missing:
                    return
                raise MediaNotFound(media_name(digest))
            session = connection.execute(
                f"SELECT ({_REFERRING} LIMIT 1) FROM media {_ONE_MEDIA}",
                (now, owner, digest),
            ).fetchone()[0]
            if session is not None:
                name = session_name(session)
                raise MediaInUse(f"{name} refers to it", media=media_name(digest), session=name)
            connection.execute(f"DELETE FROM media {_ONE_MEDIA}", (owner, digest))
            connection.execute(f"DELETE FROM uploads {_ONE_MEDIA} AND is_finished", (owner, digest))

        return await self._database.write(work)

    # ---- what is old

    async def unsettled(self) -> list[MediaRecord]:
        """Objects that nobody has looked at yet."""

        def work(connection: sqlite3.Connection) -> list[MediaRecord]:
            found = connection.execute(
                f"{_select(_MEDIA, 'media')} WHERE state = ?", (str(MediaState.PROCESSING),)
            )
            return [_record(row) for row in found]

        return await self._database.read(work)

    async def expire(self, now: float) -> int:
        """Removes objects whose time is over and that no live session refers to."""

        def work(connection: sqlite3.Connection) -> int:
            return connection.execute(
                f"DELETE FROM media WHERE NOT {_IS_LIVE}", (now, now)
            ).rowcount

        return await self._database.write(work)

    async def expire_uploads(self, now: float, under_way: Collection[tuple[str, str]]) -> set[str]:
        """Forgets old uploads but those under way; the staging files that are still needed."""

        def work(connection: sqlite3.Connection) -> set[str]:
            found = connection.execute(f"{_select(_UPLOAD, 'uploads')}").fetchall()
            uploads = [_upload(row) for row in found]
            stale = [
                (upload.owner, upload.upload_id)
                for upload in uploads
                if upload.expire_time <= now and (upload.owner, upload.upload_id) not in under_way
            ]
            connection.executemany(f"DELETE FROM uploads {_ONE_UPLOAD}", stale)
            gone = set(stale)
            return {
                upload.staging
                for upload in uploads
                if not upload.is_finished and (upload.owner, upload.upload_id) not in gone
            }

        return await self._database.write(work)

    # ---- rules

    def _admit(self, connection: sqlite3.Connection, upload: UploadRecord, now: float) -> None:
        """Room for one more; what is no longer live takes none."""
        count, size = connection.execute(
            "SELECT count(*), coalesce(sum(CASE state WHEN 'failed' THEN 0 ELSE size_bytes END), 0)"
            f" FROM media WHERE owner = ? AND {_IS_LIVE}",
            (upload.owner, now, now),
        ).fetchone()
        pending, pending_size = connection.execute(
            "SELECT count(*), coalesce(sum(size_bytes), 0) FROM uploads "
            "WHERE owner = ? AND NOT is_finished AND expire_time > ?",
            (upload.owner, now),
        ).fetchone()
        for quota, used, more, limit in (
            ("max_media", count + pending, 1, self._max_media),
            ("max_media_bytes", size + pending_size, upload.size_bytes, self._max_media_bytes),
        ):
            if used + more > limit:
                raise MediaQuota(
                    f"{used} of {quota} {limit} are held, {more} more do not fit",
                    quota=quota,
                    used=used,
                    limit=limit,
                )


def _wish(upload: UploadRecord) -> tuple[object, ...]:
    """What two messages about one upload must agree on."""
    return (upload.digest, upload.mime_type, upload.size_bytes, upload.ttl_seconds)


def _prolonged(record: MediaRecord, ttl_seconds: float, now: float) -> MediaRecord:
    if now + ttl_seconds <= record.expire_time:
        return record
    return dataclasses.replace(record, ttl_seconds=ttl_seconds, expire_time=now + ttl_seconds)


# ---- rows


def _select(columns: tuple[str, ...], table: str) -> str:
    return f"SELECT {', '.join(columns)} FROM {table}"


def _put(
    connection: sqlite3.Connection, table: str, columns: tuple[str, ...], values: tuple[Any, ...]
) -> None:
    places = ", ".join("?" * len(columns))
    connection.execute(
        f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({places})", values
    )


def _find(connection: sqlite3.Connection, owner: str, digest: str) -> MediaRecord | None:
    row = connection.execute(f"{_select(_MEDIA, 'media')} {_ONE_MEDIA}", (owner, digest)).fetchone()
    return None if row is None else _record(row)


def _find_live(
    connection: sqlite3.Connection, owner: str, digest: str, now: float
) -> MediaRecord | None:
    row = connection.execute(
        f"{_select(_MEDIA, 'media')} {_ONE_MEDIA} AND {_IS_LIVE}", (owner, digest, now, now)
    ).fetchone()
    return None if row is None else _record(row)


def _record(row: tuple[Any, ...]) -> MediaRecord:
    values = dict(zip(_MEDIA, row, strict=True))
    state, packed = MediaState(values.pop("state")), values.pop("facts")
    kind: type[ImageInfo | VideoInfo | MediaFailure]
    if state is MediaState.FAILED:
        kind = MediaFailure
    else:
        kind = VideoInfo if values["mime_type"].startswith("video/") else ImageInfo
    facts = None if packed is None else msgspec.msgpack.decode(packed, type=kind)
    return MediaRecord(state=state, facts=facts, **values)


def _values(record: MediaRecord) -> tuple[Any, ...]:
    values = {name: getattr(record, name) for name in _MEDIA}
    values["state"] = str(record.state)
    values["facts"] = None if record.facts is None else msgspec.msgpack.encode(record.facts)
    return tuple(values.values())


def _find_upload(
    connection: sqlite3.Connection, owner: str, upload_id: str, now: float
) -> UploadRecord | None:
    row = connection.execute(
        f"{_select(_UPLOAD, 'uploads')} {_ONE_UPLOAD} AND expire_time > ?", (owner, upload_id, now)
    ).fetchone()
    return None if row is None else _upload(row)


def _upload(row: tuple[Any, ...]) -> UploadRecord:
    values = dict(zip(_UPLOAD, row, strict=True))
    values["is_finished"] = bool(values["is_finished"])
    return UploadRecord(**values)
