"""The asyncio side of a job's process: start it, hear from it, stop it. Free of torch."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable

import msgspec

from ixc_runtime.child_process import Child
from ixc_runtime.errors import JobCancelled, WorkerLost, fault_from_reason
from ixc_runtime.jobs.messages import (
    LENGTH_BYTES,
    MAX_FRAME_BYTES,
    Begin,
    Cancel,
    Done,
    Failed,
    FromJob,
    JobEvent,
    JobResult,
    JobSpec,
    ToJob,
    encode,
)

# What `python -m` runs as the job; tests put other work in its place.
WORKER_MODULE = "ixc_runtime.jobs.worker"
# A cancel is noticed between two tensors; one that takes longer is cut short.
_CANCEL_SECONDS = 3.0
_decoder: msgspec.msgpack.Decoder[FromJob] = msgspec.msgpack.Decoder(FromJob)


class JobProcess:
    """One attempt at a job."""

    def __init__(self, spec: JobSpec) -> None:
        self._spec = spec
        self._process: Child | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._is_cancelled = False

    @property
    def process_id(self) -> int | None:
        return self._process.pid if self._process else None

    async def run(self, hear: Callable[[JobEvent], None]) -> JobResult:
        """Raises the job's own fault, JobCancelled, or WorkerLost if the process died.

        The process has ended when this returns or raises, also when it is cancelled.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            self._process = _start(theirs)
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self._send(Begin(self._spec))
        if self._is_cancelled:
            self._send(Cancel())
        try:
            return await self._listen(reader, hear)
        finally:
            self._writer.close()
            self._kill()
            await asyncio.shield(self._process.wait())

    async def _listen(
        self, reader: asyncio.StreamReader, hear: Callable[[JobEvent], None]
    ) -> JobResult:
        while True:
            try:
                message = await _next(reader)
            except (asyncio.IncompleteReadError, OSError, msgspec.DecodeError) as error:
                if self._is_cancelled:
                    raise JobCancelled("the job was cancelled") from error
                raise WorkerLost("the job's process has died") from error
            match message:
                case Done(result=result):
                    return result
                case Failed():
                    raise fault_from_reason(message.reason, message.message, message.metadata)
                case event:
                    hear(event)

    def cancel(self) -> None:
        """Asks it to stop, and sees to it that it does. May be called at any time."""
        if self._is_cancelled:
            return
        self._is_cancelled = True
        if self._writer is not None and not self._writer.is_closing():
            self._send(Cancel())
        asyncio.get_running_loop().call_later(_CANCEL_SECONDS, self._kill)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _send(self, message: ToJob) -> None:
        assert self._writer is not None, "there is somebody to send to"
        self._writer.write(encode(message))


async def _next(reader: asyncio.StreamReader) -> FromJob:
    size = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
    if size > MAX_FRAME_BYTES:
        raise OSError(f"a frame of {size} bytes")
    return _decoder.decode(await reader.readexactly(size))


def _start(connection: socket.socket) -> Child:
    # The child finds our packages where we found them, installed or not.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    descriptor = connection.fileno()
    command = (sys.executable, "-m", WORKER_MODULE, str(descriptor))
    return Child(command, pass_fds=(descriptor,), env=environment)
