"""Several models behind one server: who answers, how they come, and how they go."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2

from ixc.v1 import model_pb2
from ixc.v1 import model_service_pb2 as model_service
from ixc.v1 import weights_service_pb2 as pb
from ixc.v1.session_service_pb2 import GetSessionRequest, ListTurnsRequest
from ixc.v1.token_service_pb2 import CountTokensRequest
from ixc_runtime import Loading
from ixc_runtime.errors import CheckpointInvalid, CheckpointUnsupported, MemoryLow
from ixc_runtime.models_root.manifest import (
    MANIFEST_NAME,
    Manifest,
    Origin,
    encode_manifest,
)
from ixc_service import model_desk
from ixc_service.errors import ModelNotFound, OperationConflict
from tests.fakes.fake_engine import INFO, FakeStarter
from tests.fakes.running_server import (
    Served,
    events_of,
    generate_request,
    kinds,
    refused,
    running_server,
    text_of,
    text_prompt,
)
from tests.fakes.tiny_checkpoint import write_tiny_checkpoint
from tests.fakes.tiny_peft import TinyAdapter, TinyModel, write_tiny_adapter

CODE = grpc.StatusCode
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
AVAILABLE = model_pb2.MODEL_STATE_AVAILABLE
LOADING = model_pb2.MODEL_STATE_LOADING
LOADED = model_pb2.MODEL_STATE_LOADED
UNLOADING = model_pb2.MODEL_STATE_UNLOADING


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models: cats, dogs and a broken one; adapters: stripes."""
    folder = tmp_path_factory.mktemp("roots")
    write_tiny_checkpoint(folder / "models" / "cats", tower=None)
    write_tiny_checkpoint(folder / "models" / "dogs", settings={"display_name": "Dogs"})
    made = Manifest(
        job="a-job",
        kind="merge",
        model="dogs",
        create_time="2026-11-22T12:00:00Z",
        made_with={},
        source=Origin(name="wolves", files={}),
        settings={},
        result={"summary": {"merged": "barking"}},
        files={},
    )
    (folder / "models" / "dogs" / MANIFEST_NAME).write_bytes(encode_manifest(made))
    (folder / "models" / "broken").mkdir()
    (folder / "models" / "broken" / "config.json").write_text("{}")
    (folder / "models" / "Not a name").mkdir()
    write_tiny_adapter(folder / "adapters" / "stripes", TinyAdapter(model=TinyModel()))
    return folder


@pytest_asyncio.fixture
async def served(tmp_path: Path, roots: Path) -> AsyncIterator[Served]:
    async with running_server(
        tmp_path, models_root=roots / "models", adapters_root=roots / "adapters"
    ) as running:
        yield running


async def state(served: Served, model_id: str) -> int:
    response = await served.models.GetModel(
        model_service.GetModelRequest(name=f"models/{model_id}")
    )
    return int(response.model.state)


async def unload(served: Served, model_id: str) -> int:
    request = pb.UnloadModelRequest(name=f"models/{model_id}")
    return int((await served.weights.UnloadModel(request)).model.state)


async def default_model(served: Served) -> str:
    response = await served.models.GetServerInfo(model_service.GetServerInfoRequest())
    return str(response.server.default_model)


async def health(served: Served, service: str) -> int:
    listed = await served.health.List(health_pb2.HealthListRequest())
    return int(listed.statuses[service].status) if service in listed.statuses else UNKNOWN


# ---- who answers


async def test_each_request_is_answered_by_the_model_it_names(served: Served) -> None:
    """With that model's name and digest in `accepted`; no name is the default."""
    await served.load("dogs")
    dogs = served.starter.engines["dogs"]
    served.engine.will_say("woof?")
    dogs.will_say("woof!")
    to_dogs, to_default = await asyncio.gather(
        served.generate("speak", model="models/dogs"), served.generate("speak")
    )
    assert text_of(to_dogs) == "woof!"
    assert text_of(to_default) == "woof?"
    accepted = to_dogs[0].accepted
    assert (accepted.model, accepted.weights_digest) == ("models/dogs", dogs.info.digest)
    assert to_default[0].accepted.model == "models/fake"
    count = CountTokensRequest(model="models/dogs", prompt=text_prompt("how long?"))
    assert (await served.tokens.CountTokens(count)).total_tokens > 0


