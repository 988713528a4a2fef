"""Shards are written while the next is made: in order, one at a time, and never unnoticed."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from torch import Tensor

from ixc_runtime.errors import EngineFault, MemoryLow
from ixc_runtime.weights.writing import ShardWriter


class Gate:
    """An output whose writes take as long as the test wants, and fail as it says."""

    folder = Path()

    def __init__(self, *, fail_at: str = "") -> None:
        self.done: list[str] = []
        self.may_write = threading.Event()
        self._fail_at = fail_at

    def write_shard(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        assert self.may_write.wait(10)
        if name == self._fail_at:
            raise OSError(28, "No space left on device")
        self.done.append(name)

    def write_json(self, name: str, document: object) -> None: ...

    def copy(self, source: Path) -> None: ...

    def has_shard(self, name: str) -> bool:
        return False


def test_the_maker_does_not_wait_for_the_disk() -> None:
    """For the shard it has handed over; at the end all of them are there, in order."""
    output = Gate()
    with ShardWriter(output) as writer:
        writer.write("one", {})
        assert output.done == []
        output.may_write.set()
        writer.write("two", {})
        assert output.done[0] == "one"
        writer.write("three", {})
    assert output.done == ["one", "two", "three"]


@pytest.mark.parametrize("fail_at", ["one", "two", "three"])
def test_a_disk_that_refuses(fail_at: str) -> None:
    """Ends the work, at the next shard or at the end, and nothing behind it is written."""
    output = Gate(fail_at=fail_at)
    output.may_write.set()
    with pytest.raises(OSError, match="No space left"), ShardWriter(output) as writer:
        for name in ("one", "two", "three"):
            writer.write(name, {})
    assert output.done == ["one", "two", "three"][: ["one", "two", "three"].index(fail_at)]


def test_work_that_fails_while_a_shard_is_written() -> None:
    """Says what it met itself; when it is left nobody writes any more."""
    output = Gate()
    with pytest.raises(EngineFault, match="ours"), ShardWriter(output) as writer:
        writer.write("one", {})
        threading.Timer(0.01, output.may_write.set).start()
        raise EngineFault("ours")
    assert output.done == ["one"]


def _host_is_full() -> None:
    import torch

    torch.empty(1 << 60, dtype=torch.uint8)


def _device_is_full() -> None:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def _python_is_full() -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("full", "device"),
    [(_host_is_full, "cpu"), (_device_is_full, "cuda"), (_python_is_full, "cuda")],
)
def test_a_job_that_memory_does_not_suffice_for(full: Callable[[], None], device: str) -> None:
    """Is told so, and where: it is no fault of ours."""
    from ixc_runtime.jobs.work import memory_faults

    with pytest.raises(MemoryLow) as raised, memory_faults("cuda"):
        full()
    assert raised.value.metadata == {"device": device}
    with pytest.raises(RuntimeError, match="another"), memory_faults("cuda"):
        raise RuntimeError("another")
