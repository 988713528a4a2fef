"""One event for each RPC: method, code, time taken. No addresses, no contents."""

import asyncio
import logging
from typing import Any

import grpc

from ixc_service.interceptors.wrapping import Around, Behavior
from ixc_service.log_events import emit
from ixc_service.moments import Clock

_log = logging.getLogger(__name__)
_PROBES = "/grpc.health.v1.Health/"


def access_log(clock: Clock) -> Around:
    def around(method: str, behavior: Behavior) -> Behavior:
        level = logging.DEBUG if method.startswith(_PROBES) else logging.INFO

        async def wrapped(request: Any, context: Any) -> Any:
            began = clock.monotonic()
            code = grpc.StatusCode.UNKNOWN
            try:
                response = await behavior(request, context)
                code = grpc.StatusCode.OK
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED
                raise
            except BaseException:
                code = context.code() or code
                raise
            finally:
                taken = clock.monotonic() - began
                name = getattr(code, "name", str(code))
                emit(_log, "rpc", level=level, method=method, code=name, seconds=round(taken, 4))
            return response

        return wrapped

    return around
