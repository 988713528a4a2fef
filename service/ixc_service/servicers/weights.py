# ruff: noqa: N802 - the contract names these methods
"""The part of WeightsService that takes its time: each call begins an operation and follows it."""

from collections.abc import Awaitable, Callable

from ixc.v1 import operation_pb2
from ixc.v1 import weights_service_pb2 as pb
from ixc_runtime.errors import RuntimeFault
from ixc_service.catalogue import Catalogue
from ixc_service.identifiers import model_id_of, new_id
from ixc_service.limits import Limits
from ixc_service.model_desk import ModelDesk
from ixc_service.moments import Clock
from ixc_service.operations.orders import Orders
from ixc_service.operations.queue import Operations
from ixc_service.operations.records import JobOrder, Kind, LoadOrder
from ixc_service.operations.streams import OperationStreams, Wrap
from ixc_service.servicers.served_models import ServedModelsServicer
from ixc_service.store import LOCAL_OWNER
from ixc_service.streams import Context, request_key
from ixc_service.translate.operations import new_operation, validated
from ixc_service.validate import weights as checks


class WeightsServicer(ServedModelsServicer):
    def __init__(
        self,
        desk: ModelDesk,
        catalogue: Catalogue,
        *,
        operations: Operations,
        orders: Orders,
        streams: OperationStreams,
        limits: Limits,
        clock: Clock,
    ) -> None:
        super().__init__(desk, catalogue)
        self._operations = operations
        self._orders = orders
        self._streams = streams
        self._limits = limits
        self._clock = clock

    # Coroutines that write, which the stub's types do not know; see GenerationServicer.
    async def MergeLora(self, request: pb.MergeLoraRequest, context: Context) -> None:  # type: ignore[override]
        checks.check_merge_lora(request)
        await self._do(
            request,
            Kind.MERGE_LORA,
            lambda operation_id: self._orders.merge_lora(request, operation_id),
            context,
            lambda event: pb.MergeLoraResponse(event=event),
        )

    async def Quantize(self, request: pb.QuantizeRequest, context: Context) -> None:  # type: ignore[override]
        checks.check_quantize(request, self._limits)
        await self._do(
            request,
            Kind.QUANTIZE,
            lambda operation_id: self._orders.quantize(LOCAL_OWNER, request, operation_id),
            context,
            lambda event: pb.QuantizeResponse(event=event),
        )

    async def LoadModel(self, request: pb.LoadModelRequest, context: Context) -> None:  # type: ignore[override]
        checks.check_load_model(request)
        key = request_key("LoadModel", request)
        order = LoadOrder(
            model_id=model_id_of(request.model) or "", make_default=request.make_default
        )
        if await self._operations.find_request(key) is None:
            self._orders.check_load(order)
        found, was_there = await self._operations.begin(
            key, owner=LOCAL_OWNER, kind=Kind.LOAD_MODEL, order=order
        )
        await self._streams.send(
            found,
            context,
            lambda event: pb.LoadModelResponse(event=event),
            is_deduplicated=was_there,
        )

    async def _do(
        self,
        request: pb.MergeLoraRequest | pb.QuantizeRequest,
        kind: Kind,
        make_order: Callable[[str], Awaitable[JobOrder]],
        context: Context,
        wrap: Wrap,
    ) -> None:
        key = None if request.validate_only else request_key(kind, request)
        if (earlier := await self._operations.find_request(key)) is not None:
            found = await self._operations.get(LOCAL_OWNER, earlier)
            await self._streams.send(found, context, wrap, is_deduplicated=True)
            return
        operation_id = new_id(self._clock.now())
        try:
            self._operations.check_claim(request.output_model_id)
            order = await make_order(operation_id)
        except BaseException:  # the caller may be gone, too
            await self._orders.forget(operation_id)
            raise
        if request.validate_only:
            await _send_validated(kind, order, context, wrap)
            return
        try:
            found, was_there = await self._operations.begin(
                key, owner=LOCAL_OWNER, kind=kind, order=order, operation_id=operation_id
            )
        except RuntimeFault:
            await self._orders.forget(operation_id)
            raise
        if was_there:
            await self._orders.forget(operation_id)
        await self._streams.send(found, context, wrap, is_deduplicated=was_there)


async def _send_validated(kind: Kind, order: JobOrder, context: Context, wrap: Wrap) -> None:
    spec = order.spec
    operation: operation_pb2.Operation = new_operation(kind, spec.source, spec.output)
    for event in validated(order.required_bytes, operation):
        await context.write(wrap(event))
