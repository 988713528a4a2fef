"""The media workers: what they take, what they survive, and that none is left behind.

A picture that hangs its decoder is played by a named pipe: opening it waits for ever.
"""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop
from PIL import Image

from ixc_runtime.errors import (
    EngineFault,
    MediaTypeUnsupported,
    MediaUndecodable,
    QueueFull,
    RuntimeFault,
    ServerDraining,
)
from ixc_runtime.media.geometry import ImageInfo
from ixc_runtime.media.jobs import (
    to_frame,
)
from ixc_runtime.media.pool import MediaWorkers
from ixc_runtime.media.transform import transform_image
from ixc_runtime.media.worker_settings import MediaSettings
from tests.fakes.pictures import encoded, file_of


@contextlib.asynccontextmanager
async def running(**settings) -> AsyncIterator[MediaWorkers]:
    """One worker unless told otherwise; afterwards no process may be left."""
    num_workers = settings.pop("num_workers", 1)
    workers = MediaWorkers(num_workers=num_workers, settings=MediaSettings(**settings))
    await workers.start()
    seen = set(workers.process_ids)
    try:
        yield workers
    finally:
        seen |= set(workers.process_ids)
        await workers.close()
        assert workers.process_ids == ()
        assert not any(map(exists, seen))


def exists(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - no event of this loop tells
            await asyncio.sleep(0.002)


def hanging(folder: Path) -> Path:
    path = folder / "pipe"
    os.mkfifo(path)
    return path


async def test_a_picture(tmp_path):
    """Probed and rendered by a worker; the pixels lie in one file that only we may read."""
    path = file_of(tmp_path, encoded("PNG"))
    output_dir = tmp_path / "out"
    output_dir.mkdir()
    async with running() as workers:
        info = await workers.probe(path)
        rendered = await workers.render(path, hd_num=6, tile_size=56, output_dir=output_dir)
    assert info == ImageInfo(width=90, height=60, format="PNG")
    with Image.open(path) as image:
        expected = transform_image(image, hd_num=6, tile_size=56)
    assert expected.size == (rendered.width, rendered.height)
    assert expected.tobytes() == rendered.path.read_bytes()
    assert [rendered.path] == list(output_dir.iterdir())
    assert rendered.path.stat().st_mode & 0o777 == 0o600


async def test_what_is_not_a_picture_we_take(tmp_path):
    """Refused by kind; no file is left, and the worker goes on."""
    output_dir = tmp_path / "out"
    output_dir.mkdir()
    options = {"hd_num": 6, "tile_size": 56, "output_dir": output_dir}
    async with running() as workers:
        before = workers.process_ids
        with pytest.raises(MediaTypeUnsupported, match="not a PNG"):
            await workers.render(file_of(tmp_path, b"hello"), **options)
        with pytest.raises(MediaUndecodable, match="broken or cut off"):
            await workers.render(file_of(tmp_path, encoded("PNG")[:2000]), **options)
        assert before == workers.process_ids
    assert not list(output_dir.iterdir())


def test_under_uvloop(tmp_path):
    """The server's event loop drives the workers as asyncio's own does."""
    path = file_of(tmp_path, encoded("PNG"))

    async def scenario() -> None:
        async with running(job_seconds=0.2) as workers:
            assert (await workers.probe(path)).width == 90
            with pytest.raises(MediaUndecodable, match=r"longer than 0\.2 s"):
                await workers.probe(hanging(tmp_path))
            assert (await workers.probe(path)).height == 60

    uvloop.run(scenario())


async def test_a_limit_on_pixels(tmp_path):
    """The limit is a setting; exactly at it a picture is still taken."""
    async with running(max_pixels=5400) as workers:
        assert (await workers.probe(file_of(tmp_path, encoded("PNG")))).width == 90
        with pytest.raises(MediaUndecodable, match="more than 5400 pixels"):
            await workers.probe(file_of(tmp_path, encoded("PNG", (91, 60))))


async def test_a_picture_that_needs_too_much_memory(tmp_path):
    """It is refused, and the worker whose memory it took is replaced."""
    path = tmp_path / "black.png"
    Image.new("1", (12_000, 8_000)).save(path)
    small = file_of(tmp_path, encoded("PNG"))
    async with running(memory_bytes=256 << 20) as workers:
        (first,) = workers.process_ids
        with pytest.raises(MediaUndecodable, match="needs more than 268435456 bytes"):
            await workers.render(path, hd_num=6, tile_size=56, output_dir=tmp_path)
        assert (await workers.probe(small)).width == 90
        assert workers.process_ids != (first,)


async def test_a_file_that_is_gone(tmp_path):
    """A missing file is our own fault, not the caller's, and its path is not told."""
    async with running() as workers:
        with pytest.raises(EngineFault) as caught:
            await workers.probe(tmp_path / "nothing")
    assert str(tmp_path) not in str(caught.value)


async def test_a_picture_that_hangs(tmp_path):
    """Past the time limit its worker is killed and replaced; no file is left."""
    path = file_of(tmp_path, encoded("PNG"))
    output_dir = tmp_path / "out"
    output_dir.mkdir()
    async with running(job_seconds=0.2) as workers:
        (first,) = workers.process_ids
        with pytest.raises(MediaUndecodable, match=r"longer than 0\.2 s"):
            await workers.render(hanging(tmp_path), hd_num=6, tile_size=56, output_dir=output_dir)
        assert (await workers.probe(path)).width == 90
        assert not exists(first)
    assert not list(output_dir.iterdir())


async def test_a_worker_that_dies(tmp_path):
    """Its own job fails, its neighbour's does not, and the next one finds a new worker."""
    path = file_of(tmp_path, encoded("PNG"))
    async with running(num_workers=2) as workers:
        before = set(workers.process_ids)
        pipe = hanging(tmp_path)
        job = asyncio.create_task(workers.probe(pipe))
        writer = os.open(pipe, os.O_RDWR)  # lets the worker in, and leaves it waiting for bytes
        await until(lambda: any(holds(process_id, pipe) for process_id in before))
        (busy,) = (process_id for process_id in before if holds(process_id, pipe))
        os.kill(busy, signal.SIGSEGV)
        assert (await workers.probe(path)).width == 90
        with pytest.raises(MediaUndecodable, match="made its decoder fail"):
            await job
        os.close(writer)
        await until(lambda: workers.num_ready == 2)
        assert busy not in workers.process_ids
        assert len(before & set(workers.process_ids)) == 1


def holds(process_id: int, path: Path) -> bool:
    """Whether a process has a file open."""
    descriptors = list(Path(f"/proc/{process_id}/fd").iterdir())
    return any(descriptor.readlink() == path for descriptor in descriptors)


async def test_an_idle_worker_that_dies(tmp_path):
    """Nobody's job fails: the next one gets a new worker."""
    path = file_of(tmp_path, encoded("PNG"))
    async with running() as workers:
        (first,) = workers.process_ids
        os.kill(first, signal.SIGKILL)
        await until(lambda: workers.num_ready == 0)
        assert not exists(first)
        assert (await workers.probe(path)).width == 90


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_workers_that_cannot_start_for_a_while(tmp_path, monkeypatch, caplog, new_loop):
    """They are tried again until they do, whichever way the loop puts it that one died at once."""
    path, out_of_order = file_of(tmp_path, encoded("PNG")), tmp_path / "out of order"
    (tmp_path / "sitecustomize.py").write_text(
        f"import os\nif os.path.exists({str(out_of_order)!r}):\n    os._exit(1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def num_failures() -> int:
        return sum("does not start" in record.message for record in caplog.records)

    async def scenario() -> None:
        async with running() as workers:
            out_of_order.touch()
            os.kill(workers.process_ids[0], signal.SIGKILL)
            await until(lambda: workers.num_ready == 0)
            job = asyncio.create_task(workers.probe(path))
            await until(lambda: num_failures() >= 3)
            out_of_order.unlink()
            assert (await job).width == 90

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())


async def test_a_worker_that_dies_just_before_it_is_killed(tmp_path, caplog):
    """Its end is noticed once and by the event loop, which has nothing to complain of."""
    path = file_of(tmp_path, encoded("PNG"))
    async with running() as workers:
        for _ in range(5):
            (first,) = workers.process_ids
            os.kill(first, signal.SIGKILL)
            with contextlib.suppress(MediaUndecodable):  # it may be asked before its end is known
                await workers.probe(path)
            assert (await workers.probe(path)).width == 90
    assert "nknown child" not in caplog.text


async def test_a_caller_that_gives_up(tmp_path):
    """A cancelled job's worker is killed and replaced, and its file removed."""
    path = file_of(tmp_path, encoded("PNG"))
    output_dir = tmp_path / "out"
    output_dir.mkdir()
    async with running() as workers:
        (first,) = workers.process_ids
        job = asyncio.create_task(
            workers.render(hanging(tmp_path), hd_num=6, tile_size=56, output_dir=output_dir)
        )
        await until(lambda: bool(list(output_dir.iterdir())))
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert not list(output_dir.iterdir())
        assert (await workers.probe(path)).width == 90
        assert not exists(first)


async def test_a_caller_that_gives_up_in_the_queue(tmp_path):
    """A job cancelled while it waits leaves the queue and touches no worker."""
    path = file_of(tmp_path, encoded("PNG"))
    async with running() as workers:
        busy = asyncio.create_task(workers.probe(hanging(tmp_path)))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(workers.probe(path))
        await until(lambda: workers.num_waiting == 1)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert workers.num_waiting == 0
        busy.cancel()
        await asyncio.wait({busy})
        assert (await workers.probe(path)).width == 90


async def test_more_pictures_than_the_queue_holds(tmp_path):
    """One more than may wait is refused at once, with the depth."""
    path = file_of(tmp_path, encoded("PNG"))
    async with running(queue_limit=1) as workers:
        jobs = [asyncio.create_task(workers.probe(hanging(tmp_path)))]
        await until(lambda: workers.num_waiting == 0)
        await asyncio.sleep(0)
        jobs.append(asyncio.create_task(workers.probe(path)))
        await until(lambda: workers.num_waiting == 1)
        with pytest.raises(QueueFull, match="1 pictures wait") as caught:
            await workers.probe(path)
        assert caught.value.metadata["depth"] == "1"
        jobs[0].cancel()
        assert (await jobs[1]).width == 90


async def test_no_worker_in_time(tmp_path):
    """A job that waited as long as it may is refused rather than kept."""
    async with running(queue_seconds=0.1) as workers:
        busy = asyncio.create_task(workers.probe(hanging(tmp_path)))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match=r"within 0\.1 s"):
            await workers.probe(tmp_path / "any")
        busy.cancel()
        await asyncio.wait({busy})


