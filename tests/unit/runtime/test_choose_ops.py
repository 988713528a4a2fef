"""Which operations a start chooses for a device, and what it refuses before it loads anything."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ixc_cuda.device import DeviceInfo, DeviceRefused
from ixc_runtime.config import load_config
from ixc_runtime.engine_process import device as engine_device
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
    monkeypatch.setattr(engine_device, "check_device", lambda index: HOPPER)
    monkeypatch.setattr(torch.cuda, "set_device", made.append)
    return made


@pytest.mark.parametrize(("device", "index"), [("cuda", 0), ("cuda:3", 3)])
def test_the_device_is_made_current(
    tmp_path: Path, current: list[int], device: str, index: int
) -> None:
    """Streams, graphs and kernels go by it, whatever device a tensor is on."""
    config = EngineConfig(model="", device=device, dtype="float32")
    engine_device.open_device(config)

    tiny = load_config(write_tiny_checkpoint(tmp_path))
    assert engine_device.choose_ops(config, tiny).name == "plain torch"
    assert current == [index]


@pytest.mark.parametrize(
    "device",
    ["tpu", "", "cuda:", "cuda:x", "cuda:-1", "cuda:01", "cuda:\u0663", "cpu:0", "cuda:0 "],
)
def test_what_is_no_device_is_refused_with_what_is_one(current: list[int], device: str) -> None:
    """Also where there are GPUs: it is not taken for the first of them."""
    with pytest.raises(FieldInvalid, match="allowed: cpu, cuda, cuda:N") as caught:
        process.build_engine(EngineConfig(model="", device=device))
    assert repr(device) in caught.value.message
    assert current == []


def test_a_gpu_that_is_too_old_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, with what it has, what is needed and what to do."""
    monkeypatch.setattr("ixc_cuda.device.refusal", lambda found: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    old = replace(HOPPER, name="An old GPU", capability=(7, 5))
    monkeypatch.setattr("ixc_cuda.device.device_info", lambda index: old)
    with pytest.raises(FieldInvalid) as caught:
        process.build_engine(EngineConfig(model="", device="cuda"))
    assert caught.value.message == (
        "device is cuda: An old GPU has compute capability 7.5, the kernels are compiled for 8.x "
        "and 9.x: take another GPU, or the CPU"
    )


def test_a_gpu_that_others_have_filled_says_so(
    current: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last half gibibyte, so that nobody can even look how much is free."""

    def full(index: int) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "set_device", full)
    with pytest.raises(MemoryLow, match=r"opening cuda:1 takes some 512\.0 MiB") as caught:
        process.build_engine(EngineConfig(model="", device="cuda:1"))
    assert caught.value.metadata["free"] == "0"


def test_what_is_no_dtype_is_refused_with_what_is_one(tmp_path: Path) -> None:
    """Before anything is read."""
    folder = write_tiny_checkpoint(tmp_path)
    with pytest.raises(FieldInvalid, match="dtype is 'int8', allowed: float32, bfloat16, float16"):
        process.build_engine(EngineConfig(model=str(folder), dtype="int8"))


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_device_that_is_not_there_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """Before anything is read."""

    def refuse(index: int) -> DeviceInfo:
        raise DeviceRefused("none found")

    monkeypatch.setattr(engine_device, "check_device", refuse)
    with pytest.raises(FieldInvalid, match=f"device is {device}: none found"):
        process.build_engine(EngineConfig(model=str(tmp_path), device=device))


def test_a_model_without_kernels_is_refused_by_its_sizes(
    tmp_path: Path, current: list[int]
) -> None:
    """Heads of 16 in pairs: float32 would do."""
    tiny = load_config(write_tiny_checkpoint(tmp_path))
    with pytest.raises(CheckpointUnsupported, match=r"heads of 16, 2 to a KV head.*float32"):
        engine_device.choose_ops(EngineConfig(model="", device="cuda"), tiny)


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
    folder = write_tiny_checkpoint(tmp_path)
    with pytest.raises(MemoryLow, match="more memory than is free on cpu"):
        process.build_engine(EngineConfig(model=str(folder)))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_device_that_is_too_small_is_told_before_weights_are_read(
    tmp_path: Path, current: list[int], monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """By the headers of the files: what is needed at least and for what, and what is free."""
    folder = write_tiny_checkpoint(tmp_path)
    monkeypatch.setattr(process, "free_bytes", lambda device: 1_000_000)
    read: list[object] = []
    monkeypatch.setattr(process, "load_model", lambda *given, **options: read.append(given))
    with pytest.raises(MemoryLow, match=rf"at least .* of {device} \(.* for weights") as caught:
        process.build_engine(EngineConfig(model=str(folder), device=device, kv_bytes=1_000_000))
    assert caught.value.metadata["free"] == "1000000"
    assert int(caught.value.metadata["required"]) > 1_000_000
    assert not read
