"""Answers as they come: deltas, progress, cancel, breaks."""

import gc
import threading
import weakref

import pytest

import ixc_client
from ixc_client import Delta, FinishReason, Retries, Timeouts
from ixc_client.testing import FakeServer


def test_deltas_add_up_to_the_answer(server: FakeServer, ixc: ixc_client.Client) -> None:
    """Exactly, and the answer is there once the stream has ended."""
    server.reply("A ", "black ", "cat.")
    with ixc.stream("What?") as stream:
        texts = [delta.text for delta in stream]
    assert texts == ["A ", "black ", "cat."]
    assert stream.text == stream.answer.text == "A black cat."


def test_events_show_progress_too(server: FakeServer, ixc: ixc_client.Client) -> None:
    """In the contract's order."""
    server.reply("Hi")
    kinds = [type(event).__name__ for event in ixc.stream("x").events()]
    assert kinds == ["Accepted", "PromptProcessed", "Delta", "Completed"]


def test_nothing_is_sent_before_the_stream_is_read(
    server: FakeServer, ixc: ixc_client.Client
) -> None:
    """Making a stream costs nothing."""
    with ixc.stream("x"):
        pass
    assert server.calls == []


def test_the_answer_is_not_there_before_the_end(server: FakeServer, ixc: ixc_client.Client) -> None:
    """Asking for it too early is the caller's mistake, and says so."""
    server.reply("a", "b")
    with ixc.stream("x") as stream:
        next(stream)
        with pytest.raises(ixc_client.UsageError, match="not finished"):
            _ = stream.answer
        assert stream.read().text == "ab"


def test_cancel_ends_the_stream_with_what_there_is(
    server: FakeServer, ixc: ixc_client.Client
) -> None:
    """A stop is a normal end, not an error."""
    server.reply("Once ", "upon ", hold=True)
    with ixc.stream("a story") as stream:
        for delta in stream:
            if delta.text == "upon ":
                stream.cancel()
    assert stream.answer.finish_reason is FinishReason.CANCELLED
    assert stream.text == "Once upon "


def test_cancel_before_anything_came_works_too(server: FakeServer, ixc: ixc_client.Client) -> None:
    """It is told to the server as soon as the generation has a name."""
    server.reply("x", hold=True)
    stream = ixc.stream("x")
    stream.cancel()
    assert stream.read().finish_reason is FinishReason.CANCELLED


def test_cancel_from_another_thread(server: FakeServer, ixc: ixc_client.Client) -> None:
    """The stop button is pressed while somebody waits for the next word."""
    server.reply("x", hold=True)
    with ixc.stream("x") as stream:
        next(stream)
        button = threading.Thread(target=stream.cancel)
        button.start()
        assert stream.read().finish_reason is FinishReason.CANCELLED
        button.join()


def test_leaving_a_stream_early_stops_the_generation(
    server: FakeServer, ixc: ixc_client.Client
) -> None:
    """An answer nobody reads costs nothing."""
    server.reply("a", "b", hold=True)
    with ixc.stream("x") as stream:
        next(stream)
    assert ixc.get_generation(stream.generation).state is ixc_client.GenerationState.CANCELLED
    with pytest.raises(ixc_client.ClientClosed):
        next(stream)


