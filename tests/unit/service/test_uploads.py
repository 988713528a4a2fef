"""Uploads: whatever is cut, repeated, sent wrongly or restarted, the right bytes come out."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from ixc_service.errors import (
    MediaQuota,
    RequestInvalid,
    StoreUnavailable,
    UploadConflict,
    UploadDigestMismatch,
    UploadOffsetMismatch,
)
from ixc_service.limits import Limits
from ixc_service.media_store import MediaStore
from ixc_service.moments import SystemClock
from ixc_service.store import Database, MediaRecords, MediaState
from ixc_service.store.schema import VERSION
from ixc_service.uploads import Transfer, Uploads, UploadWish
from tests.fakes.uploading import sha256

DATA = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 3
OWNER = "me"
LIMITS = Limits(max_media=10)


@contextlib.asynccontextmanager
async def opened(folder: Path, limits: Limits = LIMITS) -> AsyncIterator[Uploads]:
    """As after a start of the server."""
    database = await Database.open(folder / "sessions.sqlite3")
    try:
        records = MediaRecords(
            database, max_media=limits.max_media, max_media_bytes=limits.max_media_bytes
        )
        media = MediaStore(folder / "media")
        yield Uploads(folder / ".uploads", records, media, clock=SystemClock(), limits=limits)
    finally:
        await database.close()


def wish(data: bytes = DATA, owner: str = OWNER, upload_id: str = "one") -> UploadWish:
    return UploadWish(
        owner=owner,
        upload_id=upload_id,
        digest=sha256(data),
        mime_type="",
        size_bytes=len(data),
        ttl_seconds=60.0,
    )


async def send(transfer: Transfer, data: bytes, offset: int) -> None:
    await transfer.write(offset, data, google_crc32c.value(data))


class UploadMachine(RuleBasedStateMachine):
    """One upload against a model of it: how many of its bytes are committed."""

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._folder = tempfile.TemporaryDirectory()
        self._server = contextlib.AsyncExitStack()
        self._stream = contextlib.AsyncExitStack()
        self._transfer: Transfer | None = None
        self.committed = 0

    def teardown(self) -> None:
        async def end() -> None:
            await self._stream.aclose()
            await self._server.aclose()

        self._runner.run(end())
        self._runner.close()
        self._folder.cleanup()

    @initialize()
    def start(self) -> None:
        async def work() -> None:
            self._uploads = await self._server.enter_async_context(opened(Path(self._folder.name)))

        self._runner.run(work())

    @rule()
    def the_server_restarts(self) -> None:
        self.teardown_stream()
        self._runner.run(self._server.aclose())
        self.start()

    @rule()
    def a_stream_begins(self) -> None:
        """Also while another one is open, which then is of no use any more."""

        async def work() -> None:
            older, stream = self._transfer, contextlib.AsyncExitStack()
            self._transfer = await stream.enter_async_context(self._uploads.transfer(wish()))
            if older is not None:
                with pytest.raises(UploadConflict):
                    await send(older, DATA[self.committed : self.committed + 1], self.committed)
            await self._stream.aclose()
            self._stream = stream

        self._runner.run(work())
        assert self._transfer is not None
        assert self._transfer.committed_size == self.committed

    @precondition(lambda self: self._transfer)
    @rule()
    def the_stream_breaks(self) -> None:
        self.teardown_stream()

    def teardown_stream(self) -> None:
        self._runner.run(self._stream.aclose())
        self._transfer = None

    @precondition(lambda self: self._transfer and self.committed < len(DATA))
    @rule(size=st.integers(1, 400))
    def the_next_chunk(self, size: int) -> None:
        data = DATA[self.committed : self.committed + size]
        self._runner.run(send(self._transfer, data, self.committed))
        self.committed += len(data)

    @precondition(lambda self: self._transfer)
    @rule(offset=st.integers(0, 2 * len(DATA)), size=st.integers(1, 400))
    def a_chunk_out_of_place(self, offset: int, size: int) -> None:
        """Repeated, skipped ahead, or beyond everything."""
        if offset != self.committed:
            with pytest.raises(UploadOffsetMismatch) as caught:
                self._runner.run(send(self._transfer, DATA[offset : offset + size], offset))
            assert caught.value.metadata["committed_size"] == str(self.committed)

    @precondition(lambda self: self._transfer)
    @rule()
    def a_chunk_beyond_the_end(self) -> None:
        data = DATA[self.committed :] + b"?"
        with pytest.raises(RequestInvalid):
            self._runner.run(send(self._transfer, data, self.committed))

    @precondition(lambda self: self._transfer and self.committed < len(DATA))
    @rule(bit=st.integers(0, 31))
    def a_chunk_with_a_wrong_sum(self, bit: int) -> None:
        data = DATA[self.committed : self.committed + 50]
        with pytest.raises(UploadDigestMismatch) as caught:
            wrong = google_crc32c.value(data) ^ 1 << bit
            self._runner.run(self._transfer.write(self.committed, data, wrong))
        assert caught.value.metadata["committed_size"] == str(self.committed)

    @precondition(lambda self: self._transfer and 12 <= self.committed < len(DATA))
    @rule()
    def the_rest_is_wrong(self) -> None:
        """Every chunk has its sum, but the whole is another one: begin again."""
        rest = bytes(byte ^ 1 for byte in DATA[self.committed :])
        self._runner.run(send(self._transfer, rest, self.committed))
        with pytest.raises(UploadDigestMismatch) as caught:
            self._runner.run(self._transfer.finish())
        assert caught.value.metadata["committed_size"] == "0"
        self.committed = 0

    @precondition(lambda self: self._transfer)
    @rule()
    def finish(self) -> None:
        if self.committed < len(DATA):
            with pytest.raises(UploadOffsetMismatch):
                self._runner.run(self._transfer.finish())
            return
        made = self._runner.run(self._transfer.finish())
        assert (made.state, made.mime_type) == (MediaState.PROCESSING, "image/png")
        stored = self._uploads.media.source(made.digest).path
        assert stored.read_bytes() == DATA
        assert list(self._uploads.folder.iterdir()) == []
        # Everything is forgotten, so that the machine can begin anew.
        self.teardown_stream()
        self._runner.run(self._uploads.records.delete(OWNER, made.digest, 0.0, allow_missing=False))
        stored.unlink()
        self.committed = 0

    @invariant()
    def what_is_staged_is_the_beginning(self) -> None:
        staged = [path.read_bytes() for path in self._uploads.folder.iterdir()]
        assert staged in ([], [DATA[: self.committed]])
        assert staged or not self.committed


TestUploadMachine = UploadMachine.TestCase
TestUploadMachine.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


async def finish(uploads: Uploads, data: bytes, **changes: str) -> str:
    async with uploads.transfer(wish(data, **changes)) as transfer:
        await send(transfer, data, 0)
        return (await transfer.finish()).digest


async def test_an_owner_cannot_reach_anothers_upload(tmp_path: Path) -> None:
    """The same id is another upload; the same bytes are one file and two objects."""
    async with opened(tmp_path) as uploads:
        async with uploads.transfer(wish()) as transfer:
            await send(transfer, DATA[:50], 0)
        async with uploads.transfer(wish(owner="you")) as transfer:
            assert transfer.committed_size == 0
        assert await uploads.records.claim("you", sha256(DATA), 60.0, 0.0) is None
        await finish(uploads, DATA, owner="you")
        assert await uploads.records.claim(OWNER, sha256(DATA), 60.0, 0.0) is None
        _, committed = await uploads.progress(OWNER, "one")
        assert committed == 50


async def test_an_owners_quota_is_his_own(tmp_path: Path) -> None:
    """Others still find room."""
    async with opened(tmp_path, Limits(max_media=1)) as uploads:
        await finish(uploads, DATA)
        with pytest.raises(MediaQuota):
            await finish(uploads, DATA + b"2", upload_id="two")
        await finish(uploads, DATA, owner="you")


async def test_a_finish_that_is_interrupted_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the file and its row: the staging file is still whole."""
    async with opened(tmp_path) as uploads:
        async with uploads.transfer(wish()) as transfer:
            await send(transfer, DATA, 0)
            with monkeypatch.context() as patch, pytest.raises(StoreUnavailable):
                patch.setattr(uploads.records, "finish_upload", _refusing)
                await transfer.finish()
        async with uploads.transfer(wish()) as transfer:
            assert transfer.committed_size == len(DATA)
            assert (await transfer.finish()).digest == sha256(DATA)


