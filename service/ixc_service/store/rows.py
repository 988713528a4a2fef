# ruff: noqa: S608 - the only text put into statements is our own: column names and conditions
"""Rows of the tables and the records they stand for; each function runs inside a transaction."""

import dataclasses
import sqlite3
from typing import Any

import msgspec

from ixc_runtime import SamplingParams
from ixc_service.errors import EtagMismatch, RequestIdReused, SessionNotFound, TurnNotFound
from ixc_service.identifiers import session_name, turn_name
from ixc_service.store.records import RequestKey, SessionRecord, TurnRecord

_COLUMNS = tuple(item.name for item in dataclasses.fields(SessionRecord))
_PACKED = ("default_sampling", "labels")  # columns that hold msgpack
_ONE = "WHERE owner = ? AND session_id = ?"

SELECT = f"SELECT {', '.join(_COLUMNS)} FROM sessions"
_INSERT = f"INSERT INTO sessions ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_UPDATE = f"UPDATE sessions SET {', '.join(f'{name} = ?' for name in _COLUMNS[2:])} {_ONE}"


# ---- sessions


def record(row: tuple[Any, ...]) -> SessionRecord:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["default_sampling"] = msgspec.msgpack.decode(
        values["default_sampling"], type=SamplingParams
    )
    values["labels"] = msgspec.msgpack.decode(values["labels"], type=dict[str, str])
    return SessionRecord(**values)


def _values(session: SessionRecord) -> tuple[Any, ...]:
    values = {name: getattr(session, name) for name in _COLUMNS}
    for name in _PACKED:
        values[name] = msgspec.msgpack.encode(values[name])
    return tuple(values.values())


def find(connection: sqlite3.Connection, owner: str, session_id: str) -> SessionRecord | None:
    row = connection.execute(f"{SELECT} {_ONE}", (owner, session_id)).fetchone()
    return None if row is None else record(row)


def get(connection: sqlite3.Connection, owner: str, session_id: str) -> SessionRecord:
    session = find(connection, owner, session_id)
    if session is None:
        raise SessionNotFound(session_name(session_id))
    return session


def insert(connection: sqlite3.Connection, session: SessionRecord) -> None:
    connection.execute(_INSERT, _values(session))


def replace(connection: sqlite3.Connection, session: SessionRecord) -> SessionRecord:
    """Writes a changed session under its next revision."""
    changed = dataclasses.replace(session, revision=session.revision + 1)
    values = _values(changed)
    connection.execute(_UPDATE, (*values[2:], *values[:2]))
    return changed


def check_etag(session: SessionRecord, etag: str) -> None:
    """An empty etag asks for nothing."""
    if etag and etag != session.etag:
        raise EtagMismatch(
            "the session has changed since", session=session_name(session.session_id)
        )


# ---- turns


def turns(
    connection: sqlite3.Connection, owner: str, session_id: str, after: int, count: int | None
) -> list[TurnRecord]:
    found = connection.execute(
        f"SELECT body FROM turns {_ONE} AND turn_index > ? ORDER BY turn_index LIMIT ?",
        (owner, session_id, after, -1 if count is None else count),
    )
    return [msgspec.msgpack.decode(row[0], type=TurnRecord) for row in found]


def insert_turn(
    connection: sqlite3.Connection,
    owner: str,
    session_id: str,
    turn: TurnRecord,
    context_tokens: int,
) -> None:
    place = (owner, session_id, turn.index)
    connection.execute(
        "INSERT INTO turns (owner, session_id, turn_index, context_tokens, body) "
        "VALUES (?, ?, ?, ?, ?)",
        (*place, context_tokens, msgspec.msgpack.encode(turn)),
    )
    connection.executemany(
        "INSERT INTO turn_media (digest, owner, session_id, turn_index) VALUES (?, ?, ?, ?)",
        [(digest, *place) for digest in set(turn.media_digests)],
    )


def copy_turns(
    connection: sqlite3.Connection, owner: str, source_id: str, target_id: str, count: int
) -> None:
    for table, columns in (("turns", "context_tokens, body"), ("turn_media", "digest")):
        connection.execute(
            f"INSERT INTO {table} (owner, session_id, turn_index, {columns}) "
            f"SELECT owner, ?, turn_index, {columns} FROM {table} {_ONE} AND turn_index <= ?",
            (target_id, owner, source_id, count),
        )


def drop_turns(connection: sqlite3.Connection, owner: str, session_id: str, count: int) -> None:
    for table in ("turns", "requests"):
        connection.execute(
            f"DELETE FROM {table} {_ONE} AND turn_index > ?", (owner, session_id, count)
        )


def turn_bound(session: SessionRecord, count: int | None) -> int:
    """How many turns are meant; None is all."""
    if count is None:
        return session.turn_count
    if count > session.turn_count:
        raise TurnNotFound(
            turn_name(session.session_id, count),
            session=session_name(session.session_id),
            turn_count=session.turn_count,
        )
    return count


def context_tokens(
    connection: sqlite3.Connection, owner: str, session_id: str, turn_count: int
) -> int:
    """What a history of `turn_count` turns occupies."""
    row = connection.execute(
        f"SELECT context_tokens FROM turns {_ONE} AND turn_index = ?",
        (owner, session_id, turn_count),
    ).fetchone()
    return row[0] if row else 0


# ---- request ids


def made_by(
    connection: sqlite3.Connection, key: RequestKey | None
) -> tuple[str, int | None] | None:
    """The session and turn an equal request made. Raises if another request bore its id."""
    if key is None:
        return None
    row = find_request(connection, "requests", "session_id, turn_index", key)
    return None if row is None else (row[0], row[1])


def find_request(
    connection: sqlite3.Connection, table: str, columns: str, key: RequestKey
) -> tuple[Any, ...] | None:
    """`columns` of an equal request that came before. Raises if another one bore its id."""
    row = connection.execute(
        f"SELECT digest, {columns} FROM {table} WHERE owner = ? AND method = ? AND request_id = ?",
        (key.owner, key.method, key.request_id),
    ).fetchone()
    if row is None:
        return None
    if row[0] != key.digest:
        raise RequestIdReused(
            "this request_id came before with another request", request_id=key.request_id
        )
    return tuple(row[1:])


def remember(
    connection: sqlite3.Connection,
    key: RequestKey | None,
    session_id: str,
    turn_index: int | None,
    now: float,
) -> None:
    if key is not None:
        connection.execute(
            "INSERT INTO requests "
            "(owner, method, request_id, digest, session_id, turn_index, create_time) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (key.owner, key.method, key.request_id, key.digest, session_id, turn_index, now),
        )
