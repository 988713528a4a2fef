"""Merging and quantising at full size, beside what the disk needs for the same bytes.

    python -m tests.bench.weights_speed --device cuda [--folder DIR] [--parts merge,quantize]

Makes a checkpoint of random weights in the official names, shapes and sizes (22 GB, on the device),
then measures, each part in a process of its own so that its memory is its own:

* ceiling: plain writing, with fsync, of as many bytes in as many files as the merge writes, plain
  reading of the checkpoint, and hashing, which whatever a job writes goes through;
* merge: MergeLora of `write`, the larger of the two merges;
* quantize: Quantize with the scale and clipping search, adapters compensated, over random texts
  and pictures; seconds by layer, the device's and the host's peak memory. It is given no more of
  the device than a card of 24 GB has.

Both write as jobs do: hashed, synced and journalled file by file. What a job does before and after
(hashing its inputs, reading back, comparing) is not in the figures.

Needs 42 GB of disk; every part removes what it wrote but the checkpoint. The figures are written
after each part, so that a run that is cut off keeps what it has found. Random weights say nothing
about quality: `relative_error` in the output is of no meaning here. Smaller sizes by --layers,
--hidden and so on try the script out.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from ixc_runtime.jobs.output import StagedOutput
from ixc_runtime.models_root import ModelsRoot
from ixc_runtime.models_root.staging import Mark
from ixc_runtime.weights import MergeSettings, QuantizeSettings
from ixc_runtime.weights.awq.layerwise import quantize_over
from ixc_runtime.weights.merge import merge
from ixc_runtime.weights.source import Source
from ixc_runtime.weights.walk import Passage
from tests.bench.full_size_checkpoint import add_sizes, sizes_of, write_checkpoint
from tests.bench.record import RESULTS, Goal, Measurement, show, write

PARTS = ("make", "ceiling", "merge", "quantize")
MERGE_SECONDS, DISK_FACTOR = 60.0, 1.3
QUANTIZE_SECONDS, DEVICE_GIB = 300.0, 24.0
TELL_SECONDS = 5.0
CONTEXT_GIB = 1.0  # of the device's memory, which CUDA takes for itself


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("/tmp/ixc-full-size"))
    parser.add_argument("--parts", default=",".join(PARTS), help="of make,ceiling,merge,quantize")
    parser.add_argument("--only", choices=PARTS, help=argparse.SUPPRESS)  # one part, in here
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=2, help="of ceiling and merge")
    add_sizes(parser)
    parser.add_argument("--group-size", type=int, default=128)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--text-tokens", type=int, default=512)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--output", type=Path, default=RESULTS / "weights_speed.json")
    return parser


def main() -> int:
    args = arguments().parse_args()
    if args.only:
        within_a_card(args)
        print(json.dumps(_RUN[args.only](args)))
        return 0
    figures: dict[str, dict[str, list[float]]] = {}
    failed = []
    for part in args.parts.split(","):
        print(f"== {part}", flush=True)
        try:
            figures[part] = in_own_process(part)
        except subprocess.CalledProcessError as error:
            print(f"   failed: exit status {error.returncode}", flush=True)
            failed.append(part)
        else:
            measurements, goals = record(args, figures)
    if figures:
        show(measurements, goals)
    return 1 if failed else 0


def record(
    args: argparse.Namespace, figures: Mapping[str, Mapping[str, list[float]]]
) -> tuple[list[Measurement], list[Goal]]:
    """Writes all that is known by now."""
    measurements = [
        Measurement(name=f"{part}, {name}", unit=unit_of(name), values=tuple(values))
        for part, of_part in figures.items()
        for name, values in of_part.items()
    ]
    goals = list(goals_of({each.name: each for each in measurements}))
    settings = {name: str(value) for name, value in vars(args).items() if name != "only"}
    settings["torch"] = torch.__version__
    if torch.cuda.is_available():
        settings["gpu"] = torch.cuda.get_device_name()
    write(args.output, measurements, goals, settings)
    return measurements, goals


def in_own_process(part: str) -> dict[str, list[float]]:
    """The part's figures: the last line it prints."""
    command = [sys.executable, "-m", "tests.bench.weights_speed", *sys.argv[1:], "--only", part]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    for name, values in figures.items():
        print(f"   {name}: {', '.join(f'{value:.2f}' for value in values[:8])}", flush=True)
    return figures


def within_a_card(args: argparse.Namespace) -> None:
    """From here on torch gets no more of the device than a small card would give it."""
    if "cuda" in args.device:
        total = torch.cuda.get_device_properties(args.device).total_memory / 2**30
        share = min(1.0, (DEVICE_GIB - CONTEXT_GIB) / total)
        torch.cuda.set_per_process_memory_fraction(share, torch.cuda.current_device())


def unit_of(name: str) -> str:
    return next((unit for unit in ("GiB", "GB/s") if unit in name), "s")


def goals_of(measured: Mapping[str, Measurement]) -> Iterator[Goal]:
    """Each as how many times the time, or the memory, would have been allowed."""
    if merging := measured.get("merge, time"):
        writing = measured.get("ceiling, write")
        allowed = max(MERGE_SECONDS, DISK_FACTOR * writing.median if writing else 0.0)
        yield Goal(
            name=f"{allowed:.0f} s / merge, time", ratio=allowed / merging.median, at_least=1
        )
    if quantizing := measured.get("quantize, time"):
        ratio = QUANTIZE_SECONDS / quantizing.median
        yield Goal(name=f"{QUANTIZE_SECONDS:.0f} s / quantize, time", ratio=ratio, at_least=1)
    peak = measured.get("quantize, device peak GiB")
    if peak and peak.median:
        ratio = DEVICE_GIB / (peak.median + CONTEXT_GIB)
        yield Goal(name=f"{DEVICE_GIB:.0f} GiB / quantize, device peak", ratio=ratio, at_least=1)


