"""The front end's end of the socket: start an engine, send to it, hear from it.

The engine is a child process, or a thread of this one when it is embedded; both run the same
`serve` on the other end of the same kind of socket. Free of torch until an engine is embedded.
"""

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Callable

import msgspec

from ixc_runtime.child_process import Child
from ixc_runtime.engine_process.channel import LENGTH_BYTES, MAX_FRAME_BYTES, encode
from ixc_runtime.engine_process.messages import (
    EngineConfig,
    FromEngine,
    Loading,
    Ready,
    Shutdown,
    Start,
    StartFailed,
    ToEngine,
)
from ixc_runtime.errors import EngineLost, fault_from_reason

# What `python -m` runs as the engine; fault tests and benches put a synthetic one in its place.
ENGINE_MODULE = "ixc_runtime.engine_process.process"
_STOP_SECONDS = 10.0
# Some 16 GB of weights from a slow disk take minutes; a start that hangs must still come to an end.
_START_SECONDS = 900.0
_decoder: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)


class EngineLink:
    """One running engine. Made by `open_link`; ends with `close`, or when `receive` raises."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        engine: Child | threading.Thread,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._engine = engine

    @property
    def process_id(self) -> int | None:
        """Of the engine process; None when it is a thread of this one."""
        return None if isinstance(self._engine, threading.Thread) else self._engine.pid

    def send(self, message: ToEngine) -> None:
        """Never waits: what the socket does not take yet is kept."""
        self._writer.write(encode(message))

    async def receive(self) -> FromEngine:
        """The next message. Raises EngineLost when the engine has ended."""
        try:
            size = int.from_bytes(await self._reader.readexactly(LENGTH_BYTES), "big")
            if size > MAX_FRAME_BYTES:
                raise EngineLost(f"the engine sent a frame of {size} bytes")
            return _decoder.decode(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, OSError, msgspec.DecodeError) as error:
            raise EngineLost("the engine process has ended") from error

    def kill(self) -> None:
        """End the process at once, whatever it is doing. Not for a thread."""
        assert isinstance(self._engine, Child), "threads cannot be killed"
        self._engine.kill()

    async def close(self) -> None:
        """Ask the engine to stop, and see that it has."""
        if not self._writer.is_closing():
            self.send(Shutdown())
            self._writer.write_eof()
        await self._join()
        self._writer.close()

    async def abandon(self) -> None:
        """End an engine that never came to serve. A thread ends at its next word to us."""
        self._writer.close()
        if not isinstance(self._engine, threading.Thread):
            self.kill()
            await self._engine.wait()

    async def _join(self) -> None:
        if isinstance(self._engine, threading.Thread):
            await asyncio.to_thread(self._engine.join, _STOP_SECONDS)
            return
        try:
            await asyncio.wait_for(self._engine.wait(), _STOP_SECONDS)
        except TimeoutError:
            self.kill()
            await self._engine.wait()


async def open_link(
    config: EngineConfig,
    *,
    in_process: bool,
    on_loading: Callable[[Loading], None] = lambda loading: None,
) -> tuple[EngineLink, Ready]:
    """Start an engine and wait until it is ready. Raises the fault that kept it from starting.

    `on_loading` hears how far it is. Cancelled, or too late, an engine process is killed: one that
    loads listens to nobody.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    engine = _start_thread(theirs) if in_process else _start_process(theirs)
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    link = EngineLink(reader, writer, engine)
    link.send(Start(config))
    try:
        async with asyncio.timeout(_START_SECONDS):
            while isinstance(said := await link.receive(), Loading):
                on_loading(said)
        if isinstance(said, StartFailed):
            raise fault_from_reason(said.reason, said.message, said.metadata)
        assert isinstance(said, Ready), "an engine that has started says Ready or StartFailed"
    except TimeoutError:
        await link.abandon()
        raise EngineLost(f"the engine was not ready after {_START_SECONDS:g} s") from None
    except BaseException:
        await link.abandon()
        raise
    return link, said


def _start_thread(connection: socket.socket) -> threading.Thread:
    from ixc_runtime.engine_process.process import serve

    thread = threading.Thread(target=serve, args=(connection,), name="ixc-engine", daemon=True)
    thread.start()
    return thread


def _start_process(connection: socket.socket) -> Child:
    # The child finds our packages where we found them, installed or not.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with connection:
        descriptor = connection.fileno()
        command = (sys.executable, "-m", ENGINE_MODULE, str(descriptor))
        return Child(command, pass_fds=(descriptor,), env=environment)
