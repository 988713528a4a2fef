"""A server that was restarted within an answer: the same request goes out again, under its id."""

import pytest

import ixc_client
from ixc_client import Retries
from ixc_client.testing import FakeServer


def requests_of(server: FakeServer) -> list[tuple[str, str]]:
    """What was asked for, and under which id."""
    return [
        (call.method, call.request.request_id)
        for call in server.calls
        if call.method in {"Generate", "Chat"}
    ]


def test_nothing_of_the_answer_was_read(server: FakeServer, ixc: ixc_client.Client) -> None:
    """Whoever waits for the whole answer gets a whole one, and never knows."""
    server.reply("It was ", "a cat.", hold=True)
    server.reply("A ", "dog.")
    stream = ixc.stream("What?")
    for event in stream.events():
        if isinstance(event, ixc_client.PromptProcessed):
            break
    server.restart()
    assert stream.read().text == "A dog."
    (first, again) = requests_of(server)
    assert first == again
    assert stream.generation == stream.answer.generation


def test_a_turn_that_was_committed(server: FakeServer, ixc: ixc_client.Client) -> None:
    """It is told once more, and asked for once: the reader gets what was missing."""
    with ixc.session(keep=True) as chat:
        server.reply("A ", "black ", "cat.", break_after=3)
        stream = chat.stream("What?")
        assert next(stream).text == "A "
        commit(server, stream)
        server.restart()
        assert [delta.text for delta in stream] == ["black ", "cat."]
        assert stream.answer.deduplicated
        assert [turn.assistant.text for turn in chat.turns()] == ["A black cat."]


def commit(server: FakeServer, stream: ixc_client.AnswerStream) -> None:
    """Another reader hears the end first."""
    with server.client() as other:
        other.watch(stream.generation).read()


def test_an_answer_that_comes_out_alike(server: FakeServer, ixc: ixc_client.Client) -> None:
    """As with temperature 0: cut otherwise, but what was read is not read again."""
    server.reply("A bl", "ack ", hold=True)
    server.reply("A ", "black c", "at.")
    stream = ixc.stream("What?")
    assert [next(stream).text for _ in range(2)] == ["A bl", "ack "]
    server.restart()
    assert [delta.text for delta in stream] == ["c", "at."]
    assert stream.text == stream.answer.text == "A black cat."


def test_token_ids_are_not_doubled_either(server: FakeServer, ixc: ixc_client.Client) -> None:
    """One for each character, in a delta that is cut in two."""
    server.reply("abc", hold=True)
    server.reply("abcde")
    stream = ixc.stream("x", output=ixc_client.Output(token_ids=True))
    first = next(stream)
    server.restart()
    rest = stream.__next__()
    assert (rest.text, rest.token_ids, rest.token_count) == ("de", (100, 101), 2)
    assert stream.read().token_ids == first.token_ids + rest.token_ids


@pytest.mark.parametrize("second", [("Some ", "dog."), ("A",)])
def test_an_answer_that_comes_out_otherwise(
    server: FakeServer, ixc: ixc_client.Client, second: tuple[str, ...]
) -> None:
    """AnswerLost for whoever has read the other; the new one is stopped, and no turn of it kept."""
    with ixc.session(keep=True) as chat:
        server.reply("A ", "black ", hold=True)
        server.reply(*second, hold=second == ("Some ", "dog."))
        stream = chat.stream("What?")
        assert [next(stream).text for _ in range(2)] == ["A ", "black "]
        server.restart()
        with pytest.raises(ixc_client.AnswerLost):
            next(stream)
        assert "CancelGeneration" in [call.method for call in server.calls]


def test_without_retries_it_is_told(server: FakeServer) -> None:
    """Retries(attempts=1) never sends anything twice."""
    server.reply("A ", hold=True)
    with server.client(retries=Retries(attempts=1)) as ixc:
        stream = ixc.stream("What?")
        next(stream)
        server.restart()
        with pytest.raises(ixc_client.ConnectionFailed):
            next(stream)


def test_a_watched_answer_has_no_request(server: FakeServer, ixc: ixc_client.Client) -> None:
    """Whoever only watches cannot ask again."""
    server.reply("A ", hold=True)
    stream = ixc.stream("What?")
    next(stream)
    watched = ixc.watch(stream.generation)
    next(watched)
    server.restart()
    with pytest.raises(ixc_client.GenerationNotFound):
        next(watched)


def test_a_wish_to_stop_outlives_the_restart(server: FakeServer, ixc: ixc_client.Client) -> None:
    """The new generation is told too."""
    server.reply("A ", hold=True)
    server.reply("A ", "cat", hold=True)
    stream = ixc.stream("What?")
    next(stream)
    server.restart()
    stream.cancel()
    assert stream.read().finish_reason is ixc_client.FinishReason.CANCELLED


async def test_the_same_with_asyncio(server: FakeServer) -> None:
    """The logic is one."""
    server.reply("A ", "bl", hold=True)
    server.reply("A ", "black ", "cat.")
    async with server.async_client() as ixc:
        stream = ixc.stream("What?")
        assert [(await anext(stream)).text for _ in range(2)] == ["A ", "bl"]
        server.restart()
        assert [delta.text async for delta in stream] == ["ack ", "cat."]
