"""Speed of the whole engine: scheduler, model and sampling, driven in this process and over gRPC.

    python -m tests.bench.engine_speed MODEL --device cuda [--only decode,prefill] [--output FILE]

* load: seconds to compile all kernels, to find them compiled, to load MODEL out of the page cache,
  and from there until requests can come;
* decode: tokens a second of a full batch, each sequence with its own prompt of so many tokens;
* prefill: tokens a second until the first token of one prompt, or of many at once;
* picture: milliseconds to the first token of a question about a picture, and of the next one;
* long: both, for one context near the most that the model takes;
* grpc: tokens a second of 256 streams through a server of its own, and their share of `decode`.

MODEL is a checkpoint; `tests.bench.full_size_checkpoint` makes one of the 7B model's size. Prompts
are random ids, pictures random pixels that are there when the engine asks. Tokens are sampled as
the official model does (top_k 50, top_p 0.8, a repetition penalty) unless --greedy. The floor of a
cell is what bytes and operations allow on this GPU, its ceilings measured in the same run.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ixc_cuda.device import check_device
from ixc_runtime.checkpoint.shards import read_shards
from ixc_runtime.config import OFFICIAL_SAMPLING, load_config
from ixc_runtime.engine_process.messages import EngineConfig
from ixc_runtime.engine_process.planning import device_kind
from ixc_runtime.model.inventory import take_inventory
from ixc_runtime.model_info import MemoryPlan
from ixc_runtime.request import SamplingParams
from tests.bench.engine_floors import Floors
from tests.bench.engine_start import kernel_seconds, timed_start
from tests.bench.engine_timing import DoesNotFit, TimedEngine
from tests.bench.gpu import Ceilings, measure_ceilings, versions
from tests.bench.grpc_streams import streamed_tokens_per_second
from tests.bench.record import RESULTS, origin

PARTS = ("load", "decode", "prefill", "picture", "long", "grpc")
GREEDY = SamplingParams(temperature=0.0)

# Tiles beside the whole picture: 1 + 1, 4 + 1 and 24 + 1 in all.
PICTURES = {1: (1, 1), 5: (2, 2), 25: (6, 4)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One figure; `value` None where the cell could not be measured, and `note` says why.

    `ratio` is the share of the best possible that is reached, `spread` the range of the repeats.
    """

    name: str
    value: float | None
    unit: str
    floor: float | None = None
    ratio: float | None = None
    spread: float | None = None
    note: str = ""


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    # First, while nobody else holds the GPU's memory; the server gives all of it back.
    streamed = _streamed(args) if "grpc" in args.only else None
    ceilings = _ceilings(args.device)
    cells: list[Cell] = []
    for cell in _cells(args, ceilings, streamed):
        cells.append(cell)
        _show(cell)
        # Again and again, so that a run that is cut off keeps what it has found.
        _write(args, ceilings, cells)
    print(f"\nwritten to {args.output}")


def _write(args: argparse.Namespace, ceilings: Ceilings | None, cells: Sequence[Cell]) -> None:
    document = origin() | _of_gpu(args.device)
    document |= {
        "settings": {name: str(value) for name, value in vars(args).items()},
        "ceilings": asdict(ceilings) if ceilings else None,
        "rows": [asdict(cell) for cell in cells],
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _of_gpu(device: str) -> dict[str, object]:
    if device_kind(device) != "cuda":
        return {}
    info = check_device(torch.device(device).index or 0)
    return {"gpu": asdict(info), "versions": versions()}


def parser() -> argparse.ArgumentParser:
    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",") if part]

    found = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    found.add_argument("model", type=Path)
    found.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    found.add_argument("--dtype")
    found.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS[:-1]))
    found.add_argument("--batches", type=numbers, default=[1, 8, 32, 64, 128, 256])
    found.add_argument("--contexts", type=numbers, default=[512, 4096])
    found.add_argument("--prompts", type=numbers, default=[512, 2048, 8192, 32768])
    found.add_argument("--many", type=numbers, default=[256, 512], help="prompts, tokens of each")
    found.add_argument("--tiles", type=numbers, default=list(PICTURES))
    found.add_argument("--long", type=int, default=98_000, help="tokens of the long prompt")
    found.add_argument("--streams", type=int, default=256)
    found.add_argument("--max-context", type=int, default=98_304)
    found.add_argument("--tokens", type=int, default=96, help="decoded by each sequence")
    found.add_argument("--repeats", type=int, default=3)
    found.add_argument("--greedy", action="store_true")
    found.add_argument("--output", type=Path, default=RESULTS / "engine_speed.json")
    return found


