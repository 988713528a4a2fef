"""One media worker as the front end holds it: a child process and the socket to it.

Knows how a worker is started, asked and ended; what becomes of a job whose worker is lost is the
pool's business.
"""

import asyncio
import os
import socket
import subprocess
import sys

import msgspec

from ixc_runtime.child_process import Child
from ixc_runtime.media.jobs import (
    HEADER_BYTES,
    Job,
    Outcome,
    WorkerLimits,
    body_length,
    outcome_decoder,
    to_frame,
)

_SIGNS_OF_LOSS = (
    OSError,
    asyncio.IncompleteReadError,
    ValueError,
    msgspec.MsgspecError,
    RuntimeError,  # uvloop's word for a connection that has been closed
)


class WorkerLostError(Exception):
    """The process ended, or said something that is not an answer."""


class WorkerProcess:
    """One process, which has the other end of a socket as its standard input and output."""

    def __init__(
        self, process: Child, outcomes: asyncio.StreamReader, jobs: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._outcomes = outcomes
        self._jobs = jobs
        self.num_jobs = 0

    @classmethod
    async def spawn(cls) -> "WorkerProcess":
        # The same modules as here, and nothing else of our environment: no secret to leak.
        environment = {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "LC_ALL": "C.UTF-8",
            # decord appends to this one on loading, and loads NumPy, whose algebra would reserve
            # memory for as many threads as there are processors.
            "PATH": "",
            "OPENBLAS_NUM_THREADS": "1",
        }
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            process = Child(
                (sys.executable, "-P", "-s", "-m", "ixc_runtime.media.worker"),
                stdin=theirs,
                stdout=theirs,
                stderr=subprocess.DEVNULL,
                env=environment,
                cwd="/",
                start_new_session=True,  # an interrupt at the terminal is for the server to handle
            )
        return cls(process, *await asyncio.open_unix_connection(sock=ours))

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    async def ask(self, message: WorkerLimits | Job) -> Outcome:
        try:
            self._jobs.write(to_frame(message))
            await self._jobs.drain()
            header = await self._outcomes.readexactly(HEADER_BYTES)
            body = await self._outcomes.readexactly(body_length(header))
            return outcome_decoder.decode(body)
        except _SIGNS_OF_LOSS as error:
            raise WorkerLostError from error

    def kill(self) -> None:
        """At once and safe to repeat; `gone` waits for the end."""
        self._process.kill()

    async def gone(self) -> None:
        self.kill()
        self._jobs.close()
        await self._process.wait()