async def _refusing(*_: object) -> None:
    raise StoreUnavailable("the disk is full")


async def test_a_disk_that_refuses_keeps_what_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STORE_UNAVAILABLE, and the upload stands where it stood."""
    async with opened(tmp_path) as uploads, uploads.transfer(wish()) as transfer:
        await send(transfer, DATA[:100], 0)
        with monkeypatch.context() as patch, pytest.raises(StoreUnavailable):
            patch.setattr(os, "fdatasync", _full)
            await send(transfer, DATA[100:200], 100)
        _, committed = await uploads.progress(OWNER, "one")
        assert committed == 100
        await send(transfer, DATA[100:], 100)
        assert (await transfer.finish()).digest == sha256(DATA)


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")


async def test_files_that_no_upload_needs_go(tmp_path: Path) -> None:
    """What a crash or an older row has left; what is needed stays."""
    async with opened(tmp_path) as uploads:
        async with uploads.transfer(wish()) as transfer:
            await send(transfer, DATA[:100], 0)
        (uploads.folder / "orphan").write_bytes(b"x")
        assert await uploads.expire() == 1
        _, committed = await uploads.progress(OWNER, "one")
        assert committed == 100


async def test_a_store_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    """Tables for media are added to it; what it held stays."""
    async with opened(tmp_path):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "sessions.sqlite3")) as connection:
        for table in (
            *("media", "uploads"),
            *("operation_requests", "operation_events", "operation_orders"),
            *("operations", "store_identity"),
        ):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("DELETE FROM schema_version WHERE version > 1")
        connection.execute("INSERT OR IGNORE INTO schema_version VALUES (1)")
        connection.commit()
    async with opened(tmp_path) as uploads:
        await finish(uploads, DATA)
    with contextlib.closing(sqlite3.connect(tmp_path / "sessions.sqlite3")) as connection:
        found = connection.execute("SELECT max(version) FROM schema_version").fetchone()[0]
    assert found == VERSION


CHILD = """
import asyncio, sys
from pathlib import Path
from tests.unit.service.test_uploads import big, opened, send, wish

