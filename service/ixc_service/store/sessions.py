# ruff: noqa: S608 - the only text put into statements is our own: column names and conditions
"""Sessions, their turns, and the request ids that made them, each change one durable transaction.

A turn is appended by compare-and-set on (incarnation, turn count): whoever saw another state than
the stored one changes nothing. A request id is written together with what it made, so that after
a crash either both exist or neither. Knows nothing of running generations.
"""

import dataclasses
import math
import sqlite3
from collections.abc import Callable

from ixc_service.errors import SessionExpired, SessionIdTaken, SessionQuota, TurnConflict
from ixc_service.identifiers import session_name
from ixc_service.moments import rfc3339
from ixc_service.store import rows
from ixc_service.store.database import Database
from ixc_service.store.records import RequestKey, SessionRecord, TurnRecord

_EXPIRY = "last_used_time + ttl_seconds"
_DAY = 86_400.0
_ONE = "WHERE owner = ? AND session_id = ?"


class SessionStore:
    """`in_use` holds (owner, session_id) of sessions with a turn under way: they do not expire.

    `num_held` counts live sessions, as of the latest change or sweep.
    """

    def __init__(self, database: Database, *, max_sessions: int) -> None:
        self._database = database
        self._max_sessions = max_sessions
        self.in_use: set[tuple[str, str]] = set()
        self.num_held = 0

    # ---- sessions

    async def create(self, session: SessionRecord, key: RequestKey | None) -> SessionRecord:
        """Stores a new session; a repeated request gets the one it made the first time."""

        def work(connection: sqlite3.Connection) -> SessionRecord:
            if made := rows.made_by(connection, key):
                return rows.get(connection, session.owner, made[0])
            self._admit(connection, session)
            rows.insert(connection, session)
            rows.remember(connection, key, session.session_id, None, session.create_time)
            return session

        return await self._database.write(work)

    async def fork(
        self,
        owner: str,
        source_id: str,
        *,
        at_turn: int | None,
        key: RequestKey | None,
        now: float,
        make: Callable[[SessionRecord], SessionRecord],
    ) -> SessionRecord:
        """Copies a session's first `at_turn` turns (None: all) into what `make` makes of it."""

        def work(connection: sqlite3.Connection) -> SessionRecord:
            if made := rows.made_by(connection, key):
                return rows.get(connection, owner, made[0])
            source = self._live(connection, owner, source_id, now)
            count = rows.turn_bound(source, at_turn)
            fork = dataclasses.replace(
                make(source),
                turn_count=count,
                forked_at_turn=count,
                context_tokens=rows.context_tokens(connection, owner, source_id, count),
            )
            self._admit(connection, fork)
            rows.insert(connection, fork)
            rows.copy_turns(connection, owner, source_id, fork.session_id, count)
            rows.remember(connection, key, fork.session_id, None, now)
            return fork

        return await self._database.write(work)

    async def get(self, owner: str, session_id: str, now: float) -> SessionRecord:
        return await self._database.read(
            lambda connection: self._live(connection, owner, session_id, now)
        )

    async def page(
        self, owner: str, before: tuple[float, str] | None, count: int, now: float
    ) -> list[SessionRecord]:
        """Live sessions, newest first, from beyond `before` (create_time, id)."""

        def work(connection: sqlite3.Connection) -> list[SessionRecord]:
            found = connection.execute(
                f"{rows.SELECT} WHERE owner = ? AND (create_time, session_id) < (?, ?) "
                f"AND {_EXPIRY} > ? ORDER BY create_time DESC, session_id DESC LIMIT ?",
                (owner, *(before or (math.inf, "")), now, count),
            )
            return [rows.record(row) for row in found]

        return await self._database.read(work)

    async def update(
        self,
        owner: str,
        session_id: str,
        etag: str,
        now: float,
        change: Callable[[SessionRecord], SessionRecord],
    ) -> SessionRecord:
        def work(connection: sqlite3.Connection) -> SessionRecord:
            session = self._live(connection, owner, session_id, now)
            rows.check_etag(session, etag)
            return rows.replace(connection, change(session))

        return await self._database.write(work)

    async def rewind(
        self, owner: str, session_id: str, turn_count: int, etag: str, now: float
    ) -> SessionRecord:
        """Forgets the turns beyond `turn_count`, and the request ids that made them."""

        def work(connection: sqlite3.Connection) -> SessionRecord:
            session = self._live(connection, owner, session_id, now)
            rows.check_etag(session, etag)
            count = rows.turn_bound(session, turn_count)
            rows.drop_turns(connection, owner, session_id, count)
            return rows.replace(
                connection,
                dataclasses.replace(
                    session,
                    turn_count=count,
                    context_tokens=rows.context_tokens(connection, owner, session_id, count),
                    last_used_time=now,
                ),
            )

        return await self._database.write(work)

    async def delete(
        self, owner: str, session_id: str, etag: str, now: float, *, allow_missing: bool
    ) -> None:
        """Removes a session and all it holds."""

        def work(connection: sqlite3.Connection) -> None:
            if allow_missing and rows.find(connection, owner, session_id) is None:
                return
            rows.check_etag(self._live(connection, owner, session_id, now), etag)
            connection.execute(f"DELETE FROM sessions {_ONE}", (owner, session_id))
            self.num_held = _num_live(connection, now)

        await self._database.write(work)

    async def expire(self, now: float) -> int:
        """Removes sessions a day after they expired: until then they can be told from unknown."""

        def work(connection: sqlite3.Connection) -> int:
            found = connection.execute(
                f"SELECT owner, session_id FROM sessions WHERE {_EXPIRY} <= ?", (now - _DAY,)
            )
            stale = [row for row in found.fetchall() if row not in self.in_use]
            connection.executemany(f"DELETE FROM sessions {_ONE}", stale)
            self.num_held = _num_live(connection, now)
            return len(stale)

        return await self._database.write(work)

    # ---- turns

    async def turns(
        self, owner: str, session_id: str, now: float, *, after: int = 0, count: int | None = None
    ) -> tuple[SessionRecord, list[TurnRecord]]:
        """A session and its turns beyond index `after`, as of one moment."""

        def work(connection: sqlite3.Connection) -> tuple[SessionRecord, list[TurnRecord]]:
            session = self._live(connection, owner, session_id, now)
            return session, rows.turns(connection, owner, session_id, after, count)

        return await self._database.read(work)

    async def commit_turn(
        self, session: SessionRecord, turn: TurnRecord, key: RequestKey | None, now: float
    ) -> SessionRecord:
        """Appends `turn` to `session` if that is still as the turn's prompt saw it."""

        def work(connection: sqlite3.Connection) -> SessionRecord:
            current = rows.get(connection, session.owner, session.session_id)
            changed = current.incarnation != session.incarnation
            if changed or current.turn_count + 1 != turn.index:
                raise TurnConflict(
                    f"the session has {current.turn_count} turns, this was to be {turn.index}",
                    session=session_name(session.session_id),
                    expected=turn.index,
                    actual=current.turn_count + 1,
                )
            tokens = turn.usage.prompt_tokens + turn.usage.output_tokens
            rows.insert_turn(connection, session.owner, session.session_id, turn, tokens)
            rows.remember(connection, key, session.session_id, turn.index, now)
            return rows.replace(
                connection,
                dataclasses.replace(
                    current, turn_count=turn.index, context_tokens=tokens, last_used_time=now
                ),
            )

        return await self._database.write(work)

    async def turn_made_by(self, key: RequestKey) -> tuple[SessionRecord, TurnRecord] | None:
        """The committed turn of an earlier request with this key, if there is one."""

        def work(connection: sqlite3.Connection) -> tuple[SessionRecord, TurnRecord] | None:
            made = rows.made_by(connection, key)
            if made is None:
                return None
            session_id, index = made
            assert index is not None, "this method's requests make turns"
            session = rows.get(connection, key.owner, session_id)
            return session, rows.turns(connection, key.owner, session_id, index - 1, 1)[0]

        return await self._database.read(work)

    async def media_in_use(self) -> frozenset[str]:
        """Digests whose files are needed, by a turn or under a name of their own."""

        def work(connection: sqlite3.Connection) -> frozenset[str]:
            found = connection.execute(
                "SELECT digest FROM turn_media "
                "UNION SELECT digest FROM media WHERE state <> 'failed'"
            )
            return frozenset(row[0] for row in found)

        return await self._database.read(work)

    # ---- rules

    def _live(
        self, connection: sqlite3.Connection, owner: str, session_id: str, now: float
    ) -> SessionRecord:
        session = rows.get(connection, owner, session_id)
        if session.expire_time <= now and (owner, session_id) not in self.in_use:
            raise SessionExpired(session_name(session_id), expire_time=rfc3339(session.expire_time))
        return session

    def _admit(self, connection: sqlite3.Connection, session: SessionRecord) -> None:
        """Room for one more, under an id nobody holds; an expired holder gives way."""
        now, place = session.create_time, (session.owner, session.session_id)
        if place not in self.in_use:
            connection.execute(f"DELETE FROM sessions {_ONE} AND {_EXPIRY} <= ?", (*place, now))
        if rows.find(connection, *place):
            name = session_name(session.session_id)
            raise SessionIdTaken(f"{name} exists", session=name)
        held = _num_live(connection, now)
        if held >= self._max_sessions:
            raise SessionQuota(
                f"{held} sessions exist, the limit is {self._max_sessions}",
                limit=self._max_sessions,
            )
        self.num_held = held + 1


def _num_live(connection: sqlite3.Connection, now: float) -> int:
    count: int = connection.execute(
        f"SELECT count(*) FROM sessions WHERE {_EXPIRY} > ?", (now,)
    ).fetchone()[0]
    return count
