"""A gRPC client of a few microseconds a message, for measuring servers: many streams, one socket.

Speaks just enough HTTP/2: it asks, acknowledges settings and pings, opens its windows once and for
all, and cuts what comes into messages. Answers' headers are not decoded, so a stream's outcome is
told by its last message and by whether the server ended it or reset it.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import cast

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 0x1, 0x1, 0x4
_FRAME_HEADER = 9
_MESSAGE_HEADER = 5  # a byte for compression, four for the length
_INITIAL_WINDOW_SIZE = 4
_WIDEST = 2**31 - 1
_DEFAULT_WINDOW = 65_535

OnMessage = Callable[[int, bytes], None]


class Http2Reader(asyncio.Protocol):
    """`on_message(stream, message)` is called for each message of each stream.

    `stream_window` bounds what the server may send on a stream before we take it.
    """

    def __init__(self, on_message: OnMessage, *, stream_window: int = _WIDEST) -> None:
        self._on_message = on_message
        self._stream_window = stream_window
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._partial: dict[int, bytearray] = {}
        self._next_stream = 1
        self._open: set[int] = set()
        self.num_reset = 0
        self.all_ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's by interface only.
        self._transport = cast(asyncio.Transport, transport)
        setting = struct.pack("!HI", _INITIAL_WINDOW_SIZE, self._stream_window)
        whole = struct.pack("!I", _WIDEST - _DEFAULT_WINDOW)
        self._transport.write(
            _PREFACE + _frame(_SETTINGS, 0, 0, setting) + _frame(_WINDOW_UPDATE, 0, 0, whole)
        )

    def ask(self, path: str, message: bytes) -> int:
        """Opens a stream with one request message; returns its number."""
        assert self._transport is not None, "connected"
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._open.add(stream)
        self._partial[stream] = bytearray()
        headers = b"".join(
            _literal(name, value)
            for name, value in (
                (":method", "POST"),
                (":scheme", "http"),
                (":path", path),
                (":authority", "localhost"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
            )
        )
        body = b"\0" + len(message).to_bytes(4, "big") + message
        self._transport.write(
            _frame(_HEADERS, _END_HEADERS, stream, headers)
            + _frame(_DATA, _END_STREAM, stream, body)
        )
        return stream

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at, end = 0, len(buffer)
        while end - at >= _FRAME_HEADER:
            size = int.from_bytes(buffer[at : at + 3], "big")
            if end - at < _FRAME_HEADER + size:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            stream = int.from_bytes(buffer[at + 5 : at + 9], "big")
            at += _FRAME_HEADER
            self._take(kind, flags, stream, buffer[at : at + size])
            at += size
        del buffer[:at]

    def connection_lost(self, error: Exception | None) -> None:
        self.num_reset += len(self._open)
        self._open.clear()
        self.all_ended.set()

    def _take(self, kind: int, flags: int, stream: int, payload: bytearray) -> None:
        assert self._transport is not None, "connected"
        if kind == _DATA:
            self._take_data(stream, payload)
        elif kind == _SETTINGS and not flags & _ACK:
            self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, bytes(payload)))
        elif kind == _GOAWAY:
            self._transport.close()
        if kind == _RST_STREAM:
            self.num_reset += 1
        if kind == _RST_STREAM or (kind in {_DATA, _HEADERS} and flags & _END_STREAM):
            self._open.discard(stream)
            if not self._open:
                self.all_ended.set()

    def _take_data(self, stream: int, payload: bytearray) -> None:
        partial = self._partial[stream]
        partial += payload
        while len(partial) >= _MESSAGE_HEADER:
            size = int.from_bytes(partial[1:_MESSAGE_HEADER], "big")
            if len(partial) < _MESSAGE_HEADER + size:
                return
            message = bytes(partial[_MESSAGE_HEADER : _MESSAGE_HEADER + size])
            del partial[: _MESSAGE_HEADER + size]
            self._on_message(stream, message)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def _literal(name: str, value: str) -> bytes:
    """A header field without indexing and without Huffman coding."""
    raw = name.encode(), value.encode()
    assert all(len(part) < 127 for part in raw), "one byte of length is enough"
    return b"\0" + b"".join(bytes([len(part)]) + part for part in raw)
