"""The engine's loop over a channel that the test speaks through, on a tiny real model."""

import gc
import weakref
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ixc_runtime.engine_process import user_adapters
from ixc_runtime.engine_process.core import EngineCore
from ixc_runtime.engine_process.loop import run_loop
from ixc_runtime.engine_process.messages import (
    AdapterSource,
    Answer,
    Ask,
    DropAdapter,
    EngineConfig,
    FromEngine,
    Question,
    Shutdown,
    TakeAdapter,
    ToEngine,
)
from ixc_runtime.engine_process.process import make_core
from ixc_runtime.model.loader import load_model
from ixc_runtime.ops import LowRankPair
from tests.fakes.tiny_checkpoint import TinyModel, write_tiny_checkpoint
from tests.fakes.tiny_peft import TinyAdapter, write_tiny_adapter

MODEL = TinyModel(tower=None)
CATS = TinyAdapter(model=MODEL)

Script = Generator[Question, Answer, None]


class ScriptedChannel:
    """Asks a script's questions one after the other, each when the one before is answered; the
    script runs inside the loop. At its end the loop is told to go.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self._next: list[ToEngine] = [Ask(0, next(script))]

    def receive(self, *, wait: bool, at_most: float | None = None) -> list[ToEngine]:
        messages, self._next = self._next, []
        return messages

    def send(self, message: FromEngine) -> None:
        assert isinstance(message, Answer)
        try:
            self._next = [Ask(message.question_id + 1, self._script.send(message))]
        except StopIteration:
            self._next = [Shutdown()]


@pytest.fixture
def core(tmp_path: Path) -> EngineCore:
    model = load_model(write_tiny_checkpoint(tmp_path / "model", MODEL))
    return make_core(model, EngineConfig(model="", kv_bytes=1 << 22), digest="digest")[0]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    write_tiny_adapter(tmp_path / "cats", CATS)
    write_tiny_adapter(tmp_path / "dogs", replace(CATS, seed=2))
    return tmp_path


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> "list[weakref.ref[torch.Tensor]]":
    """Each first factor as it was read, and as it lies on the device."""
    found: list[weakref.ref[torch.Tensor]] = []
    moved = user_adapters._moved

    def watched(device: torch.device, pair: LowRankPair) -> LowRankPair:
        there = moved(device, pair)
        found.extend((weakref.ref(pair.down), weakref.ref(there.down)))
        return there

    monkeypatch.setattr(user_adapters, "_moved", watched)
    return found


def taking(folders: Path, folder: str, name: str = "") -> TakeAdapter:
    return TakeAdapter(AdapterSource(name=name or folder, folder=str(folders / folder)))


def run(core: EngineCore, script: Script) -> None:
    """Nothing is collected as garbage meanwhile."""
    gc.collect()
    gc.disable()
    try:
        run_loop(core, ScriptedChannel(script))  # type: ignore[arg-type]
    finally:
        gc.enable()


def num_alive(held: "list[weakref.ref[torch.Tensor]]") -> int:
    return sum(reference() is not None for reference in held)


def test_an_adapter_that_is_let_go_leaves_the_device(
    core: EngineCore, folders: Path, held: "list[weakref.ref[torch.Tensor]]"
) -> None:
    """At once, not when the next one is read: its room is promised to that one."""

    def script() -> Script:
        answer = yield taking(folders, "cats")
        assert answer.adapter is not None
        assert num_alive(held) > 0
        yield DropAdapter("cats")
        assert num_alive(held) == 0

    run(core, script())


def test_an_adapter_that_is_refused_leaves_the_device(
    core: EngineCore, folders: Path, held: "list[weakref.ref[torch.Tensor]]"
) -> None:
    """What was read of it is nowhere, neither in the answer's making nor in a fault's traceback."""

    def script() -> Script:
        answer = yield taking(folders, "cats", "web")
        assert answer.refusal is not None
        assert answer.refusal.reason == "ADAPTER_ID_TAKEN"
        # Asked in a later round of the loop, when this one's variables are gone.
        yield DropAdapter("nobody")
        assert len(held) > 0
        assert num_alive(held) == 0

    run(core, script())


def test_an_adapter_that_does_not_fit_is_let_go(
    core: EngineCore,
    folders: Path,
    held: "list[weakref.ref[torch.Tensor]]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What had come when the device was full, and what was read: memory is short just then."""
    moved = user_adapters._moved

    def full_at_last(device: torch.device, pair: LowRankPair) -> LowRankPair:
        if len(held) == 6:
            raise torch.OutOfMemoryError("on purpose")
        return moved(device, pair)

    monkeypatch.setattr(user_adapters, "_moved", full_at_last)

    def script() -> Script:
        answer = yield taking(folders, "cats")
        assert answer.refusal is not None
        assert answer.refusal.reason == "MEMORY_LOW"
        yield DropAdapter("nobody")
        assert len(held) == 6
        assert num_alive(held) == 0

    run(core, script())


def test_an_adapter_that_breaks_the_reader(
    core: EngineCore, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENGINE_FAULT for whoever asked; the loop goes on and takes the next."""

    def script() -> Script:
        with monkeypatch.context() as patch:
            patch.setattr(user_adapters, "_digest", None)
            answer = yield taking(folders, "cats")
        assert answer.refusal is not None
        assert answer.refusal.reason == "ENGINE_FAULT"
        answer = yield taking(folders, "dogs")
        assert answer.adapter is not None
        assert "dogs" in core.model.adapters

    run(core, script())
