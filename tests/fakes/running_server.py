"""The real server around a fake engine, in this process, on a socket of its own.

async with running_server(tmp_path) as served:
served.engine.will_say("Hello", " there")
events = await served.generate("Hi")
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from ixc.v1.chat_service_pb2 import ChatRequest
from ixc.v1.chat_service_pb2_grpc import ChatServiceStub
from ixc.v1.content_pb2 import Content, ContentList, ImagePart, Part, Prompt, Role
from ixc.v1.events_pb2 import GenerationEvent
from ixc.v1.generation_service_pb2 import GenerateRequest
from ixc.v1.generation_service_pb2_grpc import GenerationServiceStub
from ixc.v1.media_service_pb2_grpc import MediaServiceStub
from ixc.v1.model_service_pb2_grpc import ModelServiceStub
from ixc.v1.operation_service_pb2_grpc import OperationServiceStub
from ixc.v1.sampling_pb2 import OutputOptions
from ixc.v1.session_pb2 import Session
from ixc.v1.session_service_pb2 import CreateSessionRequest
from ixc.v1.session_service_pb2_grpc import SessionServiceStub
from ixc.v1.token_service_pb2_grpc import TokenServiceStub
from ixc.v1.weights_service_pb2_grpc import WeightsServiceStub
from ixc_service.limits import Limits
from ixc_service.server import Server, serving
from ixc_service.settings import Settings
from tests.fakes.fake_engine import FakeEngine, FakeStarter

PNG = b"\x89PNG\r\n\x1a\n and pixels"


@dataclass
class FakeClock:
    """Wall time stands still until a test moves it; intervals are real."""

    wall: float = 1_800_000_000.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


@dataclass
class Served:
    server: Server
    engine: FakeEngine
    clock: FakeClock
    channel: grpc.aio.Channel
    folder: Path
    starter: FakeStarter = field(default_factory=FakeStarter)

    def __post_init__(self) -> None:
        self.generations: Any = GenerationServiceStub(self.channel)
        self.chats: Any = ChatServiceStub(self.channel)
        self.sessions: Any = SessionServiceStub(self.channel)
        self.media: Any = MediaServiceStub(self.channel)
        self.tokens: Any = TokenServiceStub(self.channel)
        self.models: Any = ModelServiceStub(self.channel)
        self.weights: Any = WeightsServiceStub(self.channel)
        self.operations: Any = OperationServiceStub(self.channel)
        self.health: Any = HealthStub(self.channel)

    async def new_session(self, **fields: Any) -> str:
        """The name of a fresh session."""
        request = CreateSessionRequest(session=Session(**fields))
        return str((await self.sessions.CreateSession(request)).session.name)

    async def generate(self, text: str, **fields: Any) -> list[GenerationEvent]:
        return await events_of(self.generations.Generate(generate_request(text, **fields)))

    async def chat(self, session: str, text: str, **fields: Any) -> list[GenerationEvent]:
        return await events_of(self.chats.Chat(chat_request(session, text, **fields)))

    async def load(self, model_id: str, *, make_default: bool = False) -> None:
        await self.server.model_desk.load(
            model_id, make_default=make_default, on_loading=lambda loading: None
        )


@contextlib.asynccontextmanager
async def running_server(
    folder: Path,
    engine: FakeEngine | None = None,
    *,
    starter: FakeStarter | None = None,
    stop: asyncio.Event | None = None,
    listen: str | None = None,
    **changes: Any,
) -> AsyncIterator[Served]:
    """`changes` are fields of Settings or of Limits."""
    names = {item.name for item in dataclasses.fields(Limits)}
    limits = Limits(**{name: changes.pop(name) for name in list(changes) if name in names})
    settings = Settings(
        listen=(listen or f"unix:{folder}/ixc.sock",),
        **{"flush_interval_seconds": 0.0, **changes},
        limits=limits,
    )
    engine, clock = engine or FakeEngine(), FakeClock()
    starter = starter or FakeStarter()
    async with (
        serving(
            settings, engine, data_dir=folder / "data", start_engine=starter, stop=stop, clock=clock
        ) as server,
        grpc.aio.insecure_channel(server.addresses[0]) as channel,
    ):
        yield Served(server, engine, clock, channel, folder, starter)


# ---- requests


def text_prompt(text: str) -> Prompt:
    content = Content(role=Role.ROLE_USER, parts=[Part(text=text)])
    return Prompt(contents=ContentList(contents=[content]))


def generate_request(text: str, **fields: Any) -> GenerateRequest:
    return GenerateRequest(prompt=text_prompt(text), **_with_ids(fields))


def chat_request(session: str, text: str, *, image: bytes = b"", **fields: Any) -> ChatRequest:
    parts = [Part(image=ImagePart(inline_data=image))] if image else []
    message = Content(parts=[*parts, Part(text=text)])
    return ChatRequest(session=session, message=message, **_with_ids(fields))


def _with_ids(fields: dict[str, Any]) -> dict[str, Any]:
    return {"output": OutputOptions(token_ids=True), **fields}


# ---- answers


async def events_of(call: Any) -> list[GenerationEvent]:
    """What a stream still has, to its end; raises if that is an error."""
    events = []
    while (response := await call.read()) is not grpc.aio.EOF:
        events.append(response.event)
    return events


def kinds(events: Iterable[GenerationEvent]) -> list[str]:
    return [str(event.WhichOneof("event")) for event in events]


def text_of(events: Iterable[GenerationEvent]) -> str:
    return "".join(event.delta.text for event in events)


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            assert isinstance(value, bytes)
            return status_pb2.Status.FromString(value)
    raise AssertionError(f"no details with {error.code()}: {error.details()}")


def error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    assert status_of(error).details[0].Unpack(info)
    return info


def violations_of(error: grpc.aio.AioRpcError) -> set[str]:
    """The fields that BadRequest names."""
    bad = error_details_pb2.BadRequest()
    assert status_of(error).details[1].Unpack(bad)
    return {violation.field for violation in bad.field_violations}


@contextlib.contextmanager
def refused(reason: str, code: grpc.StatusCode) -> Any:
    """The RPC inside must end with this reason and code; yields a list that gets the error."""
    caught: list[grpc.aio.AioRpcError] = []
    try:
        yield caught
    except grpc.aio.AioRpcError as error:
        assert (error_info(error).reason, error.code()) == (reason, code)
        caught.append(error)
    else:
        raise AssertionError(f"was not refused with {reason}")
