"""A TCP proxy that cuts connections: what a train in a tunnel does to a stream.

async with TcpProxy("unix:/path/to/server.sock") as proxy:
proxy.cut_after(1000)                     # the next connection lives for 1,000 bytes
client = AsyncClient(proxy.address)
"""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 16 * 1024
# Closing with this set sends a reset instead of a polite end.
_NO_LINGER = struct.pack("ii", 1, 0)


class TcpProxy:
    """Each new connection takes the next lifetime, counted in bytes of both directions."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._lifetimes: deque[int] = deque()
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.num_cut = 0
        self.address = ""

    def cut_after(self, *num_bytes: int) -> None:
        """How long the connections to come live; those beyond are left whole."""
        self._lifetimes.extend(num_bytes)

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._listener is not None, "entered"
        self._listener.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio runs this in a task"
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        left = [self._lifetimes.popleft() if self._lifetimes else None]
        try:
            far_reader, far_writer = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        pumps = [
            asyncio.create_task(_pump(reader, far_writer, left)),
            asyncio.create_task(_pump(far_reader, writer, left)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if left[0] == 0:
                self.num_cut += 1
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in (writer, far_writer):
                _reset(end)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._target.startswith("unix:"):
            return await asyncio.open_unix_connection(self._target.removeprefix("unix:"))
        host, _, port = self._target.rpartition(":")
        return await asyncio.open_connection(host, int(port))


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: list[int | None]
) -> None:
    """Passes bytes on until there are no more, or the connection's life is used up."""
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK_BYTES):
            if left[0] is not None:
                data = data[: left[0]]
                left[0] -= len(data)
            writer.write(data)
            await writer.drain()
            if left[0] == 0:
                return


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()
