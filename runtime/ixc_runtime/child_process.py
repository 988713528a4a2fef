"""Killing a child that an event loop waits for, without taking the news of its end from the loop.

asyncio's `Process.kill` looks first whether the child has ended, and that look collects the exit
status: the loop's own watcher then waits for a process that nobody knows. A pidfd collects nothing,
and never means another process that has been given the same number since.
"""

import contextlib
import os
import signal
from asyncio.subprocess import Process


class Leash:
    """Taken right after the start; let go once the child has been waited for."""

    def __init__(self, process: Process) -> None:
        self._descriptor: int | None = None
        with contextlib.suppress(ProcessLookupError):  # it ended before we came
            self._descriptor = os.pidfd_open(process.pid)

    def kill(self) -> None:
        """At once, whatever it is doing; nothing happens to one that has ended."""
        if self._descriptor is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