async def main():
    async with opened(Path(sys.argv[1])) as uploads:
        async with uploads.transfer(wish(big())) as transfer:
            while not transfer._is_complete:
                begin = transfer.committed_size
                await send(transfer, big()[begin : begin + 100_000], begin)
                print(transfer.committed_size, flush=True)
            await transfer.finish()
            print("finished", flush=True)

asyncio.run(main())
"""


def big() -> bytes:
    return b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 6000


@pytest.mark.parametrize("lines", [1, 4, 9, 15, 16])
async def test_a_kill_in_the_middle_loses_nothing_told(tmp_path: Path, lines: int) -> None:
    """After some chunks: at least what was acknowledged is there, and all of it is right."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", CHILD, str(tmp_path)),
        stdout=PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout is not None
    said = [(await child.stdout.readline()).decode().strip() for _ in range(lines)]
    child.send_signal(signal.SIGKILL)
    await child.wait()
    async with opened(tmp_path) as uploads:
        if made := await uploads.records.claim(OWNER, sha256(big()), 60.0, 0.0):
            assert uploads.media.source(made.digest).path.read_bytes() == big()
            return
        async with uploads.transfer(wish(big())) as transfer:
            begin = transfer.committed_size
            assert begin >= int(said[-1])
            assert transfer.path.read_bytes() == big()[:begin]
            if begin < len(big()):
                await send(transfer, big()[begin:], begin)
            assert (await transfer.finish()).digest == sha256(big())
