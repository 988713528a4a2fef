"""Two real models, each with an engine process of its own, behind one server."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from ixc.v1 import model_pb2
from ixc.v1 import weights_service_pb2 as pb
from ixc.v1.content_pb2 import Prompt, TokenPrompt
from ixc.v1.generation_service_pb2 import GenerateRequest
from ixc.v1.generation_service_pb2_grpc import GenerationServiceStub
from ixc.v1.sampling_pb2 import OutputOptions, SamplingParams
from ixc.v1.weights_service_pb2_grpc import WeightsServiceStub
from ixc_runtime import Engine, EngineConfig, Loading, LoadingStage
from ixc_runtime.errors import AdapterInvalid
from ixc_service.server import Server, serving
from ixc_service.settings import Settings
from tests.fakes.running_server import events_of, refused
from tests.fakes.tiny_checkpoint import TinyModel, write_tiny_checkpoint
from tests.fakes.tiny_peft import TinyAdapter, write_tiny_adapter
from tests.fakes.tiny_tokenizer import write_tokenizer_model

pytestmark = pytest.mark.asyncio(loop_scope="module")

ONE = TinyModel(vocab=1000, max_positions=1024, seed=1)
TWO = TinyModel(vocab=1000, max_positions=1024, seed=2)
CODE = grpc.StatusCode
STAGES = [stage.value for stage in LoadingStage]


@dataclass
class Running:
    server: Server
    channel: grpc.aio.Channel
    engines: dict[str, Engine]

    def __post_init__(self) -> None:
        self.generations: Any = GenerationServiceStub(self.channel)
        self.weights: Any = WeightsServiceStub(self.channel)

    async def load(self, model_id: str, *, make_default: bool = False) -> list[Any]:
        """The operation's events, to its end."""
        wish = pb.LoadModelRequest(model=f"models/{model_id}", make_default=make_default)
        events = await events_of(self.weights.LoadModel(wish))
        assert events[-1].completed.load_model.model.state == model_pb2.MODEL_STATE_LOADED
        return events

    async def unload(self, model_id: str) -> None:
        await self.weights.UnloadModel(pb.UnloadModelRequest(name=f"models/{model_id}"))

    async def answer(self, model: str = "", *, adapter: str = "", length: int = 12) -> list[int]:
        call = self.generations.Generate(request(model, adapter=adapter, length=length))
        return ids_of(await events_of(call))


def request(model: str = "", *, adapter: str = "", length: int = 12) -> GenerateRequest:
    return GenerateRequest(
        model=model and f"models/{model}",
        prompt=Prompt(tokens=TokenPrompt(token_ids=range(5, 45))),
        adapter=adapter,
        sampling=SamplingParams(temperature=0.0, max_output_tokens=length, ignore_eos=True),
        output=OutputOptions(token_ids=True),
    )


def ids_of(events: list[Any]) -> list[int]:
    return [token_id for event in events for token_id in event.delta.token_ids]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """`one` is the default, `two` and `adapters/stripes` lie in the roots."""
    folder = tmp_path_factory.mktemp("served")
    for name, model in (("one", ONE), ("two", TWO)):
        write_tiny_checkpoint(folder / "models" / name, model)
        write_tokenizer_model(folder / "models" / name, vocab_size=1000)
    write_tiny_adapter(folder / "adapters" / "stripes", TinyAdapter(model=ONE))
    misfit = TinyAdapter(model=TinyModel(hidden=32))
    write_tiny_adapter(folder / "adapters" / "misfit", misfit)
    engines: dict[str, Engine] = {}

    async def start(model: Path, model_id: str, on_loading: Callable[[Loading], None]) -> Engine:
        config = EngineConfig(model=str(model), name=model_id, kv_bytes=4_000_000, threads=1)
        engines[model_id] = await Engine.start(config, on_loading=on_loading)
        return engines[model_id]

    default = await start(folder / "models" / "one", "one", lambda loading: None)
    settings = Settings(
        listen=(f"unix:{folder}/ixc.sock",),
        models_root=folder / "models",
        adapters_root=folder / "adapters",
    )
    async with (
        serving(settings, default, data_dir=folder / "data", start_engine=start) as server,
        grpc.aio.insecure_channel(server.addresses[0]) as channel,
    ):
        yield Running(server, channel, engines)


async def test_two_models_at_once(running: Running) -> None:
    """Each gives, beside the other, what it gives alone; their answers differ."""
    alone = await running.answer()
    steps = [event.progress for event in await running.load("two") if event.HasField("progress")]
    stages = [step.stage for step in steps]
    assert stages == sorted(stages, key=STAGES.index)
    assert {"weights", "cache"} <= set(stages)
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions) and 0 < fractions[-1] <= 1
    two = await running.answer("two")
    together = await asyncio.gather(
        *(running.answer(name) for name in ("one", "two", "one", "two"))
    )
    assert together == [alone, two, alone, two]
    assert alone != two


async def test_replaced_while_it_answers(running: Running) -> None:
    """An answer under way comes out as if nothing had happened; the next is the new model's."""
    expected = await running.answer("one", length=300)
    await running.load("two")
    two = await running.answer("two")
    call = running.generations.Generate(request(length=300))
    events = [(await call.read()).event for _ in range(3)]
    await running.load("two", make_default=True)
    await running.unload("one")
    assert await running.answer() == two
    events += await events_of(call)
    assert ids_of(events) == expected
    await running.unload("one")  # nothing runs on it now: it is gone when this returns
    await running.load("one", make_default=True)
    assert await running.answer(length=300) == expected


async def test_one_engine_dies(running: Running) -> None:
    """Its answers are lost, the other's are not; it comes back by itself."""
    await running.load("two")
    expected = await running.answer(length=300)
    two = await running.answer("two")
    engine = running.engines["two"]
    back = asyncio.Event()
    engine.on_change(lambda is_alive: is_alive and back.set())
    unharmed = asyncio.create_task(running.answer(length=300))
    doomed = running.generations.Generate(request("two", length=900))
    await doomed.read()
    assert engine.process_id is not None
    os.kill(engine.process_id, signal.SIGKILL)
    with refused("ENGINE_LOST", CODE.UNAVAILABLE):
        await events_of(doomed)
    assert await unharmed == expected
    await asyncio.wait_for(back.wait(), 60)
    assert await running.answer("two") == two


async def test_an_adapter_through_the_whole_server(running: Running) -> None:
    """Loaded by name, asked for by name, and refused with the reason where it does not fit."""
    plain = await running.answer("one")
    stripes = pb.LoadAdapterRequest(model="models/one", adapter="adapters/stripes")
    await running.weights.LoadAdapter(stripes)
    assert await running.answer("one", adapter="stripes") != plain
    assert await running.answer("one") == plain
    misfit = pb.LoadAdapterRequest(model="models/one", adapter="adapters/misfit")
    with refused(AdapterInvalid.reason, CODE.FAILED_PRECONDITION) as caught:
        await running.weights.LoadAdapter(misfit)
    assert "attention" in str(caught[0].details())
    assert await running.answer("one") == plain
    gone = pb.UnloadAdapterRequest(model="models/one", name="stripes")
    await running.weights.UnloadAdapter(gone)
    with refused("ADAPTER_UNAVAILABLE", CODE.FAILED_PRECONDITION):
        await running.answer("one", adapter="stripes")
