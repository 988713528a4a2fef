"""Processes of ours that an event loop starts, waits for, and may kill at any time.

They are started by `subprocess`, which calls vfork: between that and the new program nothing of
this process runs. uvloop forks, and Python's and gRPC's handlers then run in the copy, where gRPC's
other threads are missing: one copy in six died of it, under load, before it had become the child.

A pidfd tells of the end, and kills: unlike a number it never means another process.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from socket import socket
from typing import IO


class Child:
    """Started at once, and known to the loop that runs then. To be waited for."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        stdin: int | socket = subprocess.DEVNULL,
        stdout: int | socket | None = None,
        stderr: int | IO[bytes] | None = None,
        pass_fds: Sequence[int] = (),
        cwd: str | None = None,
        start_new_session: bool = False,
    ) -> None:
        self._process = subprocess.Popen(
            command,
            env=env,
            stdin=_descriptor(stdin),
            stdout=_descriptor(stdout),
            stderr=stderr,
            pass_fds=pass_fds,
            cwd=cwd,
            start_new_session=start_new_session,
        )
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = loop.create_future()
        self._pidfd: int | None = os.pidfd_open(self._process.pid)
        loop.add_reader(self._pidfd, self._reap, self._pidfd)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None as long as it runs; -9 if signal 9 has ended it."""
        return self._ended.result() if self._ended.done() else None

    def kill(self) -> None:
        """At once, whatever it is doing; nothing happens to one that has ended."""
        if self._pidfd is not None:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    def _reap(self, pidfd: int) -> None:
        self._pidfd = None
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        self._ended.set_result(self._process.wait())


def _descriptor(stream: int | socket | None) -> int | None:
    return stream.fileno() if isinstance(stream, socket) else stream
