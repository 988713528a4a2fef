"""The server as processes of its own, for tests that kill them, stop them and weigh them.

async with running_process(folder, model, synthetic=True) as served:
served.kill(); await served.start()        # the same address and data as before
"""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.fakes.tiny_checkpoint import write_tiny_checkpoint
from tests.fakes.tiny_tokenizer import write_tokenizer_model

REAL = "ixc_service"
SYNTHETIC = "tests.fakes.synthetic_server"
# Nothing waits between attempts to connect: the tests' servers are gone for moments only.
CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


def write_model(folder: Path, *, max_positions: int = 1024) -> Path:
    write_tiny_checkpoint(folder, vocab=1000, max_positions=max_positions)
    write_tokenizer_model(folder, vocab_size=1000)
    return folder


@dataclass
class ServerProcess:
    """`address` stays the same over restarts. `module` is what `python -m` runs."""

    module: str
    flags: tuple[str, ...]
    environ: Mapping[str, str]
    address: str
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def process(self) -> Process:
        assert self._process is not None, "started"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    async def start(self) -> None:
        """Returns once it takes calls."""
        environ = {"PYTHONPATH": os.pathsep.join(sys.path), **self.environ}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", self.module, f"--listen={self.address}", *self.flags),
            stderr=PIPE,
            env={**os.environ, **environ},
        )
        is_ready = asyncio.Event()
        self._reading = asyncio.create_task(self._read(self._process, is_ready))
        waiting = asyncio.ensure_future(is_ready.wait())
        async with asyncio.timeout(60):
            await asyncio.wait({waiting, self._reading}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        assert is_ready.is_set(), "".join(self.log[-40:])

    async def _read(self, process: Process, is_ready: asyncio.Event) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            self.log.append(line.decode(errors="replace"))
            if self.log[-1].startswith("  listens "):  # the plan is printed once the port is open
                is_ready.set()

    async def kill(self) -> None:
        """As a power cut would: no handler runs, and its children find themselves alone."""
        children = descendants(self.pid)
        self.process.kill()
        await self.process.wait()
        await all_gone(children)

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            return await self.process.wait()

    @property
    def engine_pid(self) -> int | None:
        """The engine's, if it is up."""
        marks = ("ixc_runtime.engine_process.process", "tests.fakes.synthetic_engine")
        for pid in descendants(self.pid):
            if any(mark in command_line(pid) for mark in marks):
                return pid
        return None

    async def ready(self, seconds: float = 60.0) -> None:
        """Waits until `readiness` is SERVING."""
        async with self.channel() as channel, asyncio.timeout(seconds):
            watch = HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="readiness"))
            async for response in watch:
                if response.status == health_pb2.HealthCheckResponse.SERVING:
                    watch.cancel()
                    return

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS)


@contextlib.asynccontextmanager
async def running_process(
    folder: Path,
    model: Path,
    *flags: str,
    synthetic: bool = False,
    address: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[ServerProcess]:
    served = ServerProcess(
        module=SYNTHETIC if synthetic else REAL,
        flags=(
            *(f"--model={model}", f"--data-dir={folder}/data", "--threads=1"),
            *("--drain-notice-seconds=0", *flags),
        ),
        environ=environ or {},
        address=address or f"unix:{folder}/ixc.sock",
    )
    await served.start()
    try:
        yield served
    finally:
        if served.process.returncode is None:
            await served.kill()


# ---- what /proc says of processes


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def is_alive(pid: int) -> bool:
    """Whether it runs; one that has ended and was not waited for does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def all_gone(pids: list[int], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while any(map(is_alive, pids)):  # noqa: ASYNC110 - no event for what is not our child
            await asyncio.sleep(0.01)


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """Of the process itself, all threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