def _ceilings(device: str) -> Ceilings | None:
    if device_kind(device) != "cuda":
        return None
    return measure_ceilings(check_device(torch.device(device).index or 0))


def _cells(
    args: argparse.Namespace, ceilings: Ceilings | None, streamed: Sequence[float] | None
) -> Iterator[Cell]:
    own = []
    if set(args.only) != {"grpc"}:
        for cell in _in_process(args, ceilings):
            own.append(cell)
            yield cell
    if streamed:
        yield _grpc_cell(args, streamed, own)


def _in_process(args: argparse.Namespace, ceilings: Ceilings | None) -> Iterator[Cell]:
    """One engine for all cells, gone when they are measured."""
    config = EngineConfig(
        model=str(args.model),
        device=args.device,
        dtype=args.dtype,
        max_context=args.max_context,
        max_batch=max((*args.batches, args.many[0])),
    )
    if "load" in args.only and device_kind(args.device) == "cuda":
        cold, warm = kernel_seconds(torch.device(args.device).index or 0)
        yield Cell(name="load kernels cold", value=cold, unit="s")
        yield Cell(name="load kernels warm", value=warm, unit="s")
    core, ready, start = timed_start(config)
    if "load" in args.only:
        dtype = _short(core.plan.kv_dtype)
        yield Cell(name=f"load weights {dtype}", value=start.weights, unit="s")
        yield Cell(name=f"load ready {dtype}", value=start.ready, unit="s", note=_room(core.plan))
    engine = TimedEngine(
        core,
        context_limit=ready.info.context_limit,
        sampling=GREEDY if args.greedy else OFFICIAL_SAMPLING,
        repeats=args.repeats,
    )
    floors = None
    if ceilings:
        model = load_config(args.model)
        floors = Floors(
            config=model,
            inventory=take_inventory(model, read_shards(args.model)),
            item_bytes=core.model.dtype.itemsize,
            bytes_per_second=ceilings.read_bytes_per_second,
            operations_per_second=ceilings.bf16_operations_per_second,
        )
    cells = _Cells(engine, floors, args)
    parts: Mapping[str, Callable[[], Iterator[Cell]]] = {
        "decode": cells.decode,
        "prefill": cells.prefill,
        "picture": cells.pictures,
        "long": cells.long,
    }
    for part, measure in parts.items():
        if part in args.only:
            yield from measure()


