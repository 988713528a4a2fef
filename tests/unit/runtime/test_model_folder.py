"""What is told of a model nobody has loaded, and how much memory is free."""

from pathlib import Path

import pytest

from ixc_runtime import host_memory
from ixc_runtime.checkpoint.shards import read_shards
from ixc_runtime.config import load_config
from ixc_runtime.errors import CheckpointError
from ixc_runtime.model.inventory import take_inventory
from ixc_runtime.model.loader import load_model
from ixc_runtime.model_folder import look_at
from tests.fakes.tiny_checkpoint import write_tiny_checkpoint


@pytest.mark.parametrize("group", [None, 32])
def test_a_folder_is_what_it_becomes(tmp_path: Path, group: int | None) -> None:
    """Its facts are the loaded model's, and its weights are as many, to the last one."""
    folder = write_tiny_checkpoint(tmp_path / "model", awq_group=group)
    found = look_at(folder)
    num_weights = take_inventory(load_config(folder), read_shards(folder)).num_weights
    for dtype, size in (("float32", 4), ("bfloat16", 2)):
        model = load_model(folder, dtype=dtype)
        assert num_weights * size == model.weights_bytes
    assert found.adapters == tuple(sorted(model.adapters))
    assert found.tower == model.tower
    assert found.vocab_size == model.config.vocab_size
    assert found.quantization == model.config.quantization


def test_a_folder_that_would_not_load(tmp_path: Path) -> None:
    """It is refused as loading it would be."""
    folder = write_tiny_checkpoint(tmp_path / "model", shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError):
        look_at(folder)


def test_free_memory_is_the_machines_or_the_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is available, not what is unused; a container's bound counts where there is one."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 100 kB\nMemFree: 10 kB\nMemAvailable: 50 kB\n")
    monkeypatch.setattr(host_memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(host_memory, "_CGROUP", tmp_path)
    assert host_memory.free_host_bytes() == 50 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("40000\n")
    (tmp_path / "memory.stat").write_text("anon 5000\ninactive_file 1000\n")
    assert host_memory.free_host_bytes() == 50 * 1024
    (tmp_path / "memory.max").write_text("50000\n")
    assert host_memory.free_host_bytes() == 50_000 - 40_000 + 1000
    (tmp_path / "memory.max").write_text("30000\n")
    assert host_memory.free_host_bytes() == 0


def test_free_memory_of_a_machine_without_proc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's own word for it, then."""
    monkeypatch.setattr(host_memory, "_MEMINFO", tmp_path / "absent")
    monkeypatch.setattr(host_memory, "_CGROUP", tmp_path)
    assert host_memory.free_host_bytes() > 0
