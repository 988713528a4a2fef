"""Faults become statuses: the only place where a handler's exception meets gRPC."""

import asyncio
from typing import Any

from grpc.aio import AbortError

from ixc_service.interceptors.wrapping import Around, Behavior
from ixc_service.status import TABLE, FaultDesk, status_of, trailers


def errors(faults: FaultDesk) -> Around:
    def around(method: str, behavior: Behavior) -> Behavior:
        async def wrapped(request: Any, context: Any) -> Any:
            try:
                return await behavior(request, context)
            except (AbortError, asyncio.CancelledError):
                raise
            except Exception as error:
                fault = faults.presentable(error, during=method)
                status = status_of(fault)
                await context.abort(
                    TABLE[fault.reason].code, status.message, trailers(fault, status)
                )

        return wrapped

    return around
