"""A training run under a budget of seconds: steps, schedule, checkpoints, a line every so often.

Knows optimisation; what is trained, and on what, is told by whoever calls. A run can be continued:
a checkpoint holds the parameters in float32, the optimisers' moments in bfloat16, and how far it
was. One is written every so often, and what is killed while it writes leaves the one before.
"""

import json
import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from models.demo.training.batches import Batch
from models.demo.training.ranks import Ranks

_PART_BYTES = 15_000_000  # checkpoints are cut into parts that are easy to move
_UNTIMED_STEPS = 3
WARM_UP = 0.03  # of the run
FINAL_RATE = 0.02  # of the highest

Loss = Callable[[Batch], Tensor]
Figures = Mapping[
    str, tuple[float, float]
]  # sums and what to divide them by; the same names always
Named = dict[str, Tensor]
ALONE = Ranks()


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Modules trained at one rate.

    `by_muon`: their matrices by Muon, which makes more of every sample than Adam does where
    matrices are square-like and trained from nothing; everything else always by AdamW.
    """

    modules: tuple[nn.Module, ...]
    rate: float
    by_muon: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`total_seconds` is the whole run's length, over all its parts; this part ends at
    `stop_seconds` of it. A step takes the mean gradient of `batches_per_step` batches of every
    rank.
    """

    total_seconds: float
    stop_seconds: float
    batches_per_step: int
    log_every: int = 50
    evaluate_every: float = 30.0
    save_every: float = 40.0


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a run is, over all its parts."""

    seconds: float = 0.0
    steps: int = 0
    batches: int = 0
    samples: int = 0


def run(
    plan: Plan,
    groups: Sequence[Group],
    data: Iterable[Batch],
    loss: Loss,
    *,
    checkpoint: Path,
    evaluate: Callable[[], Figures] | None = None,
    learn_of: Callable[[Mapping[str, float]], None] | None = None,
    keep: Callable[[], None] | None = None,
    ranks: Ranks = ALONE,
) -> Progress:
    """Train until `stop_seconds`; goes on from an existing checkpoint.

    `evaluate` gives this rank's share of the figures, `learn_of` is told of all ranks' together,
    and `keep` is called on the first rank behind every checkpoint. The clock starts after the
    first few steps: compiling their shapes is not training.
    """
    parameters = [p for group in groups for module in group.modules for p in module.parameters()]
    device = parameters[0].device
    optimisers = _optimisers(groups, fused=device.type == "cuda")
    progress = load_checkpoint(checkpoint, groups, optimisers)
    ranks.align(parameters)
    source = ahead(data, device)
    started, begun_at, waited, seen, taken = time.monotonic(), progress.seconds, 0.0, 0, 0
    losses: list[Tensor] = []
    evaluated = saved = progress.seconds

    def report() -> None:
        assert evaluate is not None
        figures = _together(evaluate(), ranks)
        if ranks.is_first:
            print(_row(figures), flush=True)
        if learn_of is not None:
            learn_of(figures)

    def save() -> None:
        ranks.align(parameters)
        if ranks.is_first:
            save_checkpoint(checkpoint, groups, optimisers, progress)
            if keep is not None:
                keep()

    while progress.seconds < plan.stop_seconds:
        factor = _schedule(progress.seconds / plan.total_seconds)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["rate"] * factor
        for _ in range(plan.batches_per_step):
            before = time.monotonic()
            batch = next(source)
            waited += time.monotonic() - before
            value = loss(batch)
            (value / plan.batches_per_step).backward()  # type: ignore[no-untyped-call]
            losses.append(value.detach())
            progress.samples += len(batch.tasks) * ranks.count
            seen += len(batch.tasks) * ranks.count
        ranks.average_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        progress.steps += 1
        progress.batches += plan.batches_per_step * ranks.count
        taken += 1
        if taken == _UNTIMED_STEPS:
            started, waited, seen = time.monotonic(), 0.0, 0
        if taken >= _UNTIMED_STEPS:
            progress.seconds = ranks.agree(begun_at + time.monotonic() - started)
        if progress.steps % plan.log_every == 0 and ranks.is_first:
            mean = torch.stack(losses).mean().item()
            elapsed = max(progress.seconds - begun_at, 1e-9)
            print(
                f"step {progress.steps} at {progress.seconds:.0f} s: loss {mean:.4f}, "
                f"gradient {float(norm):.2f}, {seen / elapsed:.0f} samples/s, "
                f"waited {waited:.1f} s for data",
                flush=True,
            )
        if progress.steps % plan.log_every == 0:
            losses.clear()
        if evaluate is not None and progress.seconds - evaluated > plan.evaluate_every:
            report()
            evaluated = progress.seconds
        if progress.seconds - saved > plan.save_every:
            save()
            saved = progress.seconds
    save()
    if evaluate is not None:
        report()
    return progress


def ahead(data: Iterable[Batch], device: torch.device, *, depth: int = 3) -> Iterator[Batch]:
    """The batches, already on the device: a thread copies them while the steps before run."""
    waiting: queue.Queue[Batch | BaseException] = queue.Queue(depth)

    def copy() -> None:
        try:
            for batch in data:
                waiting.put(batch.to(device))
        except BaseException as error:
            waiting.put(error)

    threading.Thread(target=copy, daemon=True).start()
    while True:
        batch = waiting.get()
        if isinstance(batch, BaseException):
            raise batch
        yield batch


def _optimisers(groups: Sequence[Group], *, fused: bool) -> list[torch.optim.Optimizer]:
    plain, matrices = [], []
    for group in groups:
        parameters = _trained(group)
        chosen = [p for p in parameters if group.by_muon and p.ndim == 2]
        others = [p for p in parameters if not any(p is one for one in chosen)]
        plain.append({"params": others, "lr": group.rate, "rate": group.rate})
        if chosen:
            matrices.append({"params": chosen, "lr": group.rate, "rate": group.rate})
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(plain, betas=(0.9, 0.98), weight_decay=0.01, fused=fused)
    ]
    if matrices:
        # Steps as long as Adam's would be, so that one rate says how fast all of a group learns.
        optimisers.append(
            torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
        )
    return optimisers


def next_token_loss(model: nn.Module, hidden: Tensor, batch: Batch) -> Tensor:
    """Cross entropy at the learnt positions alone: the vocabulary is most of the arithmetic."""
    rows = hidden.flatten(0, 1)[batch.positions]
    logits: Tensor = model.logits(rows)  # type: ignore[operator]
    each = functional.cross_entropy(logits, batch.targets, reduction="none")
    return (each * batch.weights).sum() / batch.weights.sum()


def _schedule(done: float) -> float:
    """Linear warm-up, then a cosine."""
    if done < WARM_UP:
        return max(done / WARM_UP, 0.01)
    along = min(1.0, (done - WARM_UP) / (1 - WARM_UP))
    return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * along))


def _together(figures: Figures, ranks: Ranks) -> dict[str, float]:
    """The figures of all ranks; not a number where none of them has any."""
    sums = ranks.total([value for pair in figures.values() for value in pair])
    pairs = zip(figures, sums[0::2], sums[1::2], strict=True)
    return {name: value / count if count else math.nan for name, value, count in pairs}


def _row(figures: Mapping[str, float]) -> str:
    return "  exact: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items())


def _trained(group: Group) -> list[nn.Parameter]:
    return [p for module in group.modules for p in module.parameters()]


def save_checkpoint(
    folder: Path,
    groups: Sequence[Group],
    optimisers: Sequence[torch.optim.Optimizer],
    progress: Progress,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors: Named = {}
    for index, parameter in enumerate(p for group in groups for p in _trained(group)):
        tensors[f"{index}"] = parameter.detach()
        for optimiser in optimisers:
            for name, moment in optimiser.state.get(parameter, {}).items():
                if name != "step":
                    tensors[f"{index}.{name}"] = moment.to(torch.bfloat16)
    parts: list[Named] = [{}]
    held = 0
    for name, tensor in tensors.items():
        if held + tensor.nbytes > _PART_BYTES:
            parts.append({})
            held = 0
        parts[-1][name] = tensor.contiguous().cpu()
        held += tensor.nbytes
    names = [f"part-{progress.steps}-{number}.safetensors" for number in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        save_file(part, folder / name)
    document = {name: getattr(progress, name) for name in Progress.__slots__}
    written = folder / "progress.new"
    written.write_text(json.dumps({"parts": names, "progress": document}), encoding="utf-8")
    written.replace(folder / "progress.json")  # from here on it is the checkpoint
    for file in folder.glob("part-*.safetensors"):
        if file.name not in names:
            file.unlink()


def load_checkpoint(
    folder: Path, groups: Sequence[Group], optimisers: Sequence[torch.optim.Optimizer] = ()
) -> Progress:
    """Parameters, and the moments of the optimisers. Nothing there: a run from its start."""
    if not (folder / "progress.json").is_file():
        return Progress()
    document = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
    progress = Progress(**document["progress"])
    tensors: Named = {}
    for name in document["parts"]:
        tensors |= load_file(folder / name)
    for index, parameter in enumerate(p for group in groups for p in _trained(group)):
        with torch.no_grad():
            parameter.copy_(tensors[f"{index}"])
        moments = {
            name.partition(".")[2]: tensor.to(parameter)
            for name, tensor in tensors.items()
            if name.startswith(f"{index}.")
        }
        for optimiser in optimisers:
            held = {id(p) for group in optimiser.param_groups for p in group["params"]}
            if moments and id(parameter) in held:
                step = torch.tensor(float(progress.steps))
                optimiser.state[parameter] = {"step": step, **moments}
    return progress
