# ruff: noqa: N802 - the contract names these methods
"""OperationService: long work followed, listed, stopped and forgotten."""

import logging

from ixc.v1 import operation_pb2
from ixc.v1 import operation_service_pb2 as pb
from ixc.v1.operation_service_pb2_grpc import OperationServiceServicer
from ixc_service.identifiers import id_of
from ixc_service.limits import Limits
from ixc_service.log_events import emit
from ixc_service.operations.queue import Operations
from ixc_service.operations.records import OperationRecord
from ixc_service.operations.streams import OperationStreams
from ixc_service.paging import decode_token, encode_token, page_size
from ixc_service.store import LOCAL_OWNER
from ixc_service.streams import Context
from ixc_service.translate import operations as messages
from ixc_service.validate import weights as checks

_log = logging.getLogger(__name__)


class OperationServicer(OperationServiceServicer):
    def __init__(
        self,
        operations: Operations,
        streams: OperationStreams,
        *,
        describe: messages.Describe,
        limits: Limits,
    ) -> None:
        self._operations = operations
        self._streams = streams
        self._describe = describe
        self._limits = limits

    async def WatchOperation(  # type: ignore[override]
        self, request: pb.WatchOperationRequest, context: Context
    ) -> None:
        checks.check_watch_operation(request)
        await self._streams.send(
            await self._operations.get(LOCAL_OWNER, _id(request.name)),
            context,
            lambda event: pb.WatchOperationResponse(event=event),
            after_sequence=request.after_sequence,
        )

    async def GetOperation(
        self, request: pb.GetOperationRequest, context: Context
    ) -> pb.GetOperationResponse:
        checks.check_operation_name(request.name)
        found = await self._operations.get(LOCAL_OWNER, _id(request.name))
        return pb.GetOperationResponse(operation=await self._message(found.record))

    async def ListOperations(
        self, request: pb.ListOperationsRequest, context: Context
    ) -> pb.ListOperationsResponse:
        checks.check_list_operations(request)
        kinds, states = messages.kinds(request.kinds), messages.states(request.states)
        identity = ("operations", tuple(sorted(kinds)), tuple(sorted(states)))
        before = decode_token(request.page_token, str, *identity)
        size = page_size(request.page_size, self._limits.max_page_size)
        records = await self._operations.page(
            LOCAL_OWNER, before, size + 1, kinds=kinds, states=states
        )
        more = len(records) > size
        return pb.ListOperationsResponse(
            operations=[await self._message(record) for record in records[:size]],
            next_page_token=encode_token(records[size - 1].operation_id, *identity) if more else "",
        )

    async def CancelOperation(
        self, request: pb.CancelOperationRequest, context: Context
    ) -> pb.CancelOperationResponse:
        checks.check_operation_name(request.name, reason=request.reason)
        operation_id = _id(request.name)
        emit(_log, "cancel_asked", operation=operation_id, has_reason=bool(request.reason))
        found = await self._operations.cancel(LOCAL_OWNER, operation_id)
        return pb.CancelOperationResponse(operation=await self._message(found.record))

    async def DeleteOperation(
        self, request: pb.DeleteOperationRequest, context: Context
    ) -> pb.DeleteOperationResponse:
        checks.check_operation_name(request.name)
        await self._operations.delete(
            LOCAL_OWNER, _id(request.name), allow_missing=request.allow_missing
        )
        return pb.DeleteOperationResponse()

    async def _message(self, record: OperationRecord) -> operation_pb2.Operation:
        return await messages.operation_message(
            record,
            describe=self._describe,
            retention_seconds=self._limits.operation_retention_seconds,
        )


def _id(name: str) -> str:
    return id_of(name, "operations") or ""
