# ruff: noqa: S608 - the only text put into statements is our own: conditions
"""Operations and their events in the store. Committed means fsynced; see `database`.

Rows hold records in msgpack, beside the columns that lists and starts search by; the samples of an
order that is not done lie apart.
"""

import sqlite3
from collections.abc import Collection, Sequence

import msgspec
from msgspec.structs import replace

from ixc_service.errors import OperationNotFound
from ixc_service.identifiers import operation_name
from ixc_service.operations.records import (
    DONE,
    Event,
    Kind,
    OperationRecord,
    Order,
    State,
    Update,
)
from ixc_service.store import rows
from ixc_service.store.database import Database
from ixc_service.store.records import RequestKey

_encode = msgspec.msgpack.Encoder().encode
_decode_record = msgspec.msgpack.Decoder(OperationRecord).decode
_decode_order: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
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
            row = rows.find_request(connection, "operation_requests", "operation_id", key)
            return None if row is None else str(row[0])

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
            found = connection.execute(
                f"SELECT sequence, body FROM operation_events {_ONE} ORDER BY sequence",
                (owner, operation_id),
            )
            return [Event(sequence, _decode_update.decode(body)) for sequence, body in found]

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
            found = connection.execute(
                f"SELECT body FROM operations WHERE {condition} ORDER BY operation_id DESC LIMIT ?",
                (*values, size),
            )
            return [_decode_record(body) for (body,) in found]

        return await self._database.read(work)

    async def not_done(self) -> list[OperationRecord]:
        """Of all owners, oldest first, each with its order whole."""

        def work(connection: sqlite3.Connection) -> list[OperationRecord]:
            found = connection.execute(
                "SELECT operations.body, operation_orders.body FROM operations "
                "LEFT JOIN operation_orders USING (owner, operation_id) "
                f"WHERE state NOT IN ({', '.join('?' * len(_done))}) ORDER BY operation_id",
                _done,
            )
            return [_whole(body, order) for body, order in found]

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


def _whole(body: bytes, order: bytes | None) -> OperationRecord:
    record = _decode_record(body)
    return record if order is None else replace(record, order=_decode_order.decode(order))


def _put(connection: sqlite3.Connection, record: OperationRecord) -> None:
    """A record changes with every step of its work; samples do not, and are written once."""
    told = record.without_samples()
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
            _encode(told),
        ),
    )
    place = (record.owner, record.operation_id)
    if record.is_done:
        connection.execute(f"DELETE FROM operation_orders {_ONE}", place)
    elif (
        told is not record
        and not connection.execute(f"SELECT 1 FROM operation_orders {_ONE}", place).fetchone()
    ):
        order = (*place, _encode(record.order))
        connection.execute("INSERT INTO operation_orders VALUES (?, ?, ?)", order)


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
