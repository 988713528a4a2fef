"""One SQLite connection on a thread of its own, so that an fsync never stops the event loop.

Work is a function of the connection; it runs inside one transaction, which is on disk when
`write` returns (WAL, synchronous=FULL) and undone when it raises. Knows no tables.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ixc_service.errors import StoreUnavailable
from ixc_service.store.schema import migrate

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]


class Database:
    def __init__(self, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._connection = connection
        self._thread = thread

    @classmethod
    async def open(cls, path: Path) -> "Database":
        thread = ThreadPoolExecutor(1, thread_name_prefix="ixc-store")
        loop = asyncio.get_running_loop()
        try:
            connection = await loop.run_in_executor(thread, _connect, path)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(connection, thread)

    async def read(self, work: Work[T]) -> T:
        return await self._run("BEGIN", work)

    async def write(self, work: Work[T]) -> T:
        return await self._run("BEGIN IMMEDIATE", work)

    async def _run(self, begin: str, work: Work[T]) -> T:
        """A caller that is cancelled meanwhile leaves the transaction to end by itself."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._transact, begin, work)

    def _transact(self, begin: str, work: Work[T]) -> T:
        try:
            self._connection.execute(begin)
            try:
                result = work(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            # The error's own text may name files; its symbolic code does not.
            code = getattr(error, "sqlite_errorname", type(error).__name__)
            raise StoreUnavailable("the session store refused", code=code) from error
        return result

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown(wait=False)


def _connect(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        path.chmod(0o600)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA busy_timeout=5000")
        migrate(connection)
    except (sqlite3.Error, OSError) as error:
        code = getattr(error, "sqlite_errorname", type(error).__name__)
        raise StoreUnavailable(f"cannot open the session store: {code}", code=code) from error
    return connection
