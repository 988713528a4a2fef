"""The session store: what is committed stays, what is not leaves no trace."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ixc_runtime import FinishReason, SamplingParams, Timings, Usage
from ixc_service.errors import (
    RequestIdReused,
    SessionExpired,
    SessionNotFound,
    StoreUnavailable,
    TurnConflict,
)
from ixc_service.store import (
    Database,
    RequestKey,
    SessionRecord,
    SessionStore,
    StoredImage,
    StoredText,
    TurnRecord,
)

NOW = 1_000_000.0
OWNER = "local"


def session(session_id: str = "chat", **changes: Any) -> SessionRecord:
    record = SessionRecord(
        owner=OWNER,
        session_id=session_id,
        incarnation=f"made-{session_id}",
        model="fake",
        weights_digest="d",
        system_instruction="Be brief.",
        system_preset=0,
        default_sampling=SamplingParams(temperature=0.5, logit_bias=((3, 1.5),)),
        labels={"a": "b"},
        parent=None,
        forked_at_turn=None,
        ttl_seconds=100.0,
        create_time=NOW,
        last_used_time=NOW,
    )
    return replace(record, **changes)


def turn(index: int, text: str = "answer") -> TurnRecord:
    return TurnRecord(
        index=index,
        request_id=f"r-{index}",
        generation_id=f"g-{index}",
        user=(StoredText("question"), StoredImage("d" * 64, "image/png", 10, hd_num=4)),
        assistant_text=text,
        token_ids=tuple(range(index)),
        adapter="base",
        sampling=SamplingParams(seed=2**64 - 1),
        finish_reason=FinishReason.STOP,
        usage=Usage(prompt_tokens=10 * index, image_tokens=0, cached_tokens=0, output_tokens=1),
        timings=Timings(total_seconds=0.5),
        create_time=NOW,
        last_sequence=7,
        matched_stop_token_id=2,
    )


def key(request_id: str, digest: bytes = b"1") -> RequestKey:
    return RequestKey(owner=OWNER, method="Chat", request_id=request_id, digest=digest)


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[SessionStore]:
    database = await Database.open(folder / "sessions.sqlite3")
    try:
        yield SessionStore(database, max_sessions=100)
    finally:
        await database.close()


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[SessionStore]:
    async with opened(tmp_path) as store:
        yield store


async def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    """After a restart too, to the last field."""
    async with opened(tmp_path) as store:
        made = await store.create(session(), None)
        await store.commit_turn(made, turn(1), key("r-1"), NOW)
    async with opened(tmp_path) as store:
        found, turns = await store.turns(OWNER, "chat", NOW)
        assert found == replace(made, turn_count=1, context_tokens=11, revision=1)
        assert turns == [turn(1)]
        assert await store.media_in_use() == {"d" * 64}
        assert await store.turn_made_by(key("r-1")) == (found, turn(1))


async def test_a_turn_is_appended_only_to_what_its_prompt_saw(store: SessionStore) -> None:
    """Two turns from the same state: the second changes nothing."""
    made = await store.create(session(), None)
    await store.commit_turn(made, turn(1), None, NOW)
    with pytest.raises(TurnConflict) as caught:
        await store.commit_turn(made, turn(1, "other"), key("r-9"), NOW)
    assert caught.value.metadata["actual"] == "2"
    assert [each.assistant_text for each in (await store.turns(OWNER, "chat", NOW))[1]] == [
        "answer"
    ]
    assert await store.turn_made_by(key("r-9")) is None


async def test_a_session_made_anew_is_another(store: SessionStore) -> None:
    """A turn begun before the deletion does not land in the namesake."""
    made = await store.create(session(), None)
    await store.delete(OWNER, "chat", "", NOW, allow_missing=False)
    await store.create(session(incarnation="second"), None)
    with pytest.raises(TurnConflict):
        await store.commit_turn(made, turn(1), None, NOW)


async def test_a_request_id_means_one_thing(store: SessionStore) -> None:
    """The same content finds the turn, other content is refused, a rewind forgets it."""
    made = await store.create(session(), None)
    await store.commit_turn(made, turn(1), key("r-1"), NOW)
    with pytest.raises(RequestIdReused):
        await store.turn_made_by(key("r-1", b"2"))
    await store.rewind(OWNER, "chat", 0, "", NOW)
    assert await store.turn_made_by(key("r-1", b"2")) is None
    assert await store.media_in_use() == frozenset()


async def test_expiry(store: SessionStore) -> None:
    """Expired is told from unknown for a day; a session in use does not expire."""
    await store.create(session(), None)
    with pytest.raises(SessionExpired):
        await store.get(OWNER, "chat", NOW + 100)
    assert await store.page(OWNER, None, 10, NOW + 100) == []
    store.in_use.add((OWNER, "chat"))
    assert await store.expire(NOW + 1_000_000) == 0
    assert (await store.get(OWNER, "chat", NOW + 1_000_000)).session_id == "chat"
    store.in_use.clear()
    assert await store.expire(NOW + 1_000_000) == 1
    with pytest.raises(SessionNotFound):
        await store.get(OWNER, "chat", NOW)


async def test_owners_do_not_meet(store: SessionStore) -> None:
    """The same id under another owner is another session."""
    await store.create(session(), None)
    with pytest.raises(SessionNotFound):
        await store.get("somebody", "chat", NOW)
    await store.create(session(owner="somebody"), None)
    assert len(await store.page(OWNER, None, 10, NOW)) == 1


async def test_a_file_of_a_newer_build(tmp_path: Path) -> None:
    """Refused with both versions, and not touched."""
    async with opened(tmp_path):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "sessions.sqlite3")) as connection:
        connection.execute("INSERT INTO schema_version VALUES (99)")
        connection.commit()
    with pytest.raises(StoreUnavailable, match="99"):
        await Database.open(tmp_path / "sessions.sqlite3")


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """A fault that says so, without the path."""
    (tmp_path / "sessions.sqlite3").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreUnavailable) as caught:
        await Database.open(tmp_path / "sessions.sqlite3")
    assert str(tmp_path) not in caught.value.message


async def commit_for_ever(folder: Path) -> None:
    """The child: commits turn after turn, telling each only once it is committed."""
    async with opened(folder) as store:
        current = await store.create(session(ttl_seconds=1e9), None)
        while True:
            index = current.turn_count + 1
            current = await store.commit_turn(current, turn(index), key(f"r-{index}"), NOW)
            print(index, flush=True)


@pytest.mark.parametrize("after", [1, 4, 9])
async def test_kill_in_the_middle_of_commits(tmp_path: Path, after: int) -> None:
    """Every turn that was told is there, whole and once; at most one more is; ids agree."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        str(tmp_path),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout is not None
    told = 0
    while told < after:
        told = int(await child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    rest = (await child.stdout.read()).split()
    told = int(rest[-1]) if rest else told
    await child.wait()
    async with opened(tmp_path) as store:
        found, turns = await store.turns(OWNER, "chat", NOW)
        assert told <= found.turn_count <= told + 1
        assert turns == [turn(index) for index in range(1, found.turn_count + 1)]
        for each in turns:
            assert await store.turn_made_by(key(f"r-{each.index}")) == (found, each)
        assert await store.turn_made_by(key(f"r-{found.turn_count + 1}")) is None
        await store.commit_turn(found, turn(found.turn_count + 1), None, NOW)


if __name__ == "__main__":
    asyncio.run(commit_for_ever(Path(sys.argv[1])))
