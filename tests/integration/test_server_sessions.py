"""SessionService: create, read, list, update, fork, rewind, delete."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from ixc.v1 import generation_pb2 as generation
from ixc.v1 import session_service_pb2 as pb
from ixc.v1.content_pb2 import SYSTEM_PRESET_META_INSTRUCTION_DEFAULT
from ixc.v1.sampling_pb2 import SamplingParams
from ixc.v1.session_pb2 import TURN_VIEW_FULL, Session
from tests.fakes.running_server import (
    PNG,
    Served,
    chat_request,
    error_info,
    events_of,
    refused,
    running_server,
)

CODE = grpc.StatusCode


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with running_server(tmp_path) as running:
        yield running


async def get(served: Served, name: str) -> Any:
    return (await served.sessions.GetSession(pb.GetSessionRequest(name=name))).session


async def turns_of(served: Served, name: str, **fields: Any) -> Any:
    return await served.sessions.ListTurns(pb.ListTurnsRequest(parent=name, **fields))


async def test_a_session_is_what_was_asked_for(served: Served) -> None:
    """Settings come back; times, etag and limits are filled in."""
    asked = Session(
        system_instruction="Be brief.",
        default_sampling=SamplingParams(temperature=0.5, seed=9),
        labels={"user": "ann"},
        ttl=Duration(seconds=120),
    )
    request = pb.CreateSessionRequest(session_id="ann-1", session=asked)
    made = (await served.sessions.CreateSession(request)).session
    assert made.name == "sessions/ann-1"
    assert made.model == "models/fake"
    assert made.weights_digest == "f" * 64
    assert made.system_instruction == asked.system_instruction
    assert made.default_sampling == asked.default_sampling
    assert dict(made.labels) == {"user": "ann"}
    assert made.expire_time.seconds - made.create_time.seconds == 120
    assert made.turn_count == 0
    assert made.context_limit == 4096
    assert made == await get(served, made.name)


async def test_a_preset_comes_back_by_name(served: Served) -> None:
    """The text goes to the model, the name to the reader."""
    session = await served.new_session(system_preset=SYSTEM_PRESET_META_INSTRUCTION_DEFAULT)
    made = await get(served, session)
    assert made.WhichOneof("system") == "system_preset"
    await served.chat(session, "Hi")
    assert "InternLM" in served.engine.requests[-1].prompt.system_instruction


async def test_creation_is_repeatable(served: Served) -> None:
    """By request_id the same session; by session_id alone ALREADY_EXISTS."""
    request = pb.CreateSessionRequest(request_id="c-1", session=Session(labels={"a": "b"}))
    first = (await served.sessions.CreateSession(request)).session
    assert (await served.sessions.CreateSession(request)).session == first
    other = pb.CreateSessionRequest(request_id="c-1")
    with refused("REQUEST_ID_REUSED", CODE.ALREADY_EXISTS):
        await served.sessions.CreateSession(other)
    named = pb.CreateSessionRequest(session_id="mine")
    await served.sessions.CreateSession(named)
    with refused("SESSION_ID_TAKEN", CODE.ALREADY_EXISTS) as caught:
        await served.sessions.CreateSession(named)
    assert error_info(caught[0]).metadata["session"] == "sessions/mine"


async def test_only_so_many_sessions(tmp_path: Path) -> None:
    """SESSION_QUOTA with the limit; deleting one makes room, and so does expiry."""
    async with running_server(tmp_path, max_sessions=2) as served:
        first = await served.new_session()
        await served.new_session(ttl=Duration(seconds=10))
        with refused("SESSION_QUOTA", CODE.RESOURCE_EXHAUSTED) as caught:
            await served.new_session()
        assert error_info(caught[0]).metadata["limit"] == "2"
        await served.sessions.DeleteSession(pb.DeleteSessionRequest(name=first))
        await served.new_session()
        served.clock.wall += 10
        await served.new_session()


async def test_sessions_are_listed_newest_first(served: Served) -> None:
    """In pages; by labels; without the expired."""
    names = []
    for number in range(5):
        served.clock.wall += 1
        labels = {"odd": str(number % 2)}
        names.append(await served.new_session(labels=labels, ttl=Duration(seconds=100 + number)))

    async def listed(**fields: Any) -> list[str]:
        found, token = [], ""
        while True:
            request = pb.ListSessionsRequest(page_size=2, page_token=token, **fields)
            page = await served.sessions.ListSessions(request)
            found += [each.name for each in page.sessions]
            token = page.next_page_token
            if not token:
                return found

    assert await listed() == names[::-1]
    assert await listed(labels={"odd": "1"}) == [names[3], names[1]]
    served.clock.wall += 97  # the first was made 4 s before the last
    assert await listed() == names[:0:-1]


async def test_turns_are_listed_in_pages_that_fit(tmp_path: Path) -> None:
    """Oldest first; a page is shorter where it would not fit in a message."""
    async with running_server(tmp_path, max_message_bytes=68_000) as served:
        session = await served.new_session()
        for number in range(4):
            served.engine.will_say("x" * 700)
            await served.chat(session, f"turn {number}")
        page = await turns_of(served, session)
        assert [turn.index for turn in page.turns] == [1, 2]
        page = await turns_of(served, session, page_token=page.next_page_token)
        assert [turn.index for turn in page.turns] == [3, 4]
        assert not page.next_page_token
        short = await turns_of(served, session, page_size=1, view=TURN_VIEW_FULL)
        assert len(short.turns) == 1
        assert list(short.turns[0].token_ids) == [ord("x")] * 700


async def test_a_picture_in_a_turn_comes_back_by_digest(served: Served) -> None:
    """Not its bytes; its type is what the bytes are."""
    session = await served.new_session()
    await served.chat(session, "Look", image=PNG)
    picture = (await turns_of(served, session)).turns[0].user.parts[0].image
    assert not picture.inline_data
    assert picture.mime_type == "image/png"
    assert len(picture.sha256) == 64


async def test_an_update_changes_what_the_mask_names(served: Served) -> None:
    """And nothing else; with a stale etag nothing at all; it counts as use."""
    session = await served.new_session(labels={"a": "1"})
    before = await get(served, session)
    served.clock.wall += 5
    request = pb.UpdateSessionRequest(
        session=Session(name=session, labels={"b": "2"}, ttl=Duration(seconds=9)),
        update_mask=FieldMask(paths=["labels"]),
    )
    after = (await served.sessions.UpdateSession(request)).session
    assert dict(after.labels) == {"b": "2"}
    assert after.ttl == before.ttl
    assert after.last_used_time.seconds == before.last_used_time.seconds + 5
    assert after.etag != before.etag
    request.session.etag = before.etag
    with refused("ETAG_MISMATCH", CODE.ABORTED):
        await served.sessions.UpdateSession(request)
    for paths in ([], ["name"], ["nonsense"]):
        bad = pb.UpdateSessionRequest(
            session=Session(name=session), update_mask=FieldMask(paths=paths)
        )
        with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
            await served.sessions.UpdateSession(bad)


async def test_a_fork_goes_its_own_way(served: Served) -> None:
    """It holds the first turns, shares nothing afterwards, and outlives its parent."""
    session = await served.new_session(labels={"a": "1"})
    for text in ("one", "two", "three"):
        await served.chat(session, text, image=PNG if text == "one" else b"")
    request = pb.ForkSessionRequest(name=session, at_turn=2, request_id="f-1")
    fork = (await served.sessions.ForkSession(request)).session
    assert (await served.sessions.ForkSession(request)).session == fork
    assert (fork.parent, fork.forked_at_turn, fork.turn_count) == (session, 2, 2)
    assert dict(fork.labels) == {"a": "1"}
    events = await served.chat(fork.name, "other")
    assert events[0].accepted.turn_index == 3
    assert events[1].prompt_processed.cached_tokens > 0
    await served.sessions.DeleteSession(pb.DeleteSessionRequest(name=session))
    served.clock.wall += 1_000
    await served.server.housekeeping.sweep()
    texts = [turn.user.parts[-1].text for turn in (await turns_of(served, fork.name)).turns]
    assert texts == ["one", "two", "other"]
    await served.chat(fork.name, "again")
    with refused("TURN_NOT_FOUND", CODE.NOT_FOUND) as caught:
        await served.sessions.ForkSession(pb.ForkSessionRequest(name=fork.name, at_turn=9))
    assert error_info(caught[0]).metadata["turnCount"] == "4"


async def test_a_fork_of_a_fork_of_nothing(served: Served) -> None:
    """at_turn 0 takes the settings alone."""
    session = await served.new_session(system_instruction="Be brief.")
    await served.chat(session, "one")
    request = pb.ForkSessionRequest(name=session, at_turn=0, session_id="bare")
    fork = (await served.sessions.ForkSession(request)).session
    assert (fork.turn_count, fork.context_tokens) == (0, 0)
    assert fork.system_instruction == "Be brief."


async def test_a_rewind_removes_later_turns(served: Served) -> None:
    """And what their request ids stood for; rewinding twice is the same."""
    session = await served.new_session()
    first = await served.chat(session, "one")
    await served.chat(session, "two", request_id="t-2")
    request = pb.RewindSessionRequest(name=session, to_turn=1)
    rewound = (await served.sessions.RewindSession(request)).session
    used = first[-1].completed.usage
    assert rewound.turn_count == 1
    assert rewound.context_tokens == used.prompt_tokens + used.output_tokens
    assert (await served.sessions.RewindSession(request)).session.turn_count == 1
    events = await served.chat(session, "three")
    assert events[0].accepted.turn_index == 2
    with refused("TURN_NOT_FOUND", CODE.NOT_FOUND):
        request = pb.RewindSessionRequest(name=session, to_turn=7)
        await served.sessions.RewindSession(request)
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
        await served.sessions.RewindSession(pb.RewindSessionRequest(name=session))


async def test_a_deleted_session_is_gone(served: Served) -> None:
    """A turn under way is cancelled and not committed; deleting again depends on allow_missing."""
    session = await served.new_session()
    served.engine.will_say("some", " more", hold_at=3)
    call = served.chats.Chat(chat_request(session, "Hi"))
    await call.read()
    await served.sessions.DeleteSession(pb.DeleteSessionRequest(name=session))
    done = (await events_of(call))[-1].completed
    assert done.finish_reason == generation.FINISH_REASON_CANCELLED
    assert not done.turn
    again = pb.DeleteSessionRequest(name=session)
    with refused("SESSION_NOT_FOUND", CODE.NOT_FOUND):
        await served.sessions.DeleteSession(again)
    await served.sessions.DeleteSession(pb.DeleteSessionRequest(name=session, allow_missing=True))
    made = pb.CreateSessionRequest(session_id=session.removeprefix("sessions/"))
    assert (await served.sessions.CreateSession(made)).session.turn_count == 0


async def test_a_stale_etag_saves_the_session(served: Served) -> None:
    """Neither deleted nor rewound when somebody else changed it."""
    session = await served.new_session()
    stale = (await get(served, session)).etag
    await served.chat(session, "Hi")
    with refused("ETAG_MISMATCH", CODE.ABORTED):
        await served.sessions.DeleteSession(pb.DeleteSessionRequest(name=session, etag=stale))
    with refused("ETAG_MISMATCH", CODE.ABORTED):
        request = pb.RewindSessionRequest(name=session, to_turn=0, etag=stale)
        await served.sessions.RewindSession(request)
    assert (await get(served, session)).turn_count == 1


@pytest.mark.parametrize(
    "name", ["", "sessions/", "sessions/A", "sessions/a/b", "generations/abcd"]
)
async def test_malformed_names(served: Served, name: str) -> None:
    """INVALID_ARGUMENT, told apart from what is not there."""
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
        await get(served, name)
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
        await turns_of(served, name)


async def test_unreferenced_media_go(served: Served) -> None:
    """A picture stays while a turn refers to it, and not much longer."""
    session = await served.new_session()
    await served.chat(session, "Look", image=PNG)
    media = served.folder / "data" / "media"
    served.clock.wall = 4_000_000_000.0
    await asyncio.sleep(0)
    await served.server.housekeeping.sweep()  # the session expires only now, its media are in use
    assert len(list(media.iterdir())) in {0, 1}
    await served.server.housekeeping.sweep()
    assert not list(media.iterdir())
