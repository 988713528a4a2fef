"""One interceptor from one function: how a behaviour is wrapped, whatever is streamed.

Our streaming handlers are coroutines that write, so all shapes are `await behavior(request,
context)`; where the caller streams, `request` is an iterator of requests. Two-way streams
(reflection's) pass unchanged.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc.aio import ServerInterceptor

Behavior = Callable[[Any, Any], Awaitable[Any]]
Around = Callable[[str, Behavior], Behavior]  # (full method name, what it wraps)
Decode = Callable[[bytes], Any]


class Wrapping(ServerInterceptor):
    """`around_decode` wraps the request's deserializer where one is given."""

    def __init__(
        self, around: Around, around_decode: Callable[[Decode], Decode] = lambda decode: decode
    ) -> None:
        self._around = around
        self._around_decode = around_decode

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or (handler.request_streaming and handler.response_streaming):
            return handler
        method = handler_call_details.method
        serializers = {
            "request_deserializer": self._around_decode(handler.request_deserializer),
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            behavior = self._around(method, handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(behavior, **serializers)
        if handler.request_streaming:
            behavior = self._around(method, handler.stream_unary)
            return grpc.stream_unary_rpc_method_handler(behavior, **serializers)
        behavior = self._around(method, handler.unary_unary)
        return grpc.unary_unary_rpc_method_handler(behavior, **serializers)
