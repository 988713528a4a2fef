"""Timing on a GPU: what the chip allows, how long a call takes, and what becomes of it in a row.

A time is judged by its floor: the bytes that must move and the operations that must be done, over
the rates that the same run measured. Calls are captured in a CUDA graph and replayed, so that the
host's part is not measured, and go round over several sets of buffers, so that the caches do not
serve what memory should.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

import torch

from ixc_cuda.device import DeviceInfo, check_device, installed
from tests.bench.record import origin

_PACKAGES = ("ixc", "torch", "cupy-cuda13x", "cuda-bindings", "nvidia-cuda-nvrtc", "numpy")

Call = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """What this GPU reaches at its simplest, measured in the same run."""

    copy_bytes_per_second: float  # read and written together
    read_bytes_per_second: float
    bf16_operations_per_second: float  # a product of 8192 x 8192 matrices


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Microseconds of one call, timed many times."""

    median: float
    spread: float  # between the outer tenths
    least: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One quantity. `ratio` is the share of the best that is reached: 1 leaves nothing to gain."""

    name: str
    value: float
    unit: str
    floor: float | None  # the best that the ceilings allow, in the same unit
    ratio: float | None
    spread: float  # of the value, in the same unit
    rate: str = ""  # the same as bytes or operations per second, for the reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a benchmark of a kernel is given."""

    device: DeviceInfo
    ceilings: Ceilings
    repeats: int = 20

    def time(self, calls: Sequence[Call]) -> Timing:
        """Microseconds per call, of calls that do the same on different buffers; see `num_sets`."""
        return time_calls(calls, self.repeats)

    def num_sets(self, num_bytes: int) -> int:
        """How many sets of `num_bytes` a benchmark goes round, to find none of them in the L2."""
        return max(2, min(64, 3 * self.device.l2_bytes // max(num_bytes, 1) + 1))

    def row(self, name: str, timing: Timing, *, num_bytes: int = 0, operations: int = 0) -> Row:
        """A row of microseconds, judged by the bytes and operations that no version can avoid."""
        moving = num_bytes / self.ceilings.read_bytes_per_second * 1e6
        computing = operations / self.ceilings.bf16_operations_per_second * 1e6
        floor = max(moving, computing)
        seconds = timing.median / 1e6
        return Row(
            name=name,
            value=timing.median,
            unit="us",
            floor=floor or None,
            ratio=floor / timing.median if floor else None,
            spread=timing.spread,
            rate=f"{num_bytes / seconds / 1e12:.2f} TB/s"
            if moving >= computing
            else f"{operations / seconds / 1e12:.0f} TFLOP/s",
        )


def time_calls(calls: Sequence[Call], repeats: int) -> Timing:
    """Microseconds per call, by events around replays of a graph that holds all of them."""
    graph = torch.cuda.CUDAGraph()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in calls:  # compiles, loads and chooses algorithms outside of the capture
            call()
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    # Short graphs are replayed several times between two events, whose own grain is half a µs.
    rounds = max(1, round(1000 / max(_microseconds(graph, 3), 1)))
    values = [_microseconds(graph, rounds) / len(calls) for _ in range(repeats)]
    ordered = sorted(values)
    tenth = len(ordered) // 10
    return Timing(
        median=statistics.median(ordered),
        spread=ordered[-1 - tenth] - ordered[tenth],
        least=ordered[0],
    )


def _microseconds(graph: torch.cuda.CUDAGraph, rounds: int) -> float:
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    graph.replay()  # so that the device is busy while the host gets ahead
    before.record()
    for _ in range(rounds):
        graph.replay()
    after.record()
    after.synchronize()
    return before.elapsed_time(after) * 1e3 / rounds


def measure_ceilings(device: DeviceInfo) -> Ceilings:
    """Large copies, large sums and a large product, each at its best; on random data.

    Zeros run faster. So does a product before the chip meets its limit of power, some ten
    milliseconds after a pause, and that rate is what a short kernel has to be held against.
    """
    num_bytes = min(4 << 30, device.memory_bytes // 8)
    source = torch.randn(num_bytes // 4, device="cuda")
    target = torch.empty_like(source)
    # By a kernel: a graph gives plain copies to the copy engines, which are slower.
    copied = time_calls([partial(torch.neg, source, out=target)], 10)
    read = time_calls([partial(torch.sum, source)], 10)
    del source, target
    side = 8192
    left, right = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = torch.empty_like(left)
    torch.cuda.synchronize()
    time.sleep(0.5)
    multiplied = time_calls([partial(torch.matmul, left, right, out=product)], 5)
    return Ceilings(
        copy_bytes_per_second=2 * num_bytes / copied.least * 1e6,
        read_bytes_per_second=num_bytes / read.least * 1e6,
        bf16_operations_per_second=2 * side**3 / multiplied.least * 1e6,
    )


def prepare(repeats: int) -> Context:
    """The GPU, ready to be measured; `DeviceRefused` where there is none."""
    device = check_device(0)
    return Context(device=device, ceilings=measure_ceilings(device), repeats=repeats)


def show_rows(title: str, context: Context, rows: Iterable[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    ceilings = context.ceilings
    table = Table(
        title=title,
        caption=f"{context.device.name}: copy {ceilings.copy_bytes_per_second / 1e12:.2f} TB/s, "
        f"read {ceilings.read_bytes_per_second / 1e12:.2f} TB/s, "
        f"bf16 {ceilings.bf16_operations_per_second / 1e12:.0f} TFLOP/s",
    )
    table.add_column("what", no_wrap=True)
    for column in ("measured", "spread", "best possible", "share of it", "rate"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.value:,.2f} {row.unit}",
            f"{row.spread:,.2f}",
            f"{row.floor:,.2f}" if row.floor is not None else "",
            f"{row.ratio:.0%}" if row.ratio is not None else "",
            row.rate,
        )
    Console(width=140).print(table)


def write_rows(
    path: Path, context: Context, rows: Sequence[Row], settings: Mapping[str, object]
) -> None:
    document = origin() | {
        "versions": versions(),
        "gpu": asdict(context.device),
        "settings": settings,
        "ceilings": asdict(context.ceilings),
        "rows": [asdict(row) for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {path}")


def versions() -> dict[str, str | int | None]:
    """Of whatever has a part in what a kernel takes."""
    found = installed()
    return {
        **{name: _version(name) for name in _PACKAGES},
        "cuda of torch": found.torch_cuda,
        "cuda of the driver": found.driver,
        "driver": _driver_version(),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _driver_version() -> str:
    try:
        first = Path("/proc/driver/nvidia/version").read_text(encoding="ascii").partition("\n")[0]
    except OSError:
        return "unknown"
    # "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (…)"
    return next((word for word in first.split() if word.count(".") == 2), first)
