"""Which operations a start chooses for a device, and what it refuses before it loads anything."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ixc_cuda.device import DeviceInfo, DeviceRefused
from ixc_runtime.config import load_config
from ixc_runtime.engine_process import process
from ixc_runtime.engine_process.messages import EngineConfig
from ixc_runtime.errors import CheckpointUnsupported, FieldInvalid, MemoryLow
from ixc_runtime.ops.cuda import unsupported_shapes
from tests.fakes.tiny_checkpoint import write_tiny_checkpoint

HOPPER = DeviceInfo(
    name="a GPU",
    capability=(9, 0),
    multiprocessors=132,
    shared_bytes=232448,
    l2_bytes=50 << 20,
    memory_bytes=80 << 30,
)


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The devices that were made current, on a machine that seems to have them all."""
    made: list[int] = []
    monkeypatch.setattr(process, "check_device", lambda index: HOPPER)
    monkeypatch.setattr(torch.cuda, "set_device", made.append)
    return made


@pytest.mark.parametrize(("device", "index"), [("cuda", 0), ("cuda:3", 3)])
def test_the_device_is_made_current(
    tmp_path: Path, current: list[int], device: str, index: int
) -> None:
    """Streams, graphs and kernels go by it, whatever device a tensor is on."""
    config = EngineConfig(model=str(tmp_path), device=device, dtype="float32")

    assert process._choose_ops(config, tmp_path).name == "plain torch"
    assert current == [index]


@pytest.mark.parametrize("device", ["tpu", "cuda:", "cuda:x", "cuda:1"])
def test_a_device_that_is_not_there_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """Before anything is read."""

    def refuse(index: int) -> DeviceInfo:
        raise DeviceRefused("none found")

    monkeypatch.setattr(process, "check_device", refuse)
    with pytest.raises(FieldInvalid, match=f"device is {device}"):
        process.build_engine(EngineConfig(model=str(tmp_path), device=device))


def test_a_model_without_kernels_is_refused_by_its_sizes(
    tmp_path: Path, current: list[int]
) -> None:
    """Heads of 16 in pairs: float32 would do."""
    folder = write_tiny_checkpoint(tmp_path)
    with pytest.raises(CheckpointUnsupported, match=r"heads of 16, 2 to a KV head.*float32"):
        process._choose_ops(EngineConfig(model=str(folder), device="cuda"), folder)


def test_what_the_kernels_compute(tmp_path: Path) -> None:
    """The published models' shapes, and each of the limits by itself."""
    tiny = load_config(write_tiny_checkpoint(tmp_path))
    official = replace(
        tiny,
        hidden_size=4096,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        intermediate_size=14336,
        vocab_size=92544,
    )
    assert unsupported_shapes(official) is None
    assert unsupported_shapes(replace(official, num_heads=9, num_kv_heads=3, head_dim=64)) is None
    for name, value, said in (
        ("num_heads", 16, "2 to a KV head"),
        ("head_dim", 96, "heads of 96"),
        ("intermediate_size", 14337, "intermediate_size is 14337"),
        ("vocab_size", 92545, "vocab_size is 92545"),
        ("vocab_size", 200_000, "a vocabulary of 200000"),
    ):
        reason = unsupported_shapes(replace(official, **{name: value}))  # type: ignore[arg-type]
        assert reason is not None
        assert said in reason


def test_a_model_that_does_not_fit_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a bug of ours: the same start may do where more memory is free."""

    def load(*args: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(process, "load_model", load)
    with pytest.raises(MemoryLow, match="more memory than is free on cpu"):
        process.build_engine(EngineConfig(model=str(tmp_path)))
