"""From settings to the operations of a server: their store, their work, their streams."""

import os
from dataclasses import dataclass
from pathlib import Path

from ixc.v1 import model_pb2
from ixc_service.delivery import Pace
from ixc_service.errors import ModelNotFound
from ixc_service.identifiers import model_name
from ixc_service.media_library import MediaLibrary
from ixc_service.media_store import MediaStore
from ixc_service.model_setup import ModelSetup, outside_models
from ixc_service.moments import Clock
from ixc_service.operations.orders import JobSettings, Orders
from ixc_service.operations.queue import Operations
from ixc_service.operations.records import JobOrder, Order
from ixc_service.operations.streams import OperationStreams
from ixc_service.operations.work import JobWork, LoadWork, Work
from ixc_service.settings import Settings
from ixc_service.status import FaultDesk
from ixc_service.store import Database
from ixc_service.store.operations import OperationStore
from ixc_service.translate.operations import Describe

# The least that the scheduler can give: a job takes the cores that answers leave.
_NICENESS = 19


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationSetup:
    operations: Operations
    orders: Orders
    streams: OperationStreams
    describe: Describe

    async def resume(self) -> None:
        """Takes up what an earlier server has left; once, before any call is taken."""
        not_done = await self.operations.resume()
        await self.orders.clear(not_done)


async def open_operations(
    settings: Settings,
    setup: ModelSetup,
    database: Database,
    media: MediaStore,
    library: MediaLibrary,
    *,
    data_dir: Path,
    clock: Clock,
    faults: FaultDesk,
    instance: str,
) -> OperationSetup:
    limits, root = settings.limits, setup.models_root
    store = OperationStore(database)
    orders = Orders(
        root=root,
        adapters_root=settings.adapters_root.expanduser() if settings.adapters_root else None,
        outside=outside_models(settings),
        models=setup.models,
        media=media,
        library=library,
        folder=data_dir / "operations",
        owner=await store.identity(),
        job=JobSettings(
            device=settings.job_device,
            threads=settings.job_threads or max(1, (os.cpu_count() or 2) // 2),
            niceness=_NICENESS,
        ),
    )

    def make_work(operation_id: str, order: Order) -> Work:
        if isinstance(order, JobOrder):
            return JobWork(order.spec, orders.folder_of(operation_id))
        return LoadWork(order, setup.desk.load, clock)

    async def describe(model_id: str) -> model_pb2.Model | None:
        try:
            return await setup.catalogue.get(model_name(model_id))
        except ModelNotFound:
            return None

    operations = Operations(
        store,
        make_work=make_work,
        models_root=root.path if root else None,
        clock=clock,
        limits=limits,
        faults=faults,
    )
    streams = OperationStreams(
        operations,
        describe=describe,
        clock=clock,
        pace=Pace(
            heartbeat_seconds=limits.heartbeat_interval_seconds,
            slow_reader_seconds=limits.slow_consumer_timeout_seconds,
        ),
        instance=instance,
        retention_seconds=limits.operation_retention_seconds,
    )
    return OperationSetup(operations=operations, orders=orders, streams=streams, describe=describe)