@pytest.mark.parametrize(
    ("name", "reason", "code"),
    [
        ("models/cats", "MODEL_NOT_LOADED", CODE.FAILED_PRECONDITION),
        ("models/nobody", "MODEL_NOT_FOUND", CODE.NOT_FOUND),
        ("models/broken", "MODEL_NOT_LOADED", CODE.FAILED_PRECONDITION),
        ("models/../models/cats", "MODEL_NOT_FOUND", CODE.NOT_FOUND),
        ("cats", "MODEL_NOT_FOUND", CODE.NOT_FOUND),
    ],
)
async def test_a_model_that_does_not_answer(
    served: Served, name: str, reason: str, code: grpc.StatusCode
) -> None:
    """One that could be loaded is told from one that nobody knows; a session needs a model too."""
    with refused(reason, code):
        await served.generate("speak", model=name)
    with refused(reason, code):
        await served.new_session(model=name)


async def test_models_are_listed_with_their_states(served: Served) -> None:
    """Served ones and those of the root, by name; folders that are no models are left out."""
    await served.load("dogs")
    request = model_service.ListModelsRequest()
    listed = (await served.models.ListModels(request)).models
    assert [(each.name, each.state) for each in listed] == [
        ("models/cats", AVAILABLE),
        ("models/dogs", LOADED),
        ("models/fake", LOADED),
    ]
    cats, dogs, fake = listed
    assert cats.vocab_size == 320 and list(cats.adapters) == ["web", "write"]
    assert not cats.HasField("image_input") and not cats.weights_digest
    assert cats.native_context_limit == 2048 and cats.size_bytes > 0
    assert dogs.weights_digest and dogs.size_bytes > 0
    assert (dogs.origin.model, dogs.origin.merged_adapter) == ("models/wolves", "barking")
    assert dogs.origin.create_time.ToJsonString() == "2026-11-22T12:00:00Z"
    assert len(dogs.origin.manifest_digest) == 64
    assert not cats.HasField("origin")
    assert fake.size_bytes == 0
    loaded = model_service.ListModelsRequest(states=[LOADED], page_size=1)
    first = await served.models.ListModels(loaded)
    loaded.page_token = first.next_page_token
    second = await served.models.ListModels(loaded)
    assert [each.name for each in (*first.models, *second.models)] == ["models/dogs", "models/fake"]
    assert not second.next_page_token
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
        await served.models.ListModels(model_service.ListModelsRequest(states=[99]))
    with refused("MODEL_NOT_FOUND", CODE.NOT_FOUND):
        await state(served, "broken")


async def test_one_engine_is_down(served: Served) -> None:
    """Its model answers ENGINE_LOST and is NOT_SERVING; the others, and readiness, go on."""
    await served.load("dogs")
    dogs = served.starter.engines["dogs"]
    assert await health(served, "models/dogs") == SERVING
    dogs.die()
    with refused("ENGINE_LOST", CODE.UNAVAILABLE):
        await served.generate("speak", model="models/dogs")
    assert kinds(await served.generate("speak"))[-1] == "completed"
    assert await health(served, "models/dogs") == NOT_SERVING
    assert await health(served, "readiness") == SERVING
    dogs.come_back()
    assert await health(served, "models/dogs") == SERVING
    served.engine.die()
    assert await health(served, "readiness") == NOT_SERVING
    assert kinds(await served.generate("speak", model="models/dogs"))[-1] == "completed"


# ---- how they come


