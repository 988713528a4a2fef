"""Operations in the store: what lists need is small, what the work needs is there until it ends."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

from msgspec.structs import replace

from ixc_runtime.jobs import JobSpec, QuantizeWork, SampleSpec
from ixc_service.operations.records import (
    Accepted,
    Event,
    JobOrder,
    Kind,
    OperationRecord,
    State,
)
from ixc_service.store.database import Database
from ixc_service.store.operations import OperationStore

OWNER = "somebody"
LONG = "A sample that is long. " * 1000


def record() -> OperationRecord:
    spec = JobSpec(
        job="j",
        owner="o",
        root="/models",
        source="tiny",
        output="tiny-int4",
        work=QuantizeWork(samples=(SampleSpec(text=LONG),)),
    )
    return OperationRecord(
        owner=OWNER,
        operation_id="01",
        kind=Kind.QUANTIZE,
        state=State.QUEUED,
        order=JobOrder(spec=spec, required_bytes=1),
        request_id="",
        create_time=1.0,
    )


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[OperationStore]:
    database = await Database.open(folder / "sessions.sqlite3")
    try:
        yield OperationStore(database)
    finally:
        await database.close()


def sizes(folder: Path) -> tuple[int, int]:
    """Bytes of the record, and rows of samples."""
    with contextlib.closing(sqlite3.connect(folder / "sessions.sqlite3")) as connection:
        (body,) = connection.execute("SELECT length(body) FROM operations").fetchone()
        (orders,) = connection.execute("SELECT count(*) FROM operation_orders").fetchone()
    return body, orders


async def test_samples_are_kept_for_the_work_alone(tmp_path: Path) -> None:
    """Over a restart too; what changes with every step lacks them, and the end removes them."""
    whole = record()
    first = Event(1, Accepted(record=whole.without_samples(), queue_position=0))
    async with opened(tmp_path) as store:
        await store.add(whole, None, first)
        running = replace(whole, state=State.RUNNING)
        await store.update(running)
        assert await store.get(OWNER, "01") == running.without_samples()
    body, orders = sizes(tmp_path)
    assert body < len(LONG) / 10
    assert orders == 1
    async with opened(tmp_path) as store:
        assert await store.not_done() == [running]
        await store.update(replace(running, state=State.FAILED, end_time=2.0))
        assert await store.not_done() == []
    assert sizes(tmp_path)[1] == 0


async def test_an_operation_that_an_older_build_wrote(tmp_path: Path) -> None:
    """With its samples in its record: they are not lost when it goes on."""
    import msgspec

    whole = record()
    async with opened(tmp_path) as store:
        await store.add(whole, None, Event(1, Accepted(record=whole, queue_position=0)))
    with contextlib.closing(sqlite3.connect(tmp_path / "sessions.sqlite3")) as connection:
        connection.execute("UPDATE operations SET body = ?", (msgspec.msgpack.encode(whole),))
        connection.execute("DELETE FROM operation_orders")
        connection.commit()
    async with opened(tmp_path) as store:
        (found,) = await store.not_done()
        running = replace(found, state=State.RUNNING)
        await store.update(running)
        assert await store.not_done() == [running]
        assert running.order == whole.order