async def test_closing_with_work_under_way(tmp_path):
    """Running and waiting jobs end as draining, at once; closing again does nothing."""
    async with running() as workers:
        jobs = [asyncio.create_task(workers.probe(hanging(tmp_path)))]
        await asyncio.sleep(0)
        jobs.append(asyncio.create_task(workers.probe(tmp_path / "any")))
        await until(lambda: workers.num_waiting == 1)
        await workers.close()
        for job in jobs:
            with pytest.raises(ServerDraining):
                await job
        with pytest.raises(ServerDraining):
            await workers.probe(tmp_path / "any")


async def test_a_worker_that_has_seen_enough(tmp_path):
    """After its share of jobs a worker makes room for a new one."""
    path = file_of(tmp_path, encoded("PNG"))
    async with running(jobs_per_worker=2) as workers:
        seen = set()
        for _ in range(5):
            await workers.probe(path)
            seen |= set(workers.process_ids)
        await until(lambda: workers.num_ready == 1)
        seen |= set(workers.process_ids)
    assert len(seen) == 3


def test_a_server_that_is_gone():
    """A worker whose server has died without a word ends by itself."""
    command = [sys.executable, "-m", "ixc_runtime.media.worker"]
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as worker:
        worker.stdin.write(to_frame(MediaSettings().worker_limits))
        worker.stdin.close()
        assert worker.wait(20) == 0


