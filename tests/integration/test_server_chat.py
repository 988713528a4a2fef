"""ChatService: turns of a session, each committed exactly once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from ixc.v1 import chat_service_pb2 as chat_pb
from ixc.v1 import events_pb2
from ixc.v1 import generation_pb2 as generation
from ixc.v1 import generation_service_pb2 as generation_pb
from ixc.v1 import session_service_pb2 as pb
from ixc.v1.sampling_pb2 import RunPolicy, SamplingParams
from ixc.v1.session_pb2 import SESSION_STATE_GENERATING, Session
from ixc_runtime import FinishReason, ImagePart, Role, TokensPart
from ixc_runtime.errors import EngineLost
from tests.fakes.fake_engine import FakeEngine
from tests.fakes.running_server import (
    PNG,
    Served,
    chat_request,
    error_info,
    events_of,
    kinds,
    refused,
    running_server,
    text_of,
)

CODE = grpc.StatusCode


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with running_server(tmp_path) as running:
        yield running


async def session_of(served: Served, name: str) -> Session:
    answer = await served.sessions.GetSession(pb.GetSessionRequest(name=name))
    assert isinstance(answer.session, Session)
    return answer.session


async def turns_of(served: Served, name: str) -> list[Any]:
    return list((await served.sessions.ListTurns(pb.ListTurnsRequest(parent=name))).turns)


async def begun(served: Served, session: str, text: str, **fields: Any) -> tuple[Any, Any]:
    """A chat that has been accepted, and its call."""
    call = served.chats.Chat(chat_request(session, text, **fields))
    return (await call.read()).event.accepted, call


async def test_a_turn_is_committed_with_its_last_event(served: Served) -> None:
    """`completed` names the turn and the session's new etag; the turn is there."""
    session = await served.new_session()
    events = await served.chat(session, "Hello")
    assert events[0].accepted.turn_index == 1
    assert events[0].accepted.session == session
    done = events[-1].completed
    assert done.turn == f"{session}/turns/1"
    assert done.session_etag == (await session_of(served, session)).etag
    (turn,) = await turns_of(served, session)
    assert turn.user.parts[0].text == "Hello"
    assert turn.assistant.parts[0].text == text_of(events) == "You said: Hello"
    assert turn.usage == done.usage
    assert turn.generation == events[0].accepted.generation


async def test_a_second_turn_computes_only_what_is_new(served: Served) -> None:
    """The prompt is the whole conversation, answers as ids; what is cached is reported."""
    session = await served.new_session(system_instruction="Be brief.")
    first = await served.chat(session, "Hello")
    second = await served.chat(session, "And?")
    prompt = served.engine.requests[-1].prompt
    assert prompt.system_instruction == "Be brief."
    assert [message.role for message in prompt.messages] == [Role.USER, Role.ASSISTANT, Role.USER]
    ids = tuple(token for event in first for token in event.delta.token_ids)
    assert prompt.messages[1].parts == (TokensPart(token_ids=ids),)
    processed = second[1].prompt_processed
    used = first[-1].completed.usage
    assert processed.cached_tokens == used.prompt_tokens + used.output_tokens
    assert processed.cache_hit == events_pb2.CACHE_HIT_RESIDENT
    assert second[-1].completed.usage.cached_tokens == processed.cached_tokens
    assert first[1].prompt_processed.cache_hit == events_pb2.CACHE_HIT_NONE


async def test_a_restarted_server_goes_on(tmp_path: Path) -> None:
    """Sessions and pictures survive; the history is computed again and the answer says so."""
    async with running_server(tmp_path) as served:
        session = await served.new_session()
        await served.chat(session, "Look", image=PNG)
    async with running_server(tmp_path) as served:
        events = await served.chat(session, "And?")
        assert events[0].accepted.turn_index == 2
        assert events[1].prompt_processed.cache_hit == events_pb2.CACHE_HIT_REPREFILLED
        (picture, _) = served.engine.requests[-1].prompt.messages[0].parts
        assert isinstance(picture, ImagePart)
        assert picture.source.path.read_bytes() == PNG


