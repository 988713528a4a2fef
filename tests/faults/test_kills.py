"""kill -9, of the engine and of the whole server: what was promised before is there afterwards."""

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest

from ixc.v1.chat_service_pb2 import ChatRequest
from ixc.v1.chat_service_pb2_grpc import ChatServiceStub
from ixc.v1.events_pb2 import GenerationEvent
from ixc.v1.sampling_pb2 import SamplingParams
from ixc.v1.session_pb2 import TURN_VIEW_FULL
from ixc.v1.session_service_pb2 import CreateSessionRequest, ListTurnsRequest
from ixc.v1.session_service_pb2_grpc import SessionServiceStub
from tests.fakes.running_server import chat_request, error_info, events_of, kinds
from tests.fakes.server_process import ServerProcess, is_alive, running_process

SAMPLING = SamplingParams(max_output_tokens=60, ignore_eos=True)
NUM_SESSIONS = 6


class Conversation:
    """A scripted chat: what its client was told, in order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.told: list[tuple[str, str, tuple[int, ...]]] = []
        self._num_asked = 0

    def next_request(self) -> ChatRequest:
        self._num_asked += 1
        question = f"Question {self._num_asked}"
        request_id = f"{self.name.partition('/')[2]}-{self._num_asked}"
        return chat_request(self.name, question, sampling=SAMPLING, request_id=request_id)

    def hear(self, request: ChatRequest, events: list[GenerationEvent]) -> None:
        """A whole answer: its deltas, or what a replay tells of it at the end."""
        end = events[-1].completed
        text = end.text or "".join(event.delta.text for event in events)
        ids = tuple(end.token_ids) or tuple(i for event in events for i in event.delta.token_ids)
        assert end.turn.startswith(f"{self.name}/turns/")
        self.told.append((request.message.parts[0].text, text, ids))


async def stored(channel: grpc.aio.Channel, name: str) -> list[tuple[str, str, tuple[int, ...]]]:
    sessions: Any = SessionServiceStub(channel)
    request = ListTurnsRequest(parent=name, view=TURN_VIEW_FULL, page_size=1000)
    turns = (await sessions.ListTurns(request)).turns
    assert [turn.name for turn in turns] == [f"{name}/turns/{n + 1}" for n in range(len(turns))]
    return [
        (turn.user.parts[0].text, turn.assistant.parts[0].text, tuple(turn.token_ids))
        for turn in turns
    ]


async def new_conversation(channel: grpc.aio.Channel) -> Conversation:
    sessions: Any = SessionServiceStub(channel)
    return Conversation((await sessions.CreateSession(CreateSessionRequest())).session.name)


# ---- the engine


@pytest.mark.parametrize("num_kills", [2, pytest.param(20, marks=pytest.mark.faults)])
async def test_the_engine_is_killed_under_load(
    tmp_path: Path, tiny_model: Path, num_kills: int
) -> None:
    """The front end stays, streams end ENGINE_LOST, and every session's next turn is answered."""
    rng = random.Random(1)
    async with (
        running_process(tmp_path, tiny_model, "--max-batch=4", "--kv-bytes=8000000") as served,
        served.channel() as channel,
    ):
        front_end = served.pid
        chats: Any = ChatServiceStub(channel)
        for _ in range(num_kills):
            talks = [await new_conversation(channel) for _ in range(NUM_SESSIONS)]
            for talk in talks:
                await answered(chats, talk)
            running = [asyncio.create_task(outcome(chats, talk)) for talk in talks]
            await asyncio.sleep(rng.uniform(0.0, 0.15))  # anywhere between nothing and the end
            lost_engine = served.engine_pid
            assert lost_engine is not None
            os.kill(lost_engine, signal.SIGKILL)
            assert set(await asyncio.gather(*running)) <= {"completed", "ENGINE_LOST"}
            await served.ready()
            for talk in talks:
                await answered(chats, talk)
                assert await stored(channel, talk.name) == talk.told
            assert (served.pid, is_alive(served.pid)) == (front_end, True)
            assert served.engine_pid not in {None, lost_engine}


async def answered(chats: Any, talk: Conversation) -> None:
    request = talk.next_request()
    events = await events_of(chats.Chat(request))
    assert kinds(events)[-1] == "completed"
    talk.hear(request, events)


async def outcome(chats: Any, talk: Conversation) -> str:
    """`completed`, or the reason that the stream and its last event agree on."""
    request, events = talk.next_request(), []
    call = chats.Chat(request)
    try:
        while (response := await call.read()) is not grpc.aio.EOF:
            events.append(response.event)
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert not events or kinds(events)[-1] == "failed"
        return error_info(error).reason
    talk.hear(request, events)
    return kinds(events)[-1]


async def test_a_hung_engine_is_replaced(tmp_path: Path, tiny_model: Path) -> None:
    """Stopped, it answers nothing: its stream ends ENGINE_LOST and the next one is answered."""
    async with (
        running_process(tmp_path, tiny_model, "--step-timeout-seconds=0.5") as served,
        served.channel() as channel,
    ):
        chats: Any = ChatServiceStub(channel)
        talk = await new_conversation(channel)
        await answered(chats, talk)
        hung = served.engine_pid
        assert hung is not None
        os.kill(hung, signal.SIGSTOP)
        assert await outcome(chats, talk) == "ENGINE_LOST"
        await served.ready()
        await answered(chats, talk)
        assert served.engine_pid != hung


# ---- the whole server


@pytest.mark.parametrize("num_kills", [6, pytest.param(100, marks=pytest.mark.faults)])
async def test_the_whole_server_is_killed_in_a_chat(
    tmp_path: Path, tiny_model: Path, num_kills: int
) -> None:
    """Whatever a client was told is stored once and whole; what it was not told may be asked again.

    A real model would only add seconds to each of the restarts.
    """
    rng = random.Random(2)
    async with running_process(tmp_path, tiny_model, synthetic=True) as served:
        async with served.channel() as channel:
            talk = await new_conversation(channel)
        num_killed = 0
        while num_killed < num_kills:
            async with served.channel() as channel:
                num_killed += await turn_with_a_kill(served, channel, talk, rng)
                assert await stored(channel, talk.name) == talk.told
                if len(talk.told) >= 10:  # the context is small
                    talk = await new_conversation(channel)


async def turn_with_a_kill(
    served: ServerProcess, channel: grpc.aio.Channel, talk: Conversation, rng: random.Random
) -> int:
    """One turn, asked for until it is answered; the server dies at some moment of it, or after."""
    chats: Any = ChatServiceStub(channel)
    request = talk.next_request()
    killing = asyncio.create_task(kill_in(served, rng.uniform(0.0, 0.13)))
    try:
        events = await events_of(chats.Chat(request))
    except grpc.aio.AioRpcError:
        await killing
        await served.start()
        events = await events_of(chats.Chat(request, wait_for_ready=True))
        talk.hear(request, events)
        return 1
    talk.hear(request, events)
    await killing
    await served.start()
    # Asked again by a client that did not trust its ears: the same turn, told once more.
    again = await events_of(chats.Chat(request, wait_for_ready=True))
    assert again[-1].completed.turn == events[-1].completed.turn
    assert again[-1].completed.text == talk.told[-1][1]
    return 1


async def kill_in(served: ServerProcess, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await served.kill()
