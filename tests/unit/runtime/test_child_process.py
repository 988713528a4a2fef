"""Child processes: started without a fork of this one, waited for, killed."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable

import pytest
import uvloop

from ixc_runtime.child_process import Child

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
_forks: list[str] = []


def python(text: str, **options: object) -> Child:
    return Child((sys.executable, "-c", text), env={}, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("new_loop", LOOPS)
def test_nothing_of_this_process_runs_in_the_child(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """No handler of a fork is called: gRPC's crash where its other threads are missing."""
    if not _forks:  # there is no taking one back
        os.register_at_fork(before=lambda: _forks.append("forked"))
    _forks[:] = ["registered"]

    async def start() -> int:
        return await python("").wait()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(start()) == 0
    assert _forks == ["registered"]


@pytest.mark.parametrize("new_loop", LOOPS)
def test_its_end_is_told_to_everybody_who_waits(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Once it has ended, and not before."""

    async def scene() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            child = python("raise SystemExit(ord(input()))", stdin=theirs, stdout=theirs)
        _, writer = await asyncio.open_unix_connection(sock=ours)
        waiters = [asyncio.create_task(child.wait()) for _ in range(2)]
        waiters[0].cancel()  # which is nobody else's business
        assert child.returncode is None
        writer.write(b"\x07\n")
        assert await waiters[1] == 7
        assert await child.wait() == child.returncode
        writer.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scene())


async def test_a_kill_is_at_once_and_safe_to_repeat() -> None:
    """Also when it has ended, and its number may be another's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = python("input()", stdin=theirs)
        child.kill()
        child.kill()
        assert await child.wait() == -9
        child.kill()


async def test_a_program_that_is_not_there() -> None:
    """Is an error at the start, and leaves nothing to wait for."""
    with pytest.raises(FileNotFoundError):
        Child(("/nowhere",), env={})