async def test_the_same_request_is_one_turn(served: Served) -> None:
    """While its generation is known it is replayed, whatever the session did since."""
    session = await served.new_session()
    first = await served.chat(session, "Hello", request_id="t-1")
    await served.chat(session, "More")
    again = await served.chat(session, "Hello", request_id="t-1")
    assert again[0].accepted.deduplicated
    assert again[-1] == first[-1]
    assert text_of(again) == text_of(first)
    assert len(await turns_of(served, session)) == 2


async def test_a_committed_request_is_told_after_a_restart(tmp_path: Path) -> None:
    """`accepted` and a `completed` with the whole text; nothing is generated."""
    async with running_server(tmp_path) as served:
        session = await served.new_session()
        first = await served.chat(session, "Hello", request_id="t-1")
    async with running_server(tmp_path) as served:
        again = await served.chat(session, "Hello", request_id="t-1")
        assert kinds(again) == ["accepted", "completed"]
        assert again[0].accepted.deduplicated
        assert again[0].accepted.generation == first[0].accepted.generation
        assert again[-1].sequence == first[-1].sequence
        assert again[-1].completed.text == "You said: Hello"
        assert again[-1].completed.turn == first[-1].completed.turn
        assert kinds(await served.chat(session, "Hello", request_id="t-1", after_sequence=3)) == [
            "completed"
        ]
        assert not served.engine.requests
        with refused("REQUEST_ID_REUSED", CODE.ALREADY_EXISTS):
            await served.chat(session, "Other", request_id="t-1")


async def test_two_sendings_at_once_are_one_turn(served: Served) -> None:
    """A proxy's retry beside the first try attaches to it."""
    session = await served.new_session()
    served.engine.will_say("one", hold_at=2)
    sendings = [
        asyncio.ensure_future(served.chat(session, "Hello", request_id="t-1")) for _ in range(3)
    ]
    await served.engine.was_asked.wait()
    served.engine.release.set()
    results = [await sending for sending in sendings]
    assert {text_of(events) for events in results} == {"one"}
    assert len(served.engine.requests) == 1
    assert len(await turns_of(served, session)) == 1


async def test_a_failed_turn_leaves_no_trace(served: Served) -> None:
    """The session is as before, its etag too; the same request runs anew."""
    session = await served.new_session()
    before = await session_of(served, session)
    served.engine.will_say("a", fault=EngineLost("gone"), fault_at=3)
    with refused("ENGINE_LOST", CODE.UNAVAILABLE):
        await served.chat(session, "Hello", request_id="t-1")
    assert await session_of(served, session) == before
    assert text_of(await served.chat(session, "Hello", request_id="t-1")) == "You said: Hello"


async def test_a_busy_session_refuses(served: Served) -> None:
    """SESSION_BUSY names the generation under way; so does the session."""
    session = await served.new_session()
    served.engine.will_say("a", hold_at=2)
    accepted, call = await begun(served, session, "Hello")
    with refused("SESSION_BUSY", CODE.ABORTED) as caught:
        await served.chat(session, "Me too")
    assert error_info(caught[0]).metadata["generation"] == accepted.generation
    with refused("SESSION_BUSY", CODE.ABORTED):
        await served.sessions.RewindSession(pb.RewindSessionRequest(name=session, to_turn=0))
    busy = await session_of(served, session)
    assert busy.state == SESSION_STATE_GENERATING
    assert busy.active_generation == accepted.generation
    served.engine.release.set()
    await events_of(call)
    # Whoever hears of the end may go on at once.
    assert text_of(await served.chat(session, "Now")) == "You said: Now"


