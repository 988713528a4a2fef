"""Bytes that are no message are the caller's fault, not ours.

gRPC answers INTERNAL when a deserializer raises, which proxies take for a sick server. So decoding
never raises: what cannot be read reaches the behaviour as Malformed, and is refused there.
"""

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.message import DecodeError

from ixc_service.errors import RequestInvalid, Violation
from ixc_service.interceptors.wrapping import Behavior, Decode, Wrapping


class _Malformed:
    """In place of a request that could not be decoded."""


def decoding() -> Wrapping:
    return Wrapping(_refusing, _lenient)


def _lenient(decode: Decode) -> Decode:
    def lenient(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError:
            return _Malformed()

    return lenient


def _refusing(method: str, behavior: Behavior) -> Behavior:
    async def wrapped(request: Any, context: Any) -> Any:
        if isinstance(request, AsyncIterator):
            return await behavior(_each_readable(method, request), context)
        return await behavior(_readable(method, request), context)

    return wrapped


async def _each_readable(method: str, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _readable(method, request)


def _readable(method: str, request: Any) -> Any:
    if isinstance(request, _Malformed):
        name = method.rpartition("/")[2]
        description = f"the bytes are no message that {name} takes"
        raise RequestInvalid((Violation(field="", rule="MALFORMED", description=description),))
    return request
