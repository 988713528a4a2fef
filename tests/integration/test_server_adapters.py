"""Users' adapters behind a server: by what names they come, who has them, and how they go."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from ixc.v1 import weights_service_pb2 as pb
from ixc_runtime.errors import CheckpointInvalid
from ixc_service.errors import ModelNotFound
from tests.fakes.running_server import Served, kinds, refused, running_server
from tests.fakes.tiny_checkpoint import write_tiny_checkpoint
from tests.fakes.tiny_peft import TinyAdapter, TinyModel, write_tiny_adapter

CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models: dogs; adapters: stripes."""
    folder = tmp_path_factory.mktemp("roots")
    write_tiny_checkpoint(folder / "models" / "dogs", tower=None)
    write_tiny_adapter(folder / "adapters" / "stripes", TinyAdapter(model=TinyModel()))
    return folder


@pytest_asyncio.fixture
async def served(tmp_path: Path, roots: Path) -> AsyncIterator[Served]:
    async with running_server(
        tmp_path, models_root=roots / "models", adapters_root=roots / "adapters"
    ) as running:
        yield running


def load_adapter(**fields: str) -> pb.LoadAdapterRequest:
    return pb.LoadAdapterRequest(**{"adapter": "adapters/stripes", **fields})


async def test_an_adapter_by_name(served: Served) -> None:
    """It is listed and can be asked for, until it is unloaded; the other model has none of it."""
    await served.load("dogs")
    made = (await served.weights.LoadAdapter(load_adapter(name="zebra"))).model
    assert (made.name, list(made.adapters)) == ("models/fake", ["web", "zebra"])
    assert (await served.generate("speak", adapter="zebra"))[0].accepted.adapter == "zebra"
    with refused("ADAPTER_UNAVAILABLE", CODE.FAILED_PRECONDITION):
        await served.generate("speak", adapter="zebra", model="models/dogs")
    made = (await served.weights.LoadAdapter(load_adapter(model="models/dogs"))).model
    assert list(made.adapters) == ["web", "stripes"]
    gone = pb.UnloadAdapterRequest(name="zebra")
    assert list((await served.weights.UnloadAdapter(gone)).model.adapters) == ["web"]
    with refused("ADAPTER_UNAVAILABLE", CODE.FAILED_PRECONDITION):
        await served.generate("speak", adapter="zebra")
    with refused("ADAPTER_NOT_FOUND", CODE.NOT_FOUND):
        await served.weights.UnloadAdapter(gone)
    await served.weights.UnloadAdapter(pb.UnloadAdapterRequest(name="zebra", allow_missing=True))


HOSTILE = (
    "..", ".", "../stripes", "stripes/..", "/etc", "stripes/", "Stripes", "strip\x00es", "con",
    "stripes ", " stripes", "ſtripes", "str\u0131pes", "stripes\u200b", "a" * 64, "a..b", "-a", "",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_name(served: Served, name: str) -> None:
    """It is no name, whatever a file system would make of it."""
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
        await served.weights.LoadAdapter(pb.LoadAdapterRequest(adapter=f"adapters/{name}"))
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
        await served.weights.UnloadAdapter(pb.UnloadAdapterRequest(name=name))
    if name:
        with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
            await served.weights.LoadAdapter(load_adapter(name=name))
        with refused("MODEL_NOT_FOUND", CODE.NOT_FOUND):
            await served.generate("speak", model=f"models/{name}")
        with pytest.raises(ModelNotFound):
            await served.load(name)


async def test_a_folder_behind_a_link(served: Served, roots: Path, tmp_path: Path) -> None:
    """It is not there: links lead nowhere."""
    write_tiny_adapter(tmp_path / "outside", TinyAdapter(model=TinyModel()))
    link = roots / "adapters" / "linked"
    link.symlink_to(tmp_path / "outside")
    try:
        with refused("ADAPTER_NOT_FOUND", CODE.NOT_FOUND):
            await served.weights.LoadAdapter(load_adapter(adapter="adapters/linked"))
    finally:
        link.unlink()


async def test_an_adapter_that_does_not_fit(served: Served) -> None:
    """The engine's reason reaches the caller, with the adapter's name."""
    served.engine.adapter_fault = CheckpointInvalid("it ends too early", tensor="a")
    with refused("WEIGHTS_CORRUPT", CODE.DATA_LOSS) as caught:
        await served.weights.LoadAdapter(load_adapter())
    assert "it ends too early" in str(caught[0].details())
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
        await served.weights.LoadAdapter(load_adapter(name="base"))
    assert kinds(await served.generate("speak"))[-1] == "completed"