async def test_a_queued_turn_waits_its_turn(served: Served) -> None:
    """QUEUE: several wait in order; each sees the turns before it."""
    session = await served.new_session()
    served.engine.will_say("a", hold_at=2)
    _, call = await begun(served, session, "first")
    waiting = []
    for text in ("second", "third"):
        request = chat_request(session, text, busy_policy=chat_pb.BUSY_POLICY_QUEUE)
        waiting.append(asyncio.ensure_future(events_of(served.chats.Chat(request))))
        await session_of(served, session)
    served.engine.release.set()
    await events_of(call)
    assert [(await each)[0].accepted.turn_index for each in waiting] == [2, 3]
    texts = [turn.user.parts[0].text for turn in await turns_of(served, session)]
    assert texts == ["first", "second", "third"]


async def test_a_queued_turn_waits_only_so_long(served: Served) -> None:
    """After queue_timeout it is refused as busy."""
    session = await served.new_session()
    served.engine.will_say("a", hold_at=2)
    _, call = await begun(served, session, "first")
    run = RunPolicy(queue_timeout=Duration(nanos=1_000_000))
    with refused("SESSION_BUSY", CODE.ABORTED):
        await served.chat(session, "second", busy_policy=chat_pb.BUSY_POLICY_QUEUE, run=run)
    served.engine.release.set()
    await events_of(call)


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (chat_pb.PARTIAL_POLICY_UNSPECIFIED, 0),
        (chat_pb.PARTIAL_POLICY_DISCARD, 0),
        (chat_pb.PARTIAL_POLICY_KEEP_PARTIAL, 1),
    ],
)
async def test_an_interrupt_ends_the_turn_before(served: Served, policy: Any, kept: int) -> None:
    """Its watchers see INTERRUPTED with OK; its own on_cancel decides what is kept."""
    session = await served.new_session()
    served.engine.will_say("some", " more", hold_at=3)
    _, call = await begun(served, session, "first", on_cancel=policy)
    await call.read()
    await call.read()
    events = await served.chat(session, "second", busy_policy=chat_pb.BUSY_POLICY_INTERRUPT)
    assert events[0].accepted.turn_index == kept + 1
    ended = (await events_of(call))[-1].completed
    assert ended.finish_reason == generation.FINISH_REASON_INTERRUPTED
    assert bool(ended.turn) == bool(kept)
    turns = await turns_of(served, session)
    assert [turn.user.parts[0].text for turn in turns] == ["first", "second"][1 - kept :]
    if kept:
        assert turns[0].assistant.parts[0].text == "some"


async def test_a_cancelled_turn_without_a_token_is_not_kept(served: Served) -> None:
    """KEEP_PARTIAL keeps answers, not questions alone."""
    session = await served.new_session()
    served.engine.will_say("some", hold_at=2)
    keep = chat_pb.PARTIAL_POLICY_KEEP_PARTIAL
    accepted, call = await begun(served, session, "first", on_cancel=keep)
    cancel = generation_pb.CancelGenerationRequest(name=accepted.generation)
    await served.generations.CancelGeneration(cancel)
    assert not (await events_of(call))[-1].completed.turn
    assert not await turns_of(served, session)


async def test_a_timed_out_turn_follows_on_cancel(served: Served) -> None:
    """TIMEOUT counts as cut short."""
    session = await served.new_session()
    served.engine.will_say("some", finish_reason=FinishReason.TIMEOUT)
    assert not (await served.chat(session, "first"))[-1].completed.turn
    served.engine.will_say("some", finish_reason=FinishReason.TIMEOUT)
    keep = chat_pb.PARTIAL_POLICY_KEEP_PARTIAL
    assert (await served.chat(session, "first", on_cancel=keep))[-1].completed.turn


async def test_a_dropped_chat_goes_on_for_a_while(served: Served) -> None:
    """The default is GRACE: the answer is committed though nobody listened at the end."""
    session = await served.new_session()
    served.engine.will_say("all", " of it", hold_at=3)
    accepted, call = await begun(served, session, "first")
    call.cancel()
    watch = generation_pb.WatchGenerationRequest(name=accepted.generation)
    watching = served.generations.WatchGeneration(watch)
    served.engine.release.set()
    assert (await events_of(watching))[-1].completed.turn == f"{session}/turns/1"


