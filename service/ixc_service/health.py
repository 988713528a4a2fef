# ruff: noqa: N802 - the contract names these methods
"""grpc.health.v1, with a Watch that pushes every change. One owner; each change has its reason.

""            the process takes calls at all
liveness      the process runs; never NOT_SERVING, for restarting would help nobody
readiness     new work would be accepted: the default model's engine is up
ixc.v1.…      as readiness if the service needs an engine, as "" if it does not
models/…      the same of one model that is loaded; unknown once it is not
"""

import asyncio
import logging

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthServicer

from ixc_service.log_events import emit
from ixc_service.models import Models
from ixc_service.streams import Context

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

_ALWAYS = ("liveness",)
_WHILE_OPEN = (
    "",
    "ixc.v1.SessionService",
    "ixc.v1.MediaService",
    "ixc.v1.TokenService",
    "ixc.v1.ModelService",
    "ixc.v1.WeightsService",
    "ixc.v1.OperationService",
)
_WITH_ENGINE = ("readiness", "ixc.v1.GenerationService", "ixc.v1.ChatService")
_log = logging.getLogger(__name__)


class Health(HealthServicer):
    def __init__(self, models: Models) -> None:
        self._models = models
        self._is_open = True
        self._is_stopped = False
        self._changed = asyncio.Event()
        models.on_change(self._publish)

    # ---- what others tell it

    def drain(self) -> None:
        """From now on; may be said again."""
        if self._is_open:
            self._is_open = False
            self._publish("the server drains")

    def end_watches(self) -> None:
        """Lets every Watch end, for the server waits for open streams before it stops."""
        self._is_stopped = True
        self._publish("the server stops")

    def _publish(self, reason: str) -> None:
        emit(_log, "health_changed", reason=reason, ready=self._is_serving("readiness"))
        self._changed.set()
        self._changed = asyncio.Event()

    # ---- what it answers

    def _is_serving(self, service: str) -> bool | None:
        if service in _ALWAYS:
            return True
        if service in _WHILE_OPEN:
            return self._is_open
        if service in _WITH_ENGINE:
            return self._is_open and self._models.default.engine.is_alive
        if (is_alive := self._models.liveness.get(service)) is not None:
            return self._is_open and is_alive
        return None

    def _response(self, service: str) -> health_pb2.HealthCheckResponse:
        serving = self._is_serving(service)
        if serving is None:
            return health_pb2.HealthCheckResponse(status=_SERVICE_UNKNOWN)
        return health_pb2.HealthCheckResponse(status=_SERVING if serving else _NOT_SERVING)

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        if self._is_serving(request.service) is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return self._response(request.service)

    async def List(
        self, request: health_pb2.HealthListRequest, context: Context
    ) -> health_pb2.HealthListResponse:
        services = (*_ALWAYS, *_WHILE_OPEN, *_WITH_ENGINE, *self._models.liveness)
        return health_pb2.HealthListResponse(
            statuses={service: self._response(service) for service in services}
        )

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        last = None
        while True:
            changed = self._changed
            response = self._response(request.service)
            if response != last:
                await context.write(response)
                last = response
            if self._is_stopped:
                return
            await changed.wait()