async def test_instead_of_the_default_while_it_answers(served: Served) -> None:
    """What runs ends on the model it began with; the next request gets the new one."""
    served.engine.will_say("old", " words", hold_at=3)
    call = served.generations.Generate(generate_request("speak"))
    events = [(await call.read()).event for _ in range(3)]
    await served.load("dogs", make_default=True)
    assert await default_model(served) == "models/dogs"
    assert (await served.generate("speak"))[0].accepted.model == "models/dogs"
    assert await unload(served, "fake") == UNLOADING

    served.engine.release.set()
    events += await events_of(call)

    assert text_of(events) == "old words"
    assert kinds(events)[-1] == "completed"
    assert served.engine.is_closed
    with refused("MODEL_NOT_FOUND", CODE.NOT_FOUND):
        await state(served, "fake")


async def test_what_is_loaded_twice_is_there_once(served: Served) -> None:
    """The second time it is only made the default; while it comes, nobody else may load it."""
    served.starter.may_start.clear()
    loading = asyncio.create_task(served.load("dogs"))
    await served.starter.was_asked.wait()
    assert await state(served, "dogs") == LOADING
    with pytest.raises(OperationConflict):
        await served.load("dogs")
    with refused("MODEL_NOT_LOADED", CODE.FAILED_PRECONDITION):
        await served.generate("speak", model="models/dogs")
    served.starter.may_start.set()
    await loading
    engine = served.starter.engines["dogs"]
    await served.load("dogs", make_default=True)
    assert served.starter.engines["dogs"] is engine
    assert await default_model(served) == "models/dogs"


async def test_a_load_that_fails_or_is_broken_off(served: Served) -> None:
    """Nothing of it is served or remembered, and it can be tried again."""
    served.starter.fault = CheckpointInvalid("a file is broken")
    with pytest.raises(CheckpointInvalid):
        await served.load("dogs")
    assert await state(served, "dogs") == AVAILABLE
    served.starter.fault = None
    served.starter.may_start.clear()
    served.starter.was_asked.clear()
    loading = asyncio.create_task(served.load("dogs"))
    await served.starter.was_asked.wait()
    loading.cancel()
    await asyncio.wait({loading})
    assert await state(served, "dogs") == AVAILABLE
    served.starter.may_start.set()
    await served.load("dogs")
    assert await state(served, "dogs") == LOADED
    with pytest.raises(ModelNotFound):
        await served.load("nobody")
    with pytest.raises(CheckpointUnsupported):
        await served.load("broken")


