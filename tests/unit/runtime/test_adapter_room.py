"""Users' adapters in a device's memory: what fits, what is refused, what is given back."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch

from ixc_runtime.engine_process import user_adapters
from ixc_runtime.engine_process.adapter_room import AdapterRoom
from ixc_runtime.engine_process.core import EngineCore
from ixc_runtime.engine_process.messages import AdapterSource, EngineConfig
from ixc_runtime.engine_process.process import make_core
from ixc_runtime.engine_process.runner import MakeRunner, PlainRunner
from ixc_runtime.engine_process.user_adapters import read_adapter
from ixc_runtime.errors import AdapterIdTaken, AdapterUnavailable, MemoryLow
from ixc_runtime.model.loader import load_model
from ixc_runtime.model_info import AdapterInfo
from tests.fakes.ahead_runner import AheadRunner
from tests.fakes.engine_driver import EngineDriver
from tests.fakes.tiny_checkpoint import TinyModel, write_tiny_checkpoint
from tests.fakes.tiny_peft import TinyAdapter, write_tiny_adapter

MODEL = TinyModel(tower=None)
CATS = TinyAdapter(model=MODEL, seed=1)
DOGS = replace(CATS, seed=2)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two adapters of one size, and one of twice that."""
    write_tiny_adapter(tmp_path / "cats", CATS)
    write_tiny_adapter(tmp_path / "dogs", DOGS)
    write_tiny_adapter(tmp_path / "lions", replace(CATS, rank=2 * CATS.rank))
    return tmp_path


def made_core(
    folder: Path, adapter_bytes: int | None, runner: MakeRunner = PlainRunner
) -> EngineCore:
    model = load_model(write_tiny_checkpoint(folder / "model", MODEL))
    config = EngineConfig(model="", kv_bytes=1 << 22, adapter_bytes=adapter_bytes)
    core, _ = make_core(model, config, digest="digest", make_runner=runner)
    return core


def take(core: EngineCore, folders: Path, folder: str, name: str = "") -> AdapterInfo:
    source = AdapterSource(name=name or folder, folder=str(folders / folder))
    adapter = read_adapter(source, core.model, core.adapter_room)
    core.add_adapter(adapter)
    return adapter.info


def size_of_cats(folders: Path) -> int:
    return take(made_core(folders, None), folders, "cats").num_bytes


def test_as_many_as_fit_and_not_one_more(folders: Path) -> None:
    """The refusal names what is needed, what is free and of how much; the engine goes on, and what
    is taken away makes room.
    """
    size = size_of_cats(folders)
    core = made_core(folders, 2 * size + 10)
    take(core, folders, "cats")
    take(core, folders, "dogs")
    with pytest.raises(MemoryLow, match=r"10 B are free of the .* of cpu .* users") as low:
        take(core, folders, "cats", "more")
    assert low.value.metadata == {
        "required": str(size),
        "free": "10",
        "limit": str(2 * size + 10),
    }
    assert len(EngineDriver(core).ids("one", [1, 2, 3], adapter="dogs")) == 8

    core.remove_adapter("cats")
    take(core, folders, "cats", "more")
    assert {"dogs", "more"} <= core.model.adapters


def test_one_that_is_there_needs_no_more_room(folders: Path) -> None:
    """The same again is no error, also where there is room for none."""
    core = made_core(folders, size_of_cats(folders))
    assert take(core, folders, "cats") == take(core, folders, "cats")
    core.remove_adapter("cats")
    take(core, folders, "dogs")


def test_a_refused_one_leaves_its_room(folders: Path) -> None:
    """A taken name, twice over, costs nothing."""
    core = made_core(folders, 2 * size_of_cats(folders))
    take(core, folders, "cats")
    for _ in range(2):
        with pytest.raises(AdapterIdTaken):
            take(core, folders, "dogs", "cats")
    take(core, folders, "dogs")


def test_one_that_came_too_late_leaves_the_room_of_the_next(folders: Path) -> None:
    """Read while it was there, put in when it is gone: refused, and the room that the next reading
    of the same has taken meanwhile stays taken.
    """
    core = made_core(folders, size_of_cats(folders))
    source = AdapterSource(name="cats", folder=str(folders / "cats"))
    take(core, folders, "cats")
    late = read_adapter(source, core.model, core.adapter_room)
    core.remove_adapter("cats")
    following = read_adapter(source, core.model, core.adapter_room)

    with pytest.raises(AdapterUnavailable, match="'cats' has been unloaded"):
        core.add_adapter(late)
    with pytest.raises(MemoryLow):
        take(core, folders, "dogs")
    core.add_adapter(following)
    assert "cats" in core.model.adapters


@pytest.mark.parametrize("runner", [PlainRunner, AheadRunner])
@pytest.mark.parametrize("after_steps", [0, 1, 2, 5])
def test_one_that_goes_while_a_step_with_it_is_on_its_way(
    folders: Path, runner: MakeRunner, after_steps: int
) -> None:
    """Whoever asks for it fails, waiting or running; a neighbour does not notice, and another may
    have the name and the room at once.
    """
    core = made_core(folders, size_of_cats(folders), runner)
    driver = EngineDriver(core)
    alone = driver.ids("alone", [1, 2, 3], max_output=12)
    take(core, folders, "cats")
    driver.submit("neighbour", [1, 2, 3], max_output=12)
    driver.submit("cats", [1, 2, 3, 4], adapter="cats", max_output=12)
    for _ in range(after_steps):
        driver.step()
    core.remove_adapter("cats")
    take(core, folders, "dogs", "cats")
    driver.submit("dogs", [1, 2, 3, 4], adapter="cats", max_output=12)
    outcomes = driver.run()

    failed = outcomes["cats"].failed
    assert failed is not None
    assert failed.reason == "ADAPTER_UNAVAILABLE"
    assert outcomes["neighbour"].ids == alone
    other = EngineDriver(made_core(folders, None, runner))
    take(other.core, folders, "dogs")
    assert outcomes["dogs"].ids == other.ids("dogs", [1, 2, 3, 4], adapter="dogs", max_output=12)
    assert core.load.pages_used == 0


def test_the_device_has_the_last_word(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it has less than was set aside: MEMORY_LOW, and the room is free again."""

    def full(*given: object) -> None:
        raise torch.OutOfMemoryError("on purpose")

    size = size_of_cats(folders)
    core = made_core(folders, size)
    with monkeypatch.context() as patch:
        patch.setattr(user_adapters, "_moved", full)
        with pytest.raises(MemoryLow, match="more than is free of cpu"):
            take(core, folders, "cats")
    take(core, folders, "cats")


def test_a_file_larger_than_the_host_is_not_read(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take the machine with it before anybody could say that it does not fit."""
    core = made_core(folders, None)
    monkeypatch.setattr(user_adapters, "free_host_bytes", lambda: 100)
    monkeypatch.setattr(user_adapters, "load_peft_adapter", None)
    with pytest.raises(MemoryLow, match="100 B are free of the host"):
        take(core, folders, "cats")


def test_of_a_host_adapters_take_what_is_free() -> None:
    """No part of it is set aside."""
    free = 100
    room = AdapterRoom("cpu", limit=None, free_bytes=lambda: free)
    adapter = AdapterInfo(name="cats", digest="c", rank=1, num_bytes=100)
    assert room.take(adapter)
    assert not room.take(adapter)
    free = 99
    with pytest.raises(MemoryLow, match="100 B; 99 B are free of cpu") as low:
        room.take(msgspec.structs.replace(adapter, name="dogs"))
    assert low.value.metadata == {"required": "100", "free": "99"}
