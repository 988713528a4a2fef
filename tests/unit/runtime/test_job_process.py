"""The process of a job, seen from outside: started, stopped, orphaned."""

import asyncio
import os
import socket
import sys
from pathlib import Path

import msgspec
import pytest

from ixc_runtime.errors import JobCancelled, ModelIdTaken, WorkerLost
from ixc_runtime.jobs import JobProcess, Progress
from ixc_runtime.jobs.messages import Begin, encode
from tests.fakes.interrupted_job import job, make
from tests.fakes.server_process import is_alive

SYNTHETIC = "tests.fakes.synthetic_job"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("ixc_runtime.jobs.host.WORKER_MODULE", SYNTHETIC)
    return make(tmp_path / "models")


async def test_a_job(root: Path) -> None:
    """Tells of its progress, ends with its result, and its process is gone."""
    process, events = JobProcess(job(root)), []
    result = await process.run(events.append)
    assert result.published.model == "made"
    assert any(isinstance(event, Progress) for event in events)
    assert process.process_id is not None and not is_alive(process.process_id)


async def test_its_fault(root: Path) -> None:
    """Crosses over with its class and its figures."""
    (root / "made").mkdir()
    with pytest.raises(ModelIdTaken) as raised:
        await JobProcess(job(root)).run(lambda event: None)
    assert raised.value.metadata["model"] == "models/made"


async def test_a_process_that_dies(root: Path) -> None:
    """Is told apart from one that fails."""
    (root / "source" / "die-2").touch()
    with pytest.raises(WorkerLost):
        await JobProcess(job(root)).run(lambda event: None)


@pytest.mark.parametrize("early", [True, False])
async def test_a_cancel(root: Path, early: bool) -> None:
    """Before it has begun or while it works: it ends as cancelled."""
    (root / "source" / "hold-1").touch()
    process = JobProcess(job(root))
    if early:
        process.cancel()
        with pytest.raises(JobCancelled):
            await process.run(lambda event: None)
        return
    with pytest.raises(JobCancelled):
        await process.run(lambda event: process.cancel())


async def test_a_host_that_gives_up(root: Path) -> None:
    """Its task is cancelled: the process ends at once, and what it finished stays."""
    (root / "source" / "hold-3").touch()
    process = JobProcess(job(root))
    begun = asyncio.Event()
    running = asyncio.create_task(process.run(lambda event: begun.set()))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert process.process_id is not None and not is_alive(process.process_id)


async def test_a_host_that_is_gone(root: Path) -> None:
    """The process notices, and ends by itself though it is at work."""
    hold = root / "source" / "hold-2"
    hold.touch()
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", SYNTHETIC, str(theirs.fileno())),
            pass_fds=[theirs.fileno()],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
    ours.sendall(encode(Begin(job(root))))
    assert await asyncio.to_thread(ours.recv, 1)
    ours.close()
    async with asyncio.timeout(20):
        assert await process.wait() == 3
    assert hold.exists()


async def test_it_makes_way(root: Path) -> None:
    """For cores and for memory: whoever answers people goes first."""
    hold = root / "source" / "hold-2"
    hold.touch()
    process = JobProcess(msgspec.structs.replace(job(root), niceness=7))
    begun = asyncio.Event()
    running = asyncio.create_task(process.run(lambda event: begun.set()))
    await begun.wait()
    pid = process.process_id
    assert pid is not None
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + 7
    assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) == 800
    hold.unlink()
    await running
