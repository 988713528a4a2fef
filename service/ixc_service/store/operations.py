# ruff: noqa: S608 - the only text put into statements is our own: conditions
"""Operations and their events in the store. Committed means fsynced; see `database`.

Rows hold records whole, in msgpack, beside the columns that lists and starts search by.
"""

import sqlite3
from collections.abc import Collection, Sequence

import msgspec

from ixc_service.errors import OperationNotFound, RequestIdReused
from ixc_service.identifiers import operation_name
from ixc_service.operations.records import DONE, Event, Kind, OperationRecord, State, Update
from ixc_service.store.database import Database
from ixc_service.store.records import RequestKey

_encode = msgspec.msgpack.Encoder().encode
_decode_record = msgspec.msgpack.Decoder(OperationRecord).decode
_decode_update: msgspec.msgpack.Decoder[Update] = msgspec.msgpack.Decoder(Update)
_ONE = "WHERE owner = ? AND operation_id = ?"
_done = tuple(sorted(DONE))


class OperationStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def identity(self) -> str:
        """What tells this store from every other: it answers for jobs that were left behind."""
        return await self._database.read(
            lambda connection: str(
                connection.execute("SELECT id FROM store_identity").fetchone()[0]
            )
        )

    async def find_request(self, key: RequestKey) -> str | None:
        """The operation of an earlier request with this key; raises if that was another one."""

        def work(connection: sqlite3.Connection) -> str | None:
            row = connection.execute(
                "SELECT digest, operation_id FROM operation_requests "
                "WHERE owner = ? AND method = ? AND request_id = ?",
                (key.owner, key.method, key.request_id),
            ).fetchone()
            if row is None:
                return None
            if row[0] != key.digest:
                raise RequestIdReused(
                    "this request_id came before with another request", request_id=key.request_id
                )
            return str(row[1])

        return await self._database.read(work)

    async def add(self, record: OperationRecord, key: RequestKey | None, first: Event) -> None:
        def work(connection: sqlite3.Connection) -> None:
            _put(connection, record)
            _add_events(connection, record, [first])
            if key is not None:
                connection.execute(
                    "INSERT INTO operation_requests VALUES (?, ?, ?, ?, ?)",
                    (key.owner, key.method, key.request_id, key.digest, record.operation_id),
                )

        await self._database.write(work)

    async def update(
        self,
        record: OperationRecord,
        events: Sequence[Event] = (),
        superseded: Collection[int] = (),
    ) -> None:
        """The record as it is now, new events, and the numbers of those that they replace."""

        def work(connection: sqlite3.Connection) -> None:
            _put(connection, record)
            connection.executemany(
                f"DELETE FROM operation_events {_ONE} AND sequence = ?",
                [(record.owner, record.operation_id, sequence) for sequence in superseded],
            )
            _add_events(connection, record, events)

        await self._database.write(work)

    async def get(self, owner: str, operation_id: str) -> OperationRecord:
        def work(connection: sqlite3.Connection) -> OperationRecord:
            row = connection.execute(
                f"SELECT body FROM operations {_ONE}", (owner, operation_id)
            ).fetchone()
            if row is None:
                raise OperationNotFound(operation_name(operation_id))
            return _decode_record(row[0])

        return await self._database.read(work)

    async def events(self, owner: str, operation_id: str) -> list[Event]:
        def work(connection: sqlite3.Connection) -> list[Event]:
            rows = connection.execute(
                f"SELECT sequence, body FROM operation_events {_ONE} ORDER BY sequence",
                (owner, operation_id),
            )
            return [Event(sequence, _decode_update.decode(body)) for sequence, body in rows]

        return await self._database.read(work)

    async def page(
        self,
        owner: str,
        before: str | None,
        size: int,
        *,
        kinds: Collection[Kind] = (),
        states: Collection[State] = (),
    ) -> list[OperationRecord]:
        """Newest first, for ids are ordered by time."""
        condition, values = "owner = ?", [owner]
        if before is not None:
            condition += " AND operation_id < ?"
            values.append(before)
        for column, wanted in (("kind", sorted(kinds)), ("state", sorted(states))):
            if wanted:
                condition += f" AND {column} IN ({', '.join('?' * len(wanted))})"
                values += wanted

        def work(connection: sqlite3.Connection) -> list[OperationRecord]:
            rows = connection.execute(
                f"SELECT body FROM operations WHERE {condition} ORDER BY operation_id DESC LIMIT ?",
                (*values, size),
            )
            return [_decode_record(body) for (body,) in rows]

        return await self._database.read(work)

    async def not_done(self) -> list[OperationRecord]:
        """Of all owners, oldest first."""

        def work(connection: sqlite3.Connection) -> list[OperationRecord]:
            rows = connection.execute(
                f"SELECT body FROM operations WHERE state NOT IN ({', '.join('?' * len(_done))}) "
                "ORDER BY operation_id",
                _done,
            )
            return [_decode_record(body) for (body,) in rows]

        return await self._database.read(work)

    async def delete(self, owner: str, operation_id: str) -> None:
        """Its events and its request go with it."""
        await self._database.write(
            lambda connection: connection.execute(
                f"DELETE FROM operations {_ONE}", (owner, operation_id)
            )
        )

    async def expire(self, ended_before: float) -> int:
        def work(connection: sqlite3.Connection) -> int:
            return connection.execute(
                "DELETE FROM operations WHERE end_time IS NOT NULL AND end_time <= ?",
                (ended_before,),
            ).rowcount

        return await self._database.write(work)


def _put(connection: sqlite3.Connection, record: OperationRecord) -> None:
    connection.execute(
        "INSERT INTO operations (owner, operation_id, kind, state, end_time, body) "
        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (owner, operation_id) DO UPDATE SET "
        "state = excluded.state, end_time = excluded.end_time, body = excluded.body",
        (
            record.owner,
            record.operation_id,
            record.kind,
            record.state,
            record.end_time,
            _encode(record),
        ),
    )


def _add_events(
    connection: sqlite3.Connection, record: OperationRecord, events: Sequence[Event]
) -> None:
    connection.executemany(
        "INSERT INTO operation_events VALUES (?, ?, ?, ?)",
        [
            (record.owner, record.operation_id, event.sequence, _encode(event.update))
            for event in events
        ],
    )