async def test_a_load_that_is_broken_off_too_late(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What answers already is loaded, and nobody is told otherwise."""
    desk = served.server.model_desk
    reached, remember = asyncio.Event(), desk._remember

    async def slowly() -> None:
        reached.set()
        await remember()

    monkeypatch.setattr(desk, "_remember", slowly)
    loading = asyncio.create_task(served.load("dogs"))
    await reached.wait()
    loading.cancel()
    await loading
    assert await state(served, "dogs") == LOADED


async def test_no_room_for_another_model(served: Served) -> None:
    """The engine's own figures, which are of its device, and who holds how much of that."""
    served.starter.fault = MemoryLow("the model needs 9 GiB", required=9000, free=100)
    with pytest.raises(
        MemoryLow, match=r"needs 9 GiB; models/fake holds 1\.0 MiB of cpu"
    ) as caught:
        await served.load("dogs")
    assert caught.value.metadata == {"required": "9000", "free": "100"}
    assert await state(served, "dogs") == AVAILABLE


async def test_no_room_for_another_adapter(served: Served) -> None:
    """So the engine says, and goes on."""
    served.engine.adapter_fault = MemoryLow("the adapter takes 2 GiB", required=2000, free=100)
    with refused("MEMORY_LOW", CODE.RESOURCE_EXHAUSTED):
        await served.weights.LoadAdapter(pb.LoadAdapterRequest(adapter="adapters/stripes"))
    assert (await served.generate("speak"))[-1].HasField("completed")


async def test_how_far_it_is_is_told(served: Served) -> None:
    """Stage by stage, as the engine says it."""
    heard: list[Loading] = []
    await served.server.model_desk.load("cats", make_default=False, on_loading=heard.append)
    assert [(each.stage.value, each.done, each.total) for each in heard] == [
        ("weights", 1, 2),
        ("cache", 0, 0),
    ]


async def test_loaded_again_after_a_restart(tmp_path: Path, roots: Path) -> None:
    """Models and the default are as they were; one that cannot be loaded now is left for later."""
    options = {"models_root": roots / "models"}
    async with running_server(tmp_path, **options) as served:
        await served.load("cats")
        await served.load("dogs", make_default=True)
        await served.load("cats")
    async with running_server(
        tmp_path, starter=FakeStarter(fault=CheckpointInvalid("it is broken")), **options
    ) as served:
        assert await default_model(served) == "models/fake"
    async with running_server(tmp_path, **options) as served:
        assert await default_model(served) == "models/dogs"
        assert await state(served, "cats") == LOADED
        assert await unload(served, "cats") == AVAILABLE
    async with running_server(tmp_path, **options) as served:
        assert await state(served, "cats") == AVAILABLE
        assert await default_model(served) == "models/dogs"


async def test_two_are_loaded_at_a_time(
    tmp_path: Path, roots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are written down, also where the first takes longer over it than the second."""
    options = {"models_root": roots / "models"}
    replaced, second_is_written = model_desk._replace, threading.Event()
    written: list[bytes] = []

    def slow_at_first(path: Path, content: bytes) -> None:
        written.append(content)
        if len(written) == 1:
            second_is_written.wait(timeout=0.2)  # in vain, for it waits for us
        replaced(path, content)
        if len(written) > 1:
            second_is_written.set()

    monkeypatch.setattr(model_desk, "_replace", slow_at_first)
    async with running_server(tmp_path, **options) as served:
        await asyncio.gather(served.load("cats"), served.load("dogs"))
    assert len(written) == 2
    async with running_server(tmp_path, **options) as served:
        assert [await state(served, name) for name in ("cats", "dogs")] == [LOADED, LOADED]


async def test_asked_to_stop_while_models_are_loaded_again(tmp_path: Path, roots: Path) -> None:
    """The start goes on without them, so that the server can end; they are not forgotten."""
    options = {"models_root": roots / "models"}
    async with running_server(tmp_path, **options) as served:
        await served.load("dogs")
    starter, stop = FakeStarter(), asyncio.Event()
    starter.may_start.clear()

    async def stop_soon() -> None:
        await starter.was_asked.wait()
        stop.set()

    stopping = asyncio.create_task(stop_soon())
    async with running_server(tmp_path, starter=starter, stop=stop, **options) as served:
        assert await state(served, "dogs") == AVAILABLE
    await stopping
    async with running_server(tmp_path, **options) as served:
        assert await state(served, "dogs") == LOADED


# ---- how they go


async def test_unloaded_while_it_answers(served: Served) -> None:
    """What runs is finished, what comes is refused; then the engine is closed."""
    await served.load("dogs")
    dogs = served.starter.engines["dogs"]
    dogs.will_say("to", " the", " end", hold_at=3)
    call = served.generations.Generate(generate_request("speak", model="models/dogs"))
    events = [(await call.read()).event for _ in range(3)]
    assert await unload(served, "dogs") == UNLOADING
    assert await unload(served, "dogs") == UNLOADING
    with refused("MODEL_NOT_LOADED", CODE.FAILED_PRECONDITION):
        await served.generate("speak", model="models/dogs")
    with pytest.raises(OperationConflict):
        await served.load("dogs")
    assert await health(served, "models/dogs") == UNKNOWN
    assert not dogs.is_closed

    dogs.release.set()
    events += await events_of(call)

    assert text_of(events) == "to the end"
    assert events[-1].completed.finish_reason
    assert dogs.is_closed
    assert await state(served, "dogs") == AVAILABLE


async def test_what_cannot_be_unloaded(served: Served) -> None:
    """The default is in use; what nobody knows is not found; a mere folder stays what it is."""
    with refused("MODEL_IN_USE", CODE.FAILED_PRECONDITION):
        await unload(served, "fake")
    with refused("MODEL_NOT_FOUND", CODE.NOT_FOUND):
        await unload(served, "nobody")
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
        await served.weights.UnloadModel(pb.UnloadModelRequest(name="dogs"))
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
        await served.weights.UnloadModel(pb.UnloadModelRequest())
    assert await unload(served, "cats") == AVAILABLE


async def test_a_server_without_roots(tmp_path: Path) -> None:
    """Says that it has none of this."""
    async with running_server(tmp_path) as served:
        with refused("FEATURE_DISABLED", CODE.UNIMPLEMENTED):
            await served.weights.LoadAdapter(pb.LoadAdapterRequest(adapter="adapters/stripes"))
        with refused("MODEL_NOT_FOUND", CODE.NOT_FOUND):
            await unload(served, "cats")


async def test_a_root_that_cannot_be_read(tmp_path: Path) -> None:
    """What is served is told of all the same."""
    async with running_server(tmp_path, models_root=tmp_path / "absent") as served:
        listed = await served.models.ListModels(model_service.ListModelsRequest())
        assert [each.name for each in listed.models] == ["models/fake"]
        assert await state(served, "fake") == LOADED
        with refused("MODEL_NOT_FOUND", CODE.NOT_FOUND):
            await served.generate("speak", model="models/cats")


# ---- sessions and repeated requests


async def test_a_session_goes_on_with_its_own_model(served: Served) -> None:
    """Whatever the default is meanwhile; without it the session waits, and can be read."""
    await served.load("dogs")
    session = await served.new_session(model="models/dogs")
    await served.chat(session, "sit")
    await served.load("cats", make_default=True)
    assert (await served.chat(session, "stay"))[0].accepted.model == "models/dogs"
    assert await unload(served, "dogs") == AVAILABLE
    with refused("MODEL_NOT_LOADED", CODE.FAILED_PRECONDITION):
        await served.chat(session, "come")
    with refused("MODEL_NOT_LOADED", CODE.FAILED_PRECONDITION):
        await served.tokens.CountTokens(
            CountTokensRequest(session=session, prompt=text_prompt("come"))
        )
    read = (await served.sessions.GetSession(GetSessionRequest(name=session))).session
    assert (read.model, read.context_limit, read.turn_count) == ("models/dogs", 0, 2)
    turns = await served.sessions.ListTurns(ListTurnsRequest(parent=session))
    assert len(turns.turns) == 2

    await served.load("dogs")

    assert kinds(await served.chat(session, "come"))[-1] == "completed"


async def test_a_session_whose_model_came_back_with_other_weights(served: Served) -> None:
    """It cannot go on: its turns were computed by others."""
    await served.load("dogs")
    session = await served.new_session(model="models/dogs")
    await served.chat(session, "sit")
    await unload(served, "dogs")
    served.starter.digests["dogs"] = "a" * 64
    await served.load("dogs")
    with refused("SESSION_WEIGHTS_CHANGED", CODE.FAILED_PRECONDITION):
        await served.chat(session, "stay")


async def test_a_session_finds_its_weights_under_another_name(served: Served) -> None:
    """The weights make the session, not what they are called."""
    served.starter.digests["dogs"] = INFO.digest
    session = await served.new_session()
    await served.load("dogs", make_default=True)
    await unload(served, "fake")
    assert (await served.chat(session, "sit"))[0].accepted.model == "models/dogs"


async def test_a_repeated_request_after_its_model_has_gone(served: Served) -> None:
    """The earlier answer is told once more: nothing has to be computed for that."""
    await served.load("dogs")
    first = await served.generate("speak", model="models/dogs", request_id="once")
    await unload(served, "dogs")
    again = await served.generate("speak", model="models/dogs", request_id="once")
    assert again[0].accepted.deduplicated
    assert text_of(again) == text_of(first)