def test_a_stream_can_be_read_on_after_an_interruption(
    server: FakeServer, ixc: ixc_client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while waiting loses nothing: a watch goes on from the last event."""
    server.reply("a", "b")
    stream = ixc.stream("x")
    assert next(stream).text == "a"
    with monkeypatch.context() as patch:
        patch.setattr(type(stream._responses), "__next__", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            next(stream)
    assert [delta.text for delta in stream] == ["b"]
    assert [call.method for call in server.calls] == ["Generate", "WatchGeneration"]


def _interrupt(_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("events", range(5))
def test_a_broken_stream_goes_on_where_it_broke(
    server: FakeServer, ixc: ixc_client.Client, events: int
) -> None:
    """Nothing lost, nothing doubled, wherever the connection breaks."""
    server.reply("a", "b", "c", break_after=events)
    with ixc.stream("x") as stream:
        assert [delta.text for delta in stream] == ["a", "b", "c"]
    assert stream.answer.text == "abc"
    again = "Generate" if events == 0 else "WatchGeneration"
    assert [call.method for call in server.calls] == ["Generate", again]


def test_a_stream_sent_anew_keeps_its_request_id(
    server: FakeServer, ixc: ixc_client.Client
) -> None:
    """So that the server attaches instead of running it twice."""
    server.reply("a", break_after=0)
    assert ixc.stream("x").read().deduplicated
    first, second = (call.request.request_id for call in server.calls)
    assert first == second


def test_a_truncated_stream_goes_on(server: FakeServer, ixc: ixc_client.Client) -> None:
    """An end without a terminal event is no end."""
    server.reply("a", "b", truncate_after=3)
    assert ixc.stream("x").read().text == "ab"


def test_a_truncated_stream_is_an_error_without_retries(server: FakeServer) -> None:
    """Half an answer is never taken for a whole one."""
    server.reply("a", "b", truncate_after=3)
    with server.client(retries=Retries(attempts=1)) as ixc, ixc.stream("x") as stream:
        assert next(stream).text == "a"
        with pytest.raises(ixc_client.TruncatedStream) as caught:
            next(stream)
    assert caught.value.generation == stream.generation
    assert caught.value.retryable


def test_a_lost_connection_is_an_error_without_retries(server: FakeServer) -> None:
    """Told apart from a server that was never there."""
    server.reply("a", "b", break_after=3)
    with (
        server.client(retries=Retries(attempts=1)) as ixc,
        pytest.raises(ixc_client.ConnectionLost),
    ):
        ixc.stream("x").read()


def test_a_failed_event_is_raised_as_its_status(server: FakeServer, ixc: ixc_client.Client) -> None:
    """And is not tried again by itself: the server has decided."""
    server.reply("a", fail_with="ENGINE_LOST")
    with pytest.raises(ixc_client.EngineLost) as caught:
        ixc.stream("x").read()
    assert caught.value.code == "UNAVAILABLE"
    assert caught.value.generation == "generations/fake-1"
    assert [call.method for call in server.calls] == ["Generate"]


def test_the_error_stays_when_the_stream_is_read_again(
    server: FakeServer, ixc: ixc_client.Client
) -> None:
    """A failed stream never looks like a finished one."""
    server.reply("a", fail_with="ENGINE_LOST")
    stream = ixc.stream("x")
    for _ in range(2):
        with pytest.raises(ixc_client.EngineLost):
            stream.read()


def test_a_silent_stream_ends_after_the_idle_timeout(server: FakeServer) -> None:
    """Never waits for ever, and does not mistake silence for an end."""
    server.reply("a", hold=True)
    with (
        server.client(timeouts=Timeouts(idle=0.1)) as ixc,
        ixc.stream("x") as stream,
    ):
        assert next(stream).text == "a"
        with pytest.raises(ixc_client.StreamIdle, match=r"0\.1 s"):
            next(stream)


def test_a_slow_reader_is_not_an_idle_stream(server: FakeServer) -> None:
    """Silence counts only while somebody waits."""
    server.reply("a", "b")
    with server.client(timeouts=Timeouts(idle=0.05)) as ixc, ixc.stream("x") as stream:
        next(stream)
        threading.Event().wait(0.15)  # the time itself is what is tested
        assert next(stream).text == "b"


def test_watch_follows_from_a_cursor(server: FakeServer, ixc: ixc_client.Client) -> None:
    """A second reader sees the same events, from wherever it wants."""
    server.reply("a", "b")
    answer = ixc.stream("x").read()
    assert ixc.watch(answer.generation).read().text == "ab"
    assert [delta.text for delta in ixc.watch(answer.generation, after_sequence=3)] == ["b"]


def test_leaving_a_watch_does_not_stop_the_generation(
    server: FakeServer, ixc: ixc_client.Client
) -> None:
    """Who only watches did not begin it."""
    server.reply("a", hold=True)
    with ixc.stream("x") as stream:
        next(stream)
        with ixc.watch(stream.generation) as watcher:
            assert isinstance(next(watcher), Delta)
        server.release()
        assert stream.read().finish_reason is FinishReason.STOP


def test_cancel_by_name(server: FakeServer, ixc: ixc_client.Client) -> None:
    """From anywhere, and too late is no error."""
    server.reply("a", hold=True)
    with ixc.stream("x") as stream:
        next(stream)
        info = ixc.cancel(stream.generation.removeprefix("generations/"))
        assert info.state is ixc_client.GenerationState.CANCELLED
        assert stream.read().finish_reason is FinishReason.CANCELLED


def test_watching_what_never_was(ixc: ixc_client.Client) -> None:
    """A typed error with the name."""
    with pytest.raises(ixc_client.GenerationNotFound):
        ixc.watch("nothing").read()


def test_a_stream_that_is_dropped_ends_its_call(server: FakeServer, ixc: ixc_client.Client) -> None:
    """Without a block nobody closes it; the server's policy for lost readers takes over."""
    server.reply("a", hold=True)
    stream = ixc.stream("x")
    next(stream)
    responses = weakref.ref(stream._responses)
    del stream
    gc.collect()
    assert responses() is None
