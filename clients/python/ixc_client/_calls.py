"""Sending, the blocking way: one channel, unary calls with retries, streams with an idle limit
in either direction.

The asyncio twin is `_async_calls`. Everything they share stands elsewhere: which errors there are
in `_status`, how long to wait in `_settings`, what is said in `_requests`. No grpc type leaves
this module, neither as a value nor as an exception.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic

import grpc

from ixc_client import _channel
from ixc_client._errors import ClientClosed, IxcError, StreamIdle
from ixc_client._health import CHECK, Health, decode_response, encode_request
from ixc_client._idle import IdleWatch
from ixc_client._methods import Method, RequestT, ResponseT
from ixc_client._settings import Retries, Timeouts, Tls
from ixc_client._status import describe_failure, error_from_call, may_retry


class Calls:
    def __init__(
        self,
        address: str,
        *,
        timeouts: Timeouts,
        retries: Retries,
        tls: Tls | None,
        headers: Mapping[str, str],
    ) -> None:
        self.address = address
        self.timeouts = timeouts
        self.retries = retries
        self._metadata = _channel.headers_as_metadata(headers)
        options = list(_channel.OPTIONS)
        self._channel = (
            grpc.insecure_channel(address, options)
            if tls is None
            else grpc.secure_channel(address, _channel.credentials(tls), options)
        )
        self._idle = IdleWatch()
        self._closed = threading.Event()

    def close(self) -> None:
        if not self._closed.is_set():
            self._closed.set()
            self._channel.close()
            self._idle.close()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def unary(
        self,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        *,
        session: str = "",
        seconds: float | None = None,
    ) -> ResponseT:
        self._check_open()
        send = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        attempt = 0
        while True:
            attempt += 1
            try:
                return send(
                    request,
                    timeout=seconds or self.timeouts.unary,
                    metadata=_channel.metadata_of(self._metadata, session),
                )
            except grpc.RpcError as failed:
                error = describe_failure(error_from_call(failed), request, attempt)
                delay = self.retries.delay(attempt, error.retry_after_seconds)
                if delay is None or not (method.retry_safe and may_retry(error)):
                    raise error from failed
            self.pause(delay)

    def stream(
        self, method: Method[RequestT, ResponseT], request: RequestT, *, session: str = ""
    ) -> "ResponseStream[ResponseT]":
        """Starts a stream; nothing is retried here, since only the reader knows what it has."""
        self._check_open()
        start = self._channel.unary_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        call = start(request, metadata=_channel.metadata_of(self._metadata, session))
        return ResponseStream(call, request, self._idle, self.timeouts.idle)

    def upstream(self, method: Method[RequestT, ResponseT]) -> "RequestStream[RequestT, ResponseT]":
        """Starts a call of many messages and one answer; nothing is retried here."""
        self._check_open()
        start = self._channel.stream_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        return RequestStream(start, self._metadata, self.timeouts.idle)

    def pause(self, seconds: float) -> None:
        """Waits between two tries, not past the moment the client is closed."""
        if self._closed.wait(seconds):
            raise ClientClosed("the client was closed while it waited to try again")

    def health(self, service: str) -> Health:
        check = self._channel.unary_unary(
            CHECK, request_serializer=encode_request, response_deserializer=decode_response
        )
        try:
            return check(service, timeout=self.timeouts.unary, metadata=self._metadata)
        except grpc.RpcError as failed:
            raise error_from_call(failed) from failed

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise ClientClosed(f"the client of {self.address} is closed")


class ResponseStream(Iterator[ResponseT]):
    """The messages of one streaming call. Silence beyond the idle limit ends it with StreamIdle."""

    def __init__(self, call: Any, request: object, idle: IdleWatch, seconds: float) -> None:
        self._call = call
        self._request = request
        self._guard = idle.guard(seconds, call.cancel)
        self._started = False

    def __next__(self) -> ResponseT:
        try:
            with self._guard:
                response: ResponseT = next(self._call)
        except grpc.RpcError as failed:
            self.close()
            error: IxcError = error_from_call(failed, started=self._started)
            if self._guard.expired:
                error = StreamIdle(f"no event for {self._guard.seconds} s")
            raise describe_failure(error, self._request, 1) from failed
        except StopIteration:
            self.close()
            raise
        self._started = True
        return response

    def limit(self, seconds: float) -> None:
        """From now on waits no longer than this."""
        self._guard.shorten(seconds)

    def close(self) -> None:
        """Drops the call if it still runs. The server's disconnect policy decides what follows."""
        self._guard.close()
        self._call.cancel()


class RequestStream(Generic[RequestT, ResponseT]):
    """A call of many messages and one answer; a wait beyond the idle limit ends it with StreamIdle.

    grpc takes messages from an iterator, in a thread of its own: that thread waits here for the
    next `write`, and a `write` waits until the message before is on its way.
    """

    def __init__(
        self, start: Any, metadata: tuple[tuple[str, str], ...], idle_seconds: float
    ) -> None:
        self._idle_seconds = idle_seconds
        self._changed = threading.Condition()
        self._message: RequestT | None = None
        self._ended = False  # no message will follow
        self._answered = False
        self._call = start.future(self._messages(), metadata=metadata)
        self._call.add_done_callback(self._on_answer)

    def write(self, message: RequestT) -> bool:
        """False once the server has answered, which it may do at any time: no more is wanted."""
        with self._changed:
            self._message = message
            self._changed.notify_all()
            self._wait(lambda: self._message is None or self._answered)
            return not self._answered

    def finish(self) -> ResponseT:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            self._wait(lambda: self._answered)
        try:
            response: ResponseT = self._call.result()
        except grpc.RpcError as failed:
            raise error_from_call(failed, started=True) from failed
        return response

    def close(self) -> None:
        """Drops the call if it still runs, and lets grpc's thread go."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._call.cancel()

    def _messages(self) -> Iterator[RequestT]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._message is not None or self._ended)
                if self._message is None:
                    return
                message, self._message = self._message, None
                self._changed.notify_all()
            yield message

    def _on_answer(self, _: object) -> None:
        with self._changed:
            self._answered = True
            self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool]) -> None:
        if not self._changed.wait_for(condition, self._idle_seconds):
            self._call.cancel()
            raise StreamIdle(f"the server took nothing for {self._idle_seconds} s")
