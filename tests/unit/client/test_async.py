"""The asyncio client: the same promises, where waiting is done differently."""

import asyncio
from collections.abc import AsyncIterator

import pytest

import ixc_client
from ixc_client import AsyncClient, FinishReason, GenerationState, Retries, Timeouts
from ixc_client.testing import FakeServer
from tests.unit.client.conftest import EAGER


@pytest.fixture
async def aixc(server: FakeServer) -> AsyncIterator[AsyncClient]:
    async with server.async_client(retries=EAGER) as client:
        yield client


async def test_a_conversation(server: FakeServer, aixc: AsyncClient) -> None:
    """Streamed and whole, forked, rewound, listed, gone."""
    server.reply("A ", "cat.")
    async with aixc.session(labels={"a": "b"}) as chat:
        texts = [delta.text async for delta in chat.stream("What?", images=b"cat")]
        assert texts == ["A ", "cat."]
        assert (await chat.say("Its colour?")).usage.cached_tokens > 0
        assert (await chat.count("x")).total_tokens > 1
        fork = await chat.fork(at_turn=1)
        assert [turn.index async for turn in fork.turns()] == [1]
        assert (await chat.rewind(0)).turn_count == 0
        assert (await chat.update(ttl=60)).ttl == 60
        names = {info.name async for info in aixc.list_sessions()}
        assert names == {chat.name, fork.name}
    with pytest.raises(ixc_client.SessionNotFound):
        await aixc.get_session(chat.name)


async def test_a_stream_needs_a_session_that_is_there(aixc: AsyncClient) -> None:
    """Creating one takes an await, which `stream` has none of."""
    chat = aixc.session()
    with pytest.raises(ixc_client.UsageError, match="open"):
        chat.stream("x")
    assert (await chat.say("x")).turn_index == 1
    assert (await chat.stream("y").read()).turn_index == 2


async def test_a_list_of_prompts(aixc: AsyncClient) -> None:
    """In order, a few at a time."""
    answers = await aixc.generate(["a", "b", "c"], concurrency=2)
    assert [answer.text for answer in answers] == ["You said: a", "You said: b", "You said: c"]


async def test_a_failure_in_a_list_stops_the_rest(server: FakeServer, aixc: AsyncClient) -> None:
    """As the blocking client does."""
    server.reply("never", hold=True)
    server.fail("INVALID_ARGUMENT", "PROMPT_EMPTY", method="Generate")
    with pytest.raises(ixc_client.PromptEmpty):
        await aixc.generate(["first", "second"])
    states = {info.state async for info in aixc.list_generations()}
    assert states <= {GenerationState.CANCELLED}


async def test_cancel_and_events(server: FakeServer, aixc: AsyncClient) -> None:
    """A stop is a normal end."""
    server.reply("a", hold=True)
    kinds = []
    async with aixc.stream("x") as stream:
        async for event in stream.events():
            kinds.append(type(event).__name__)
            if kinds[-1] == "Delta":
                await stream.cancel()
    assert kinds == ["Accepted", "PromptProcessed", "Delta", "Completed"]
    assert stream.answer.finish_reason is FinishReason.CANCELLED


async def test_cancelling_the_task_stops_the_generation(
    server: FakeServer, aixc: AsyncClient
) -> None:
    """Structured concurrency reaches the server."""
    server.reply("a", hold=True)
    started = asyncio.Event()

    async def read() -> None:
        async with aixc.stream("x") as stream:
            async for _ in stream:
                started.set()

    task = asyncio.create_task(read())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    info = await aixc.get_generation("fake-1")
    assert info.state is GenerationState.CANCELLED


@pytest.mark.parametrize("events", range(5))
async def test_a_broken_stream_goes_on_where_it_broke(
    server: FakeServer, aixc: AsyncClient, events: int
) -> None:
    """Nothing lost, nothing doubled."""
    server.reply("a", "b", "c", break_after=events)
    assert [delta.text async for delta in aixc.stream("x")] == ["a", "b", "c"]


async def test_truncated_and_idle_streams_are_typed_errors(server: FakeServer) -> None:
    """As with the blocking client."""
    server.reply("a", truncate_after=3)
    async with server.async_client(retries=Retries(attempts=1)) as aixc:
        with pytest.raises(ixc_client.TruncatedStream):
            await aixc.stream("x").read()
    server.reply("a", hold=True)
    async with server.async_client(timeouts=Timeouts(idle=0.1)) as aixc:
        with pytest.raises(ixc_client.StreamIdle):
            await aixc.stream("x").read()


async def test_errors_are_typed_and_retries_made(server: FakeServer, aixc: AsyncClient) -> None:
    """By the same table and the same rules."""
    server.fail("UNAVAILABLE", method="GetLoad")
    assert (await aixc.load()).state == "serving"
    server.fail("OUT_OF_RANGE", "CONTEXT_OVERFLOW", metadata={"contextLimit": "1"})
    with pytest.raises(ixc_client.ContextOverflow) as caught:
        await aixc.generate("x")
    assert caught.value.metadata == {"contextLimit": "1"}


async def test_the_rest_of_the_surface(aixc: AsyncClient) -> None:
    """Tokens, models, server."""
    assert await aixc.tokenize("a") == [97]
    assert await aixc.detokenize([97]) == "a"
    assert (await aixc.count("abc")).total_tokens == 3
    assert (await aixc.model()).name == "models/fake"
    assert [model.name async for model in aixc.list_models()] == ["models/fake"]
    assert (await aixc.server_info()).instance == "fake"
    assert await aixc.is_ready()
    answer = await aixc.generate("x")
    assert (await aixc.watch(answer.generation).read()).text == answer.text
    assert (await aixc.cancel(answer.generation)).state is GenerationState.COMPLETED
    await aixc.delete_session("none")


async def test_a_closed_client_says_so(server: FakeServer) -> None:
    """Also one that was never used."""
    aixc = server.async_client()
    await aixc.close()
    with pytest.raises(ixc_client.ClientClosed):
        await aixc.load()
