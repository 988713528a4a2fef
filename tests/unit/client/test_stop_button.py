"""A question that is taken back while its pictures are still on their way."""

import asyncio
import threading
from collections.abc import Callable

import ixc_client
from ixc_client import FinishReason
from ixc_client.testing import FakeServer

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(4 << 20)  # more than goes inside a request


def test_while_the_upload_hangs(server: FakeServer, ixc: ixc_client.Client) -> None:
    """At once, from another thread; the question is never asked."""
    server.hang(method="UploadMedia")
    stream = ixc.stream("What?", images=PICTURE)
    button = threading.Thread(target=lambda: (until_called(server), stream.cancel()))
    button.start()
    answer = stream.read()
    button.join()
    assert (answer.finish_reason, answer.text) == (FinishReason.CANCELLED, "")
    assert {call.method for call in server.calls} == {"GetServerInfo", "UploadMedia"}


def test_before_it_begins(server: FakeServer, ixc: ixc_client.Client) -> None:
    """Nothing is sent at all."""
    stream = ixc.stream("What?", images=PICTURE)
    stream.cancel()
    assert stream.read().finish_reason is FinishReason.CANCELLED
    assert server.calls == []


def test_while_somebody_else_uploads_the_same(server: FakeServer, ixc: ixc_client.Client) -> None:
    """Who waits for another's upload need not wait for its end; the other goes on."""
    server.hang(method="UploadMedia")
    first, second = (ixc.stream("What?", images=PICTURE) for _ in range(2))
    threads = [threading.Thread(target=first.read)]
    threads[0].start()
    until_called(server)
    threads.append(threading.Thread(target=second.cancel))
    threads[1].start()
    assert second.read().finish_reason is FinishReason.CANCELLED
    assert threads[0].is_alive()
    first.cancel()
    for thread in threads:
        thread.join()


async def test_with_asyncio(server: FakeServer) -> None:
    """The same by any task; a reader that is itself cancelled leaves no upload behind."""
    server.hang(method="UploadMedia")
    server.hang(method="UploadMedia")
    async with server.async_client() as ixc:
        stream = ixc.stream("What?", images=PICTURE)
        reading = asyncio.create_task(stream.read())
        await asyncio.to_thread(until_called, server)
        await stream.cancel()
        assert (await reading).finish_reason is FinishReason.CANCELLED

        another = asyncio.create_task(ixc.stream("What?", images=PICTURE).read())
        await asyncio.to_thread(until, lambda: uploads_of(server) == 2)
        another.cancel()
        await asyncio.wait({another})
        assert another.cancelled()
        assert len(asyncio.all_tasks()) == 1
    assert "Generate" not in {call.method for call in server.calls}


def until_called(server: FakeServer) -> None:
    until(lambda: uploads_of(server) > 0)


def uploads_of(server: FakeServer) -> int:
    return [call.method for call in server.calls].count("UploadMedia")


def until(condition: Callable[[], bool]) -> None:
    """The server's threads tell nobody of what has come."""
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it did not come")