async def test_what_a_worker_is_given(monkeypatch):
    """No variable of the server's, and limits that it cannot raise."""
    monkeypatch.setenv("A_SECRET_OF_THE_SERVER", "hunter2")
    async with running(memory_bytes=900 << 20) as workers:
        (process_id,) = workers.process_ids
        process = Path("/proc", str(process_id))
        variables = process.joinpath("environ").read_bytes().split(b"\0")
        limits = process.joinpath("limits").read_text()
        descriptors = list(process.joinpath("fd").iterdir())
    assert {name.split(b"=")[0] for name in variables if name} == {
        *(b"PYTHONPATH", b"LC_ALL", b"PATH", b"OPENBLAS_NUM_THREADS")
    }
    for name, value in (("address space", 900 << 20), ("open files", 16), ("processes", 0)):
        (line,) = (line for line in limits.splitlines() if f"Max {name}" in line)
        assert line.removeprefix(f"Max {name}").split()[:2] == [str(value)] * 2
    assert len(descriptors) <= 6


async def test_mutated_pictures(tmp_path):
    """Whatever is done to a picture's bytes, it is rendered or refused, and the next one served."""
    dice = random.Random(20)
    originals = [encoded(name, (48, 40)) for name in ("PNG", "JPEG", "WEBP", "GIF", "BMP")]
    path = tmp_path / "mutant"
    async with running(num_workers=2) as workers:
        for _ in range(200):
            data = bytearray(dice.choice(originals))
            for _ in range(dice.randint(1, 12)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            if dice.random() < 0.3:
                del data[dice.randrange(len(data)) :]
            path.write_bytes(data)
            try:
                rendered = await workers.render(path, hd_num=1, tile_size=28, output_dir=tmp_path)
                rendered.path.unlink()
            except RuntimeFault as fault:
                assert isinstance(fault, MediaUndecodable | MediaTypeUnsupported)
        assert (await workers.probe(file_of(tmp_path, originals[0]))).width == 48
    assert not list(tmp_path.glob("*.rgb"))