class _Cells:
    """Names, floors and units for what the engine is asked to do."""

    def __init__(
        self, engine: TimedEngine, floors: Floors | None, args: argparse.Namespace
    ) -> None:
        self._engine = engine
        self._floors = floors
        self._args = args
        self._dtype = _short(engine.core.plan.kv_dtype)

    def decode(self) -> Iterator[Cell]:
        # A longer batch's prompts begin with a shorter one's, whose pages are still there.
        for context in self._args.contexts:
            for batch in self._args.batches:
                yield self._decode(batch, context)

    def prefill(self) -> Iterator[Cell]:
        for tokens in self._args.prompts:
            yield self._prefill(tokens)
        count, tokens = self._args.many
        yield self._prefill(tokens, count)

    def pictures(self) -> Iterator[Cell]:
        for tiles in self._args.tiles:
            wide, high = PICTURES[tiles]
            name = f"picture {self._dtype} tiles={tiles}"
            try:
                first, second, tokens = self._engine.picture(wide, high)
            except DoesNotFit as reason:
                yield Cell(name=f"{name} first token", value=None, unit="ms", note=str(reason))
                continue
            best = again = None
            if floors := self._floors:
                # The whole picture counts too.
                encoded = floors.tiles(wide * high + 1)
                best = encoded + floors.prefill(tokens, image_tokens=tokens)
                again = floors.decode_step(1, tokens)
            yield self._time(f"{name} first token", first, best)
            yield self._time(f"{name} second question", second, again)

    def long(self) -> Iterator[Cell]:
        # Seconds each: one prompt is enough, and long enough to be its own warm-up.
        yield self._prefill(self._args.long, warm_up=0, repeats=1)
        yield self._decode(1, self._args.long)

    def _decode(self, batch: int, context: int) -> Cell:
        name = f"decode {self._dtype} batch={batch} context={context}"
        tokens = self._args.tokens
        try:
            rates = self._engine.decode(batch, context, tokens)
        except DoesNotFit as reason:
            return Cell(name=name, value=None, unit="tokens/s", note=str(reason))
        # Contexts grow while they are measured: the floor is that of their middle.
        seconds = self._floors and self._floors.decode_step(batch, context + tokens // 2)
        return _rate(name, rates, batch / seconds if seconds else None)

    def _prefill(
        self, tokens: int, count: int = 1, *, warm_up: int = 1, repeats: int | None = None
    ) -> Cell:
        many = f"prompts={count} " if count > 1 else ""
        name = f"prefill {self._dtype} {many}tokens={tokens}"
        try:
            seconds = self._engine.prefill(
                tokens, count, warm_up=warm_up, repeats=repeats or self._args.repeats
            )
        except DoesNotFit as reason:
            return Cell(name=name, value=None, unit="tokens/s", note=str(reason))
        floor = self._floors and self._floors.prefill(tokens, sequences=count)
        rates = [count * tokens / each for each in seconds]
        return _rate(name, rates, count * tokens / floor if floor else None)

    @staticmethod
    def _time(name: str, seconds: Sequence[float], floor: float | None) -> Cell:
        value = statistics.median(seconds)
        return Cell(
            name=name,
            value=value * 1e3,
            unit="ms",
            floor=floor * 1e3 if floor else None,
            ratio=floor / value if floor else None,
            spread=(max(seconds) - min(seconds)) * 1e3,
        )


def _rate(name: str, rates: Sequence[float], best: float | None) -> Cell:
    value = statistics.median(rates)
    return Cell(
        name=name,
        value=value,
        unit="tokens/s",
        floor=best,
        ratio=value / best if best else None,
        spread=max(rates) - min(rates),
    )


def _room(plan: MemoryPlan) -> str:
    weights, cache = plan.weights_bytes / 2**30, plan.kv_bytes / 2**30
    return f"{weights:.1f} GiB of weights, {cache:.1f} GiB for {plan.capacity_tokens:,} tokens"


def _streamed(args: argparse.Namespace) -> list[float]:
    return streamed_tokens_per_second(
        args.model,
        device=args.device,
        dtype=args.dtype,
        streams=args.streams,
        prompt_tokens=args.contexts[0],
        output_tokens=args.tokens,
        greedy=args.greedy,
        repeats=args.repeats,
    )


def _grpc_cell(args: argparse.Namespace, rates: Sequence[float], cells: Sequence[Cell]) -> Cell:
    """Beside the engine's own figure of the same batch and context, where that was measured."""
    context = args.contexts[0]
    of_engine = f"batch={args.streams} context={context}"
    beside = next((cell.value for cell in cells if cell.name.endswith(of_engine)), None)
    return _rate(f"grpc streams={args.streams} context={context}", rates, beside)


def _show(cell: Cell) -> None:
    if cell.value is None:
        print(f"{cell.name:48} {cell.note}", flush=True)
        return
    floor = f"best {cell.floor:12,.1f}, {cell.ratio:4.0%} of it" if cell.floor else ""
    spread = f"(+-{cell.spread / 2:,.1f})" if cell.spread is not None else ""
    line = f"{cell.name:48}{cell.value:12,.1f} {cell.unit:9}{spread:14}{floor}{cell.note}"
    print(line.rstrip(), flush=True)


def _short(dtype: str) -> str:
    return {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}.get(dtype, dtype)


if __name__ == "__main__":
    main()
