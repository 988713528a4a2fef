"""Length-prefixed msgpack over a stream socket, for the engine's side: blocking, one thread.

The front end reads the same frames through asyncio (link.py).
"""

import select
import socket

import msgspec

from ixc_runtime.engine_process.messages import FromEngine, ToEngine

LENGTH_BYTES = 4
# A prompt of 98,304 ids is some 500 kB; nothing we send comes near this.
MAX_FRAME_BYTES = 64 * 2**20

_encoder = msgspec.msgpack.Encoder()


def encode(message: ToEngine | FromEngine) -> bytes:
    body = _encoder.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


class ChannelClosed(Exception):
    """The other side is gone."""


class EngineChannel:
    """The engine's end. `receive` takes everything that has arrived."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._arrivals = select.poll()
        self._arrivals.register(connection, select.POLLIN)
        self._buffer = bytearray()
        self._decoder = msgspec.msgpack.Decoder(ToEngine)

    def send(self, message: FromEngine) -> None:
        try:
            self._connection.sendall(encode(message))
        except OSError as error:
            raise ChannelClosed from error

    def receive(self, *, wait: bool, at_most: float | None = None) -> list[ToEngine]:
        """Every complete message; with `wait`, at least one, unless `at_most` seconds pass."""
        messages = self._take_complete()
        while self._is_readable(block=wait and not messages, at_most=at_most):
            chunk = self._read()
            if not chunk:
                raise ChannelClosed
            self._buffer += chunk
            messages += self._take_complete()
        return messages

    def _is_readable(self, *, block: bool, at_most: float | None) -> bool:
        milliseconds = None if at_most is None else at_most * 1000
        return bool(self._arrivals.poll(milliseconds if block else 0))

    def _read(self) -> bytes:
        try:
            return self._connection.recv(1 << 20)
        except OSError as error:
            raise ChannelClosed from error

    def _take_complete(self) -> list[ToEngine]:
        messages: list[ToEngine] = []
        while len(self._buffer) >= LENGTH_BYTES:
            size = int.from_bytes(self._buffer[:LENGTH_BYTES], "big")
            if len(self._buffer) < LENGTH_BYTES + size:
                break
            body = bytes(self._buffer[LENGTH_BYTES : LENGTH_BYTES + size])
            del self._buffer[: LENGTH_BYTES + size]
            messages.append(self._decoder.decode(body))
        return messages