def make(args: argparse.Namespace) -> dict[str, list[float]]:
    began = time.perf_counter()
    total = write_checkpoint(args.folder / "source", sizes_of(args), device=args.device)
    return {"time": [time.perf_counter() - began], "size GiB": [total / 2**30]}


# ---- what is measured


class Clock:
    """A Report that notes when each layer was done, and tells how far it is now and then."""

    def __init__(self) -> None:
        self._last = self._told = time.perf_counter()
        self.layers: list[float] = []

    def stage(self, name: str, *, index: int, count: int) -> None:
        self._last = time.perf_counter()

    def item(self, name: str, *, done: int, total: int) -> None:
        now = time.perf_counter()
        if name.startswith("model.layers."):
            self.layers.append(now - self._last)
        if now - self._told > TELL_SECONDS:
            self._told = now
            print(f"{name}: {done / total:.0%}", file=sys.stderr, flush=True)
        self._last = now

    def metric(self, *, layer: str, name: str, value: float) -> None:
        pass

    def log(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def synced(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder for as long as the block lasts, empty at first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def staged(folder: Path) -> Iterator[StagedOutput]:
    """The output of a job, which is gone afterwards."""
    mark = Mark(job="bench", owner="bench", output="model", identity="bench")
    with scratch(folder), ModelsRoot(folder).stage(mark) as staging:
        yield StagedOutput(staging, lambda: None)


def ceiling(args: argparse.Namespace) -> dict[str, list[float]]:
    """The merge's bytes by plain writes of files as large; the checkpoint's by plain reads."""
    kept = sum(
        entry.num_bytes
        for name, entry in Source(args.folder / "source").entries.items()
        if ".lora_" not in name
    )
    file_bytes = MergeSettings().max_shard_bytes
    block = memoryview(os.urandom(64 << 20))
    writes, reads, hashes = [], [], []
    for _ in range(args.repeats):
        with scratch(args.folder / "plain") as folder:
            began, left = time.perf_counter(), kept
            while left:
                path, size = folder / f"{left}.bin", min(file_bytes, left)
                with path.open("wb", buffering=0) as stream:
                    for start in range(0, size, len(block)):
                        stream.write(block[: size - start])
                synced(path)
                left -= size
            writes.append(time.perf_counter() - began)
        began = time.perf_counter()
        buffer = bytearray(64 << 20)
        for path in sorted((args.folder / "source").glob("*.safetensors")):
            with path.open("rb", buffering=0) as stream:
                while stream.readinto(buffer):
                    pass
        reads.append(time.perf_counter() - began)
        began = time.perf_counter()
        hashlib.sha256(block)
        hashes.append(len(block) / 1e9 / (time.perf_counter() - began))
    rates = [kept / 1e9 / seconds for seconds in writes]
    return {"write": writes, "write rate GB/s": rates, "read": reads, "hash rate GB/s": hashes}


def merging(args: argparse.Namespace) -> dict[str, list[float]]:
    settings = MergeSettings(task="write", dtype="bfloat16", device=args.device)
    seconds, gib = [], []
    for _ in range(args.repeats):
        with staged(args.folder / "merged") as output:
            began = time.perf_counter()
            summary = merge(args.folder / "source", output, settings, Clock())
            seconds.append(time.perf_counter() - began)
            gib.append(summary.num_bytes / 2**30)
    return {"time": seconds, "size GiB": gib, **peaks(args)}


def quantizing(args: argparse.Namespace) -> dict[str, list[float]]:
    settings = QuantizeSettings(group_size=args.group_size, device=args.device)
    source, clock = Source(args.folder / "source"), Clock()
    with staged(args.folder / "quantised") as output:
        began = time.perf_counter()
        summary = quantize_over(tuple(passages(args)), source, output, settings, clock)
        seconds = time.perf_counter() - began
    return {
        "time": [seconds],
        "time of a layer": clock.layers,
        "size GiB": [summary.num_bytes / 2**30],
        **peaks(args),
    }


def passages(args: argparse.Namespace) -> Iterator[Passage]:
    """Random ids and noise. A picture of one tile takes 841 slots, and words follow it."""
    generator = torch.Generator().manual_seed(1)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, args.vocab, (count,), generator=generator).tolist())

    for _ in range(args.texts):
        yield Passage(token_ids=ids(args.text_tokens), judged=slice(0, args.text_tokens - 1))
    for _ in range(args.pictures):
        noise = torch.randint(0, 256, (560, 560, 3), dtype=torch.uint8, generator=generator)
        yield Passage(token_ids=(*[-1] * 841, *ids(40)), canvases=(noise,), judged=slice(841, 880))


def peaks(args: argparse.Namespace) -> dict[str, list[float]]:
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    device = used = 0.0
    if "cuda" in args.device:
        used = torch.cuda.max_memory_allocated() / 2**30
        device = torch.cuda.max_memory_reserved() / 2**30  # with what torch holds in reserve
    return {"host peak GiB": [host], "device peak GiB": [device], "device in use GiB": [used]}


_RUN: Mapping[str, Callable[[argparse.Namespace], dict[str, list[float]]]] = {
    "make": make,
    "ceiling": ceiling,
    "merge": merging,
    "quantize": quantizing,
}

if __name__ == "__main__":
    sys.exit(main())
