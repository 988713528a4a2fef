"""The one place where all parts meet: engine, stores, streams, services, interceptors, health.

    async with serving(settings, engine, data_dir=folder) as server:
        print(server.addresses)

serves in this process, on whatever addresses the settings name, for as long as the context lasts.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib import metadata
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2_grpc

from ixc.v1 import (
    chat_service_pb2_grpc,
    generation_service_pb2_grpc,
    media_service_pb2_grpc,
    model_service_pb2_grpc,
    operation_service_pb2_grpc,
    session_service_pb2_grpc,
    token_service_pb2_grpc,
    weights_service_pb2_grpc,
)
from ixc_service.delivery import Pace
from ixc_service.engine_port import EnginePort
from ixc_service.generations import Generations
from ixc_service.health import Health
from ixc_service.housekeeping import Housekeeping
from ixc_service.identifiers import new_id
from ixc_service.interceptors.access_log import access_log
from ixc_service.interceptors.decoding import decoding
from ixc_service.interceptors.drain_gate import DrainGate
from ixc_service.interceptors.errors import errors
from ixc_service.interceptors.wrapping import Wrapping
from ixc_service.jobs import Desk
from ixc_service.media_library import MediaLibrary
from ixc_service.media_store import MediaStore
from ixc_service.model_desk import ModelDesk, StartEngine, start_nothing
from ixc_service.model_setup import ModelSetup, open_models
from ixc_service.moments import Clock, SystemClock
from ixc_service.operations.setup import OperationSetup, open_operations
from ixc_service.reflection import add_reflection
from ixc_service.seats import Seats
from ixc_service.servicers.chat import ChatServicer
from ixc_service.servicers.generation import GenerationServicer
from ixc_service.servicers.media import MediaServicer
from ixc_service.servicers.models import ModelServicer
from ixc_service.servicers.operations import OperationServicer
from ixc_service.servicers.sessions import SessionServicer
from ixc_service.servicers.tokens import TokenServicer
from ixc_service.servicers.weights import WeightsServicer
from ixc_service.settings import Settings, SettingsError
from ixc_service.status import FaultDesk
from ixc_service.store import Database, MediaRecords, SessionStore
from ixc_service.streams import Streams
from ixc_service.translate.resources import capabilities, server_info
from ixc_service.uploads import Uploads

SERVICES = (
    "ixc.v1.GenerationService",
    "ixc.v1.ChatService",
    "ixc.v1.SessionService",
    "ixc.v1.MediaService",
    "ixc.v1.TokenService",
    "ixc.v1.ModelService",
    "ixc.v1.WeightsService",
    "ixc.v1.OperationService",
    "grpc.health.v1.Health",
)
_STOP_SECONDS = 10.0


def server_options(settings: Settings) -> list[tuple[str, int]]:
    """Why each: a wrong key is ignored in silence, so tests ask the running server."""
    limits = settings.limits
    return [
        ("grpc.max_receive_message_length", limits.max_message_bytes),
        ("grpc.max_send_message_length", limits.max_message_bytes),
        ("grpc.max_metadata_size", limits.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", limits.max_metadata_bytes),
        ("grpc.max_concurrent_streams", limits.max_concurrent_streams),
        # Clients may ping a silent stream every 10 s, and are not cut off for more.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 0),
        # We ping them too: a half-open connection is noticed within 40 s.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Connections move on now and then, which spreads them; streams can be resumed.
        ("grpc.max_connection_age_ms", 1_800_000),
        ("grpc.max_connection_age_grace_ms", 600_000),
        # A second server on the same port is a mistake, not a partner.
        ("grpc.so_reuseport", 0),
    ]


class Server:
    """A server that takes calls; made by `serving`."""

    def __init__(
        self,
        grpc_server: grpc.aio.Server,
        addresses: tuple[str, ...],
        instance: str,
        *,
        health: Health,
        gate: DrainGate,
        generations: Generations,
        housekeeping: Housekeeping,
        library: MediaLibrary,
        model_desk: ModelDesk,
        uploads: Uploads,
        long_work: OperationSetup,
        clock: Clock,
    ) -> None:
        self.addresses = addresses
        self.instance = instance
        self.health = health
        self.generations = generations
        self.housekeeping = housekeeping
        self.media_library = library
        self.model_desk = model_desk
        self.long_work = long_work
        self._uploads = uploads
        self._grpc_server = grpc_server
        self._gate = gate
        self._clock = clock
        self._is_stopped = False

    def announce_drain(self, grace_seconds: float) -> None:
        """Health says so, and open streams are told how long they have; new work still goes."""
        self.health.drain()
        deadline = self._clock.monotonic() + grace_seconds
        self.generations.announce_drain(deadline)
        self.long_work.operations.announce_drain(deadline)

    def refuse_new_work(self, grace_seconds: float) -> None:
        """From here on only what runs is finished."""
        self._gate.is_closed = True
        self.announce_drain(grace_seconds)

    async def stop(self, grace_seconds: float, *, hurry: asyncio.Event | None = None) -> None:
        """Lets running generations end for so long, or until `hurry` is set, then fails the rest
        and closes.
        """
        if self._is_stopped:
            return
        self._is_stopped = True
        self.refuse_new_work(grace_seconds)
        await self.generations.finish_all(grace_seconds, hurry or asyncio.Event())
        await self.long_work.operations.close()
        self._uploads.closing.set()
        self.health.end_watches()
        await self._grpc_server.stop(_STOP_SECONDS)


@contextlib.asynccontextmanager
async def serving(
    settings: Settings,
    engine: EnginePort,
    *,
    data_dir: Path,
    start_engine: StartEngine = start_nothing,
    stop: asyncio.Event | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Server]:
    """Serves `engine` as the default model until the context ends, and what is loaded meanwhile.

    `stop` cuts the loading of further models at the start short. Closes every engine at the end,
    `engine` too.
    """
    clock = clock or SystemClock()
    stop = stop or asyncio.Event()
    async with open_models(settings, engine, start_engine, data_dir, stop=stop) as setup:
        database = await Database.open(data_dir / "sessions.sqlite3")
        try:
            server = await _compose(settings, setup, database, data_dir, clock)
            await server.long_work.resume()
            await server.housekeeping.sweep()
            async with server.housekeeping.running():
                await server._grpc_server.start()
                _make_private(server.addresses)
                try:
                    yield server
                finally:
                    await server.stop(0.0)
                    await server.media_library.close()
        finally:
            await database.close()


async def _compose(
    settings: Settings, setup: ModelSetup, database: Database, data_dir: Path, clock: Clock
) -> Server:
    limits, models = settings.limits, setup.models
    instance = settings.instance or new_id(clock.now())
    faults = FaultDesk(instance, clock)
    gate, health = DrainGate(), Health(models)
    generations = Generations(
        clock=clock, limits=limits, faults=faults, retained_bytes=settings.retained_bytes
    )
    store = SessionStore(database, max_sessions=limits.max_sessions)
    records = MediaRecords(
        database, max_media=limits.max_media, max_media_bytes=limits.max_media_bytes
    )
    media = MediaStore(data_dir / "media")
    library = MediaLibrary(records, media, models, clock=clock, faults=faults)
    uploads = Uploads(data_dir / ".uploads", records, media, clock=clock, limits=limits)
    desk = Desk(
        store=store,
        media=media,
        media_library=library,
        seats=Seats(store.in_use),
        clock=clock,
        limits=limits,
        models=models,
    )
    streams = Streams(
        generations,
        clock=clock,
        pace=Pace(
            heartbeat_seconds=limits.heartbeat_interval_seconds,
            slow_reader_seconds=limits.slow_consumer_timeout_seconds,
        ),
        instance=instance,
    )
    long_work = await open_operations(
        settings,
        setup,
        database,
        media,
        library,
        data_dir=data_dir,
        clock=clock,
        faults=faults,
        instance=instance,
    )
    info = server_info(
        version=_version(),
        instance=instance,
        start_time=clock.now(),
        limits=limits,
        model=models.default.info,
        plan=models.default.engine.plan,
        features=capabilities(
            models.default.info,
            reuses_prefixes=settings.prefix_cache,
            has_models_root=settings.models_root is not None,
            has_adapters_root=settings.adapters_root is not None,
        ),
    )
    grpc_server = grpc.aio.server(
        interceptors=(
            Wrapping(access_log(clock)),
            Wrapping(errors(faults)),
            Wrapping(gate.around),
            decoding(),
        ),
        options=server_options(settings),
    )
    flush = settings.flush_interval_seconds
    generation_service_pb2_grpc.add_GenerationServiceServicer_to_server(
        GenerationServicer(generations, streams, desk=desk, flush_seconds=flush), grpc_server
    )
    chat_service_pb2_grpc.add_ChatServiceServicer_to_server(
        ChatServicer(desk, streams, flush_seconds=flush), grpc_server
    )
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(
        SessionServicer(desk, generations), grpc_server
    )
    media_service_pb2_grpc.add_MediaServiceServicer_to_server(
        MediaServicer(desk, uploads), grpc_server
    )
    token_service_pb2_grpc.add_TokenServiceServicer_to_server(TokenServicer(desk), grpc_server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(
        ModelServicer(setup.catalogue, generations, desk, info), grpc_server
    )
    weights_service_pb2_grpc.add_WeightsServiceServicer_to_server(
        WeightsServicer(
            setup.desk,
            setup.catalogue,
            operations=long_work.operations,
            orders=long_work.orders,
            streams=long_work.streams,
            limits=limits,
            clock=clock,
        ),
        grpc_server,
    )
    operation_service_pb2_grpc.add_OperationServiceServicer_to_server(
        OperationServicer(
            long_work.operations, long_work.streams, describe=long_work.describe, limits=limits
        ),
        grpc_server,
    )
    health_pb2_grpc.add_HealthServicer_to_server(health, grpc_server)  # type: ignore[no-untyped-call]
    if settings.reflection:
        add_reflection(grpc_server, SERVICES)
    return Server(
        grpc_server,
        _bind(grpc_server, settings.listen),
        instance,
        health=health,
        gate=gate,
        generations=generations,
        housekeeping=Housekeeping(
            generations,
            store=store,
            records=records,
            media=media,
            library=library,
            uploads=uploads,
            operations=long_work.operations,
            clock=clock,
            faults=faults,
            media_ttl_seconds=settings.media_ttl_seconds,
        ),
        library=library,
        model_desk=setup.desk,
        uploads=uploads,
        long_work=long_work,
        clock=clock,
    )


def _version() -> str:
    try:
        return metadata.version("ixc")
    except metadata.PackageNotFoundError:  # run from a source tree
        return "source"


def _bind(grpc_server: grpc.aio.Server, addresses: tuple[str, ...]) -> tuple[str, ...]:
    """The addresses as bound: port 0 has become a real one."""
    bound = []
    for address in addresses:
        try:
            port = grpc_server.add_insecure_port(address)
        except RuntimeError as error:
            raise SettingsError(f"listen: cannot bind {address}; is it in use?") from error
        is_path = address.startswith("unix:")
        bound.append(address if is_path else f"{address.rpartition(':')[0]}:{port}")
    return tuple(bound)


def _make_private(addresses: tuple[str, ...]) -> None:
    """Sockets in the file system are for their owner alone."""
    for address in addresses:
        if address.startswith("unix:"):
            Path(address.removeprefix("unix:")).chmod(0o600)
