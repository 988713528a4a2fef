"""What can be known of a job before any work: whether it can be done, and how much disk it takes.

Reads configs and headers only, so it costs milliseconds, and a request that cannot work is refused
while its caller still waits. Free of torch.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from ixc_runtime.checkpoint.shards import TensorEntry, read_shards
from ixc_runtime.config import AWQ_GROUP_SIZES, ModelConfig, load_config
from ixc_runtime.errors import (
    AdapterUnavailable,
    AlreadyQuantized,
    CheckpointUnsupported,
    FieldInvalid,
)
from ixc_runtime.jobs.messages import JobSpec, MergeWork, QuantizeWork
from ixc_runtime.model.inventory import FLOATS, TASK_ADAPTERS, layer_sites, take_inventory
from ixc_runtime.models_root import ModelsRoot, NamedFolders

_WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}
_COMPANION_BYTES = 32 << 20  # configs and tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    required_bytes: int  # at the most


def preflight(spec: JobSpec) -> Estimate:
    """Raises the fault that would end the job at its beginning."""
    root = ModelsRoot(Path(spec.root))
    root.check_output(spec.output, overwrite=spec.overwrite)
    folder = source_folder(spec, root)
    target = root.path / spec.output
    if target.exists() and target.samefile(folder):
        raise FieldInvalid("output_model_id", "must not be the source's own name")
    config = load_config(folder)
    if config.quantization is not None:
        raise AlreadyQuantized(
            "the weights are integers already; take the model that this one was made from",
            model=f"models/{spec.source}",
        )
    entries = read_shards(folder)
    inventory = take_inventory(config, entries)
    match spec.work:
        case MergeWork():
            _check_merge(spec.work, entries, inventory.low_rank_sets, config)
        case QuantizeWork():
            chosen_group_size(spec.work, config)
    required = _COMPANION_BYTES + _largest_output(spec.work, entries)
    root.check_space(required)
    return Estimate(required_bytes=required)


def source_folder(spec: JobSpec, root: ModelsRoot) -> Path:
    return Path(spec.source_folder) if spec.source_folder else root.folder(spec.source)


def adapter_folder(work: MergeWork) -> Path | None:
    """Of a user's adapter, if that is what is merged. Raises CheckpointMissing."""
    if work.adapter is None:
        return None
    assert work.adapters_root is not None, "an adapter lies in the adapters root"
    return NamedFolders(Path(work.adapters_root), "adapters").folder(work.adapter)


def chosen_group_size(work: QuantizeWork, config: ModelConfig) -> int:
    """What was asked for, or the largest that fits. Raises FieldInvalid if none does."""
    widths = {site.in_features for site in layer_sites(config, 0)}
    fitting = [
        size for size in sorted(AWQ_GROUP_SIZES, reverse=True) if not any(w % size for w in widths)
    ]
    shown = ", ".join(map(str, sorted(widths)))
    if work.group_size is None:
        if not fitting:
            raise CheckpointUnsupported(f"no group size divides all of the widths {shown}")
        return fitting[0]
    if work.group_size not in fitting:
        raise FieldInvalid(
            "group_size",
            f"{work.group_size} does not divide all of the widths {shown}; "
            f"possible: {', '.join(map(str, fitting)) or 'none'}",
        )
    return work.group_size


def _check_merge(
    work: MergeWork,
    entries: dict[str, TensorEntry],
    low_rank_sets: frozenset[str],
    config: ModelConfig,
) -> None:
    if work.task is not None:
        needed = TASK_ADAPTERS.get(work.task)
        if needed is None:
            raise FieldInvalid("task", f"must be one of {', '.join(TASK_ADAPTERS)}")
        if not low_rank_sets.issuperset(needed):
            offered = [
                task for task, sets in TASK_ADAPTERS.items() if low_rank_sets.issuperset(sets)
            ]
            raise AdapterUnavailable(
                f"the checkpoint has no task {work.task}",
                adapter=work.task,
                available=",".join(["base", *offered]),
            )
    adapter_folder(work)
    weight = entries[f"{layer_sites(config, 0)[0].name}.weight"]
    if work.dtype == "float32" and weight.dtype not in ("F32", "F64"):
        raise FieldInvalid("dtype", "FLOAT32 is written for float32 sources only")


def _largest_output(work: MergeWork | QuantizeWork, entries: dict[str, TensorEntry]) -> int:
    """As if nothing were left out or rounded: an upper bound that costs no plan of the output."""
    total = 0
    for entry in entries.values():
        width = _WIDTHS[work.dtype] if work.dtype and entry.dtype in FLOATS else None
        total += entry.num_bytes if width is None else math.prod(entry.shape) * width
    return total
