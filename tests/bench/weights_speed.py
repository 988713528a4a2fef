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

Needs 42 GB of disk; every part removes what it wrote but the checkpoint. Every few seconds it says
how far it is. The figures are written after each stage (a repeat, a layer), so that a run that is
cut off keeps what it has found: a part that was not finished has no `time`. What an earlier run
with the same settings has found of other parts stays in the file. Random weights say nothing about
quality: `relative_error` in the output is of no meaning here. Smaller sizes by --layers, --hidden
and so on try the script out.
"""

import argparse
import hashlib
import os
import re
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
from tests.bench.record import RESULTS, Goal, Measurement, show
from tests.bench.unattended import Figures, Pulse, earlier, gib_under, in_own_process, keep, say

PARTS = ("make", "ceiling", "merge", "quantize")
MERGE_SECONDS, DISK_FACTOR = 60.0, 1.3
QUANTIZE_SECONDS, DEVICE_GIB = 300.0, 24.0
CONTEXT_GIB = 1.0  # of the device's memory, which CUDA takes for itself
# What may differ between runs whose figures stand side by side.
_NO_SETTINGS = ("only", "parts", "repeats", "folder", "output")


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
        pulse = Pulse(args.only, beside=lambda: taken(args))
        with pulse.beating():
            _RUN[args.only](args, pulse)
        return 0
    figures = earlier(args.output, settings_of(args))
    failed = []
    for part in args.parts.split(","):
        print(f"== {part}", flush=True)
        figures.pop(part, None)
        try:
            for found in in_own_process(command_of(part)):
                figures[part] = found
                record(args, figures)
        except subprocess.CalledProcessError as error:
            print(f"   failed: exit status {error.returncode}", flush=True)
            failed.append(part)
        for name, values in figures.get(part, {}).items():
            print(f"   {name}: {', '.join(f'{value:.2f}' for value in values[:8])}", flush=True)
    show(*record(args, figures))
    print(f"written to {args.output}")
    return 1 if failed else 0


def command_of(part: str) -> list[str]:
    return [sys.executable, "-m", "tests.bench.weights_speed", *sys.argv[1:], "--only", part]


def settings_of(args: argparse.Namespace) -> dict[str, str]:
    settings = {name: str(value) for name, value in vars(args).items() if name not in _NO_SETTINGS}
    settings["torch"] = torch.__version__
    if torch.cuda.is_available():
        settings["gpu"] = torch.cuda.get_device_name()
    return settings


def record(
    args: argparse.Namespace, figures: Mapping[str, Figures]
) -> tuple[list[Measurement], list[Goal]]:
    """Writes all that is known by now."""
    measurements = [
        Measurement(name=f"{part}, {name}", unit=unit_of(name), values=tuple(values))
        for part, of_part in figures.items()
        for name, values in of_part.items()
    ]
    goals = list(goals_of({each.name: each for each in measurements}))
    keep(args.output, measurements, goals, settings_of(args))
    return measurements, goals


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


def make(args: argparse.Namespace, pulse: Pulse) -> None:
    pulse.at = "writing the checkpoint"
    began = time.perf_counter()
    total = write_checkpoint(args.folder / "source", sizes_of(args), device=args.device)
    say({"time": [time.perf_counter() - began], "size GiB": [total / 2**30]})


# ---- what is measured


class Clock:
    """A Report that notes when each layer was done, and hands it on."""

    def __init__(
        self, pulse: Pulse, layer_done: Callable[[list[float]], None] = lambda seconds: None
    ) -> None:
        self._pulse = pulse
        self._layer_done = layer_done
        self._last = time.perf_counter()
        self.layers: list[float] = []

    def stage(self, name: str, *, index: int, count: int) -> None:
        self._last = time.perf_counter()
        self._pulse.at = name

    def item(self, name: str, *, done: int, total: int) -> None:
        now = time.perf_counter()
        self._pulse.at = f"{name} done, {done / total:.0%}"
        if re.fullmatch(r"model\.layers\.\d+", name):
            self.layers.append(now - self._last)
            self._layer_done(self.layers)
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


def ceiling(args: argparse.Namespace, pulse: Pulse) -> None:
    """The merge's bytes by plain writes of files as large; the checkpoint's by plain reads."""
    kept = sum(
        entry.num_bytes
        for name, entry in Source(args.folder / "source").entries.items()
        if ".lora_" not in name
    )
    file_bytes = MergeSettings().max_shard_bytes
    block = memoryview(os.urandom(64 << 20))
    figures: Figures = {}
    for _ in range(args.repeats):
        pulse.at = "writing"
        with scratch(args.folder / "plain") as folder:
            began, left = time.perf_counter(), kept
            while left:
                path, size = folder / f"{left}.bin", min(file_bytes, left)
                with path.open("wb", buffering=0) as stream:
                    for start in range(0, size, len(block)):
                        stream.write(block[: size - start])
                synced(path)
                left -= size
            note(figures, "write", time.perf_counter() - began)
            note(figures, "write rate GB/s", kept / 1e9 / figures["write"][-1])
            say(figures)
        pulse.at = "reading"
        began = time.perf_counter()
        buffer = bytearray(64 << 20)
        for path in sorted((args.folder / "source").glob("*.safetensors")):
            with path.open("rb", buffering=0) as stream:
                while stream.readinto(buffer):
                    pass
        note(figures, "read", time.perf_counter() - began)
        began = time.perf_counter()
        hashlib.sha256(block)
        note(figures, "hash rate GB/s", len(block) / 1e9 / (time.perf_counter() - began))
        say(figures)


def merging(args: argparse.Namespace, pulse: Pulse) -> None:
    settings = MergeSettings(task="write", dtype="bfloat16", device=args.device)
    figures: Figures = {}
    for _ in range(args.repeats):
        with staged(args.folder / "merged") as output:
            began = time.perf_counter()
            summary = merge(args.folder / "source", output, settings, Clock(pulse))
            note(figures, "time", time.perf_counter() - began)
            note(figures, "size GiB", summary.num_bytes / 2**30)
        say(figures | peaks(args))


def quantizing(args: argparse.Namespace, pulse: Pulse) -> None:
    settings = QuantizeSettings(group_size=args.group_size, device=args.device)
    source = Source(args.folder / "source")
    began = time.perf_counter()

    def so_far(layers: list[float]) -> Figures:
        passed = time.perf_counter() - began
        return {"time of a layer": layers, "time so far": [passed], **peaks(args)}

    clock = Clock(pulse, lambda layers: say(so_far(layers)))
    with staged(args.folder / "quantised") as output:
        pulse.at = "making passages"
        summary = quantize_over(tuple(passages(args)), source, output, settings, clock)
        seconds = time.perf_counter() - began
    layers = so_far(clock.layers) | {"size GiB": [summary.num_bytes / 2**30]}
    del layers["time so far"]
    say({"time": [seconds], **layers})


def note(figures: Figures, name: str, value: float) -> None:
    figures.setdefault(name, []).append(value)


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


def taken(args: argparse.Namespace) -> str:
    """Of disk and device, for whoever watches."""
    texts = [f"{gib_under(args.folder):.1f} GiB on disk"]
    if "cuda" in args.device:
        texts.append(f"{torch.cuda.memory_reserved() / 2**30:.1f} GiB of the device")
    return ", ".join(texts)


def peaks(args: argparse.Namespace) -> Figures:
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    device = used = 0.0
    if "cuda" in args.device:
        used = torch.cuda.max_memory_allocated() / 2**30
        device = torch.cuda.max_memory_reserved() / 2**30  # with what torch holds in reserve
    return {"host peak GiB": [host], "device peak GiB": [device], "device in use GiB": [used]}


_RUN: Mapping[str, Callable[[argparse.Namespace, Pulse], None]] = {
    "make": make,
    "ceiling": ceiling,
    "merge": merging,
    "quantize": quantizing,
}

if __name__ == "__main__":
    sys.exit(main())
