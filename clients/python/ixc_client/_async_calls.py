"""Sending, the asyncio way. The blocking twin is `_calls`, which says what is shared and where."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, Generic

import grpc
import grpc.aio

from ixc_client import _channel
from ixc_client._errors import ClientClosed, IxcError, StreamIdle
from ixc_client._health import CHECK, Health, decode_response, encode_request
from ixc_client._methods import Method, RequestT, ResponseT
from ixc_client._settings import Retries, Timeouts, Tls
from ixc_client._status import (
    describe_failure,
    error_from_call,
    is_of_a_lost_call,
    may_retry,
)


class AsyncCalls:
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
        self._tls = tls
        self._metadata = _channel.headers_as_metadata(headers)
        self._channel: grpc.aio.Channel | None = None
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close()

    @property
    def closed(self) -> bool:
        return self._closed

    async def unary(
        self,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        *,
        session: str = "",
        seconds: float | None = None,
    ) -> ResponseT:
        send: Any = self._open_channel().unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        attempt = 0
        while True:
            attempt += 1
            try:
                response: ResponseT = await send(
                    request,
                    timeout=seconds or self.timeouts.unary,
                    metadata=_channel.metadata_of(self._metadata, session),
                )
            except grpc.RpcError as failed:
                error = describe_failure(error_from_call(failed), request, attempt)
                delay = self.retries.delay(attempt, error.retry_after_seconds)
                if delay is None or not (method.retry_safe and may_retry(error)):
                    raise error from failed
            else:
                return response
            await self.pause(delay)

    def stream(
        self, method: Method[RequestT, ResponseT], request: RequestT, *, session: str = ""
    ) -> "AsyncResponseStream[ResponseT]":
        """Starts a stream; nothing is retried here, since only the reader knows what it has."""
        start: Any = self._open_channel().unary_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        call = start(request, metadata=_channel.metadata_of(self._metadata, session))
        return AsyncResponseStream(call, request, self.timeouts.idle)

    def upstream(
        self, method: Method[RequestT, ResponseT]
    ) -> "AsyncRequestStream[RequestT, ResponseT]":
        """Starts a call of many messages and one answer; nothing is retried here."""
        start: Any = self._open_channel().stream_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        return AsyncRequestStream(start(metadata=self._metadata), self.timeouts.idle)

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def health(self, service: str) -> Health:
        check: Any = self._open_channel().unary_unary(
            CHECK, request_serializer=encode_request, response_deserializer=decode_response
        )
        try:
            status: Health = await check(
                service, timeout=self.timeouts.unary, metadata=self._metadata
            )
        except grpc.RpcError as failed:
            raise error_from_call(failed) from failed
        return status

    def _open_channel(self) -> grpc.aio.Channel:
        """The channel, made at the first call: grpc binds it to the loop that then runs."""
        if self._closed:
            raise ClientClosed(f"the client of {self.address} is closed")
        if self._channel is None:
            options = list(_channel.OPTIONS)
            self._channel = (
                grpc.aio.insecure_channel(self.address, options)
                if self._tls is None
                else grpc.aio.secure_channel(self.address, _channel.credentials(self._tls), options)
            )
        return self._channel


class AsyncResponseStream(AsyncIterator[ResponseT]):
    """The messages of one streaming call. Silence beyond the idle limit ends it with StreamIdle."""

    def __init__(self, call: Any, request: object, seconds: float) -> None:
        self._call = call
        self._request = request
        self._seconds = seconds
        self._started = False
        self._dropped = False

    async def __anext__(self) -> ResponseT:
        try:
            async with asyncio.timeout(self._seconds):
                response: Any = await self._call.read()
        except grpc.RpcError as failed:
            error = error_from_call(failed, started=self._started)
            raise describe_failure(error, self._request, 1) from failed
        except asyncio.CancelledError:
            if self._dropped:  # by close(), not by whoever may cancel this task
                raise ClientClosed("the stream was closed while it was being read") from None
            raise
        except TimeoutError as silence:
            self.close()
            idle: IxcError = StreamIdle(f"no event for {self._seconds} s")
            raise describe_failure(idle, self._request, 1) from silence
        if response is grpc.aio.EOF:
            raise StopAsyncIteration
        self._started = True
        return response  # type: ignore[no-any-return]

    def limit(self, seconds: float) -> None:
        """From now on waits no longer than this."""
        self._seconds = min(seconds, self._seconds)

    def close(self) -> None:
        """Drops the call if it still runs. The server's disconnect policy decides what follows."""
        self._dropped = True
        self._call.cancel()


class AsyncRequestStream(Generic[RequestT, ResponseT]):
    """A call of many messages and one answer; a wait beyond the idle limit ends it with StreamIdle.

    The blocking twin says what the methods promise.
    """

    def __init__(self, call: Any, idle_seconds: float) -> None:
        self._call = call
        self._idle_seconds = idle_seconds
        self._first_status: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._keep_status)

    async def write(self, message: RequestT) -> bool:
        """False once the server has answered, which it may do at any time: no more is wanted."""
        try:
            async with asyncio.timeout(self._idle_seconds):
                await self._call.write(message)
        except TimeoutError as silence:
            raise self._idle() from silence
        except (grpc.RpcError, asyncio.InvalidStateError):
            return False  # `finish` knows what the answer is
        return True

    async def finish(self) -> ResponseT:
        try:
            async with asyncio.timeout(self._idle_seconds):
                if not self._call.done():
                    with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
                        await self._call.done_writing()
                response: ResponseT = await self._call
        except grpc.aio.AioRpcError as failed:
            raise error_from_call(self._true_status(failed), started=True) from failed
        except TimeoutError as silence:
            raise self._idle() from silence
        return response

    def close(self) -> None:
        """Drops the call if it still runs."""
        self._call.cancel()

    def _idle(self) -> IxcError:
        self._call.cancel()
        return StreamIdle(f"the server took nothing for {self._idle_seconds} s")

    # A write that fails because the server has answered makes grpc report INTERNAL, before or after
    # the answer's own status, and the later of the two replaces the earlier:
    # https://github.com/grpc/grpc/issues/36066

    def _keep_status(self, call: Any) -> None:
        """Called in the moment that a status is known for the first time."""
        self._first_status = grpc.aio.AioRpcError(
            code=_known(call.code()),
            trailing_metadata=_known(call.trailing_metadata()),
            details=_known(call.details()),
        )

    def _true_status(self, last: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        first = self._first_status
        if first is None or first.code() is grpc.StatusCode.OK or is_of_a_lost_call(first):
            return last
        return first


def _known(result: Coroutine[Any, Any, Any]) -> Any:
    """What a call that is over answers without waiting."""
    try:
        result.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a call that is over has nothing to wait for")