async def test_the_expected_turn_is_checked(served: Served) -> None:
    """TURN_CONFLICT with both numbers when somebody else was faster."""
    session = await served.new_session()
    await served.chat(session, "one", expected_turn=1)
    with refused("TURN_CONFLICT", CODE.ABORTED) as caught:
        await served.chat(session, "two", expected_turn=1)
    metadata = dict(error_info(caught[0]).metadata)
    assert metadata == {"session": session, "expected": "1", "actual": "2"}


async def test_sampling_comes_from_request_then_session_then_model(served: Served) -> None:
    """Field by field; lists replace as a whole."""
    session = await served.new_session(
        default_sampling=SamplingParams(temperature=0.25, top_k=7, stop_sequences=["x"])
    )
    events = await served.chat(session, "Hi", sampling=SamplingParams(top_k=9))
    effective = events[0].accepted.effective_sampling
    assert (effective.temperature, effective.top_k) == (0.25, 9)
    assert list(effective.stop_sequences) == ["x"]
    assert effective.max_output_tokens == 1024


async def test_a_session_has_only_so_many_pictures(tmp_path: Path) -> None:
    """The limit of a request holds for a session too."""
    async with running_server(tmp_path, max_images=2) as served:
        session = await served.new_session()
        for _ in range(2):
            await served.chat(session, "Look", image=PNG)
        with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
            await served.chat(session, "Look", image=PNG)
        await served.chat(session, "no picture")


async def test_other_weights_refuse_an_old_session(tmp_path: Path) -> None:
    """SESSION_WEIGHTS_CHANGED; its turns can still be read."""
    async with running_server(tmp_path) as served:
        session = await served.new_session()
        await served.chat(session, "Hello")
    engine = FakeEngine()
    engine.info = type(engine.info)(
        **{name: getattr(engine.info, name) for name in engine.info.__struct_fields__}
        | {"digest": "0" * 64}
    )
    async with running_server(tmp_path, engine) as served:
        with refused("SESSION_WEIGHTS_CHANGED", CODE.FAILED_PRECONDITION) as caught:
            await served.chat(session, "And?")
        assert error_info(caught[0]).metadata["serverDigest"] == "0" * 16
        assert len(await turns_of(served, session)) == 1


async def test_a_picture_taken_away_is_the_stores_fault(served: Served) -> None:
    """STORE_UNAVAILABLE with an incident, never a path."""
    session = await served.new_session()
    await served.chat(session, "Look", image=PNG)
    for path in (served.folder / "data" / "media").iterdir():
        path.unlink()
    with refused("STORE_UNAVAILABLE", CODE.UNAVAILABLE) as caught:
        await served.chat(session, "And?")
    assert error_info(caught[0]).metadata["incident"]
    assert str(served.folder) not in str(caught[0])


async def test_unknown_and_expired_sessions(served: Served) -> None:
    """Told apart while the server can; ResourceInfo names what was asked for."""
    with refused("SESSION_NOT_FOUND", CODE.NOT_FOUND) as caught:
        await served.chat("sessions/nobody", "Hi")
    assert error_info(caught[0]).metadata["session"] == "sessions/nobody"
    session = await served.new_session(ttl=Duration(seconds=60))
    served.clock.wall += 59
    await served.chat(session, "Hi")
    served.clock.wall += 60
    with refused("SESSION_EXPIRED", CODE.NOT_FOUND) as caught:
        await served.chat(session, "Hi")
    assert error_info(caught[0]).metadata["expireTime"]


async def test_a_session_does_not_expire_under_way(served: Served) -> None:
    """A turn that outlives the ttl is committed."""
    session = await served.new_session(ttl=Duration(seconds=60))
    served.engine.will_say("a", hold_at=2)
    _, call = await begun(served, session, "Hi")
    served.clock.wall += 100_000
    await served.server.housekeeping.sweep()
    served.engine.release.set()
    assert (await events_of(call))[-1].completed.turn
