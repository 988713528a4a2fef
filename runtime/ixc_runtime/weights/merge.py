"""MergeLora: an adapter added into the weights, for engines that cannot keep it apart.

    W' = round(float32(W) + sum over its pairs of float32(B) @ float32(A))

The products are summed first, W is added, and the sum is rounded once. Partial LoRA stays what it
is: it belongs to image rows alone and cannot be merged. All task adapters are left out of the
result, which is one model and no longer three.

Runs shard by shard of the output: what is in memory is two of them, one in the making and one being
written, and the tensor being read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ixc_runtime.checkpoint.shards import INDEX_NAME, TensorEntry
from ixc_runtime.errors import AdapterUnavailable, CheckpointUnsupported, FieldInvalid
from ixc_runtime.model.inventory import IMAGE_SET, LOW_RANK_SETS, TASK_ADAPTERS
from ixc_runtime.weights.figures import MergeSummary
from ixc_runtime.weights.peft import PeftAdapter, read_peft_adapter
from ixc_runtime.weights.progress import Output, Report
from ixc_runtime.weights.settings import MergeSettings
from ixc_runtime.weights.sharding import (
    PlannedShard,
    PlannedTensor,
    group_by_size,
    index_document,
    name_shards,
)
from ixc_runtime.weights.source import Source, cast, dtype_of, require_finite
from ixc_runtime.weights.writing import ShardWriter

MERGE_DTYPES: Mapping[str, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}

_TASK_SETS = tuple(name for name in LOW_RANK_SETS if name != IMAGE_SET)


class Pairs(Protocol):
    """An adapter's factors: (A, B) of each set, for those linears that it changes."""

    def __contains__(self, site: str) -> bool: ...

    def read(self, site: str) -> list[tuple[Tensor, Tensor]]: ...


def merge(source: Path, output: Output, settings: MergeSettings, report: Report) -> MergeSummary:
    """Write `source` with one adapter merged. The settings' and the folder's faults come first."""
    model = Source(source)
    model.require_plain("merging")
    pairs, name = _adapter(model, settings)
    dtype = _dtype(model, settings)
    shards = name_shards(
        group_by_size(
            (_planned(entry, dtype) for entry in _kept(model)), max_bytes=settings.max_shard_bytes
        )
    )
    merger = _Merger(model, pairs, settings.device)
    total = sum(shard.num_bytes for shard in shards)
    report.stage("merging", index=0, count=1)
    finished = {shard.file for shard in shards if output.has_shard(shard.file)}
    done = 0
    with ShardWriter(output) as writer:
        for shard in shards:
            if shard.file in finished:
                done += shard.num_bytes
                report.log(f"{shard.file} was finished by an earlier run")
                report.item(shard.file, done=done, total=total)
                continue
            tensors: dict[str, Tensor] = {}
            for planned in shard.tensors:
                tensors[planned.name] = merger.tensor(planned)
                done += planned.num_bytes
                report.item(planned.name, done=done, total=total)
            writer.write(shard.file, tensors)
    stored = str(dtype_of(_first_weight(model)) if dtype is None else dtype).removeprefix("torch.")
    merged = "+".join(part for part in (model.settings.merged_task, name) if part)
    model.write_companions(output, config={"torch_dtype": stored}, settings={"merged_task": merged})
    output.write_json(INDEX_NAME, index_document(shards))
    return _summary(model, pairs, shards, merged=merged, dtype=stored, num_resumed=len(finished))


class _Merger:
    """Makes each tensor of the output from those of the source."""

    def __init__(self, model: Source, pairs: Pairs, device: str) -> None:
        self._model = model
        self._pairs = pairs
        self._device = torch.device(device)

    @torch.inference_mode()
    def tensor(self, planned: PlannedTensor) -> Tensor:
        stored = self._model.read(planned.name)
        site, _, suffix = planned.name.rpartition(".")
        if suffix == "weight" and site in self._pairs:
            merged = self._merged(site, stored)
            require_finite(f"{planned.name} after merging", merged)
            return cast(planned.name, merged, planned.dtype).cpu()
        return cast(planned.name, stored, planned.dtype)

    def _merged(self, site: str, weight: Tensor) -> Tensor:
        delta: Tensor | None = None
        for down, up in self._pairs.read(site):
            product = self._wide(up) @ self._wide(down)
            delta = product if delta is None else delta.add_(product)
        assert delta is not None, "an adapter has a pair for each of its linears"
        return delta.add_(self._wide(weight))

    def _wide(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device).to(torch.float32)


class _TaskPairs:
    """The sets that a task's adapter is the sum of, read from the checkpoint itself."""

    def __init__(self, model: Source, sets: tuple[str, ...]) -> None:
        self._model = model
        self._sets = sets
        self._sites = frozenset(site.name for site in model.sites())

    def __contains__(self, site: str) -> bool:
        return site in self._sites

    def read(self, site: str) -> list[tuple[Tensor, Tensor]]:
        read = self._model.read
        return [
            (read(f"{site}.{name}_A.weight"), read(f"{site}.{name}_B.weight"))
            for name in self._sets
        ]


class _PeftPairs:
    def __init__(self, adapter: PeftAdapter) -> None:
        self._adapter = adapter

    def __contains__(self, site: str) -> bool:
        return site in self._adapter.factors

    def read(self, site: str) -> list[tuple[Tensor, Tensor]]:
        return [self._adapter.factors[site]]


def _adapter(model: Source, settings: MergeSettings) -> tuple[Pairs, str]:
    """What is merged, and the name it is recorded under."""
    if (settings.task is None) == (settings.adapter is None):
        raise FieldInvalid("task", "a task or an adapter is merged: name exactly one of them")
    if settings.adapter is not None:
        adapter = read_peft_adapter(settings.adapter, model.config)
        return _PeftPairs(adapter), settings.name or settings.adapter.name
    task = settings.task or ""
    if task not in TASK_ADAPTERS:
        raise FieldInvalid("task", f"task is {task!r}; {' and '.join(TASK_ADAPTERS)} can be merged")
    absent = [name for name in TASK_ADAPTERS[task] if name not in model.inventory.low_rank_sets]
    if absent:
        raise AdapterUnavailable(
            f"the checkpoint has no adapter {task}: {', '.join(absent)} are absent", adapter=task
        )
    return _TaskPairs(model, TASK_ADAPTERS[task]), settings.name or task


def _dtype(model: Source, settings: MergeSettings) -> torch.dtype | None:
    """None keeps every tensor's own."""
    if settings.dtype is None:
        return None
    if settings.dtype not in MERGE_DTYPES:
        raise FieldInvalid(
            "dtype", f"dtype is {settings.dtype!r}; {', '.join(MERGE_DTYPES)} can be written"
        )
    dtype = MERGE_DTYPES[settings.dtype]
    source = dtype_of(_first_weight(model))
    if dtype == torch.float32 and source.itemsize < dtype.itemsize:
        raise CheckpointUnsupported(
            f"float32 is written for float32 sources; this one's weights are "
            f"{str(source).removeprefix('torch.')}",
            dtype=settings.dtype,
        )
    return dtype


def _first_weight(model: Source) -> TensorEntry:
    return model.entries[f"{next(model.sites()).name}.weight"]


def _kept(model: Source) -> list[TensorEntry]:
    """Layer by layer, then the rest; task adapters left out."""
    layers = [model.layer_entries(layer) for layer in range(model.config.num_layers)]
    return [
        entries[name]
        for entries in (*layers, model.other_entries())
        for name in sorted(entries)
        if not _is_task_tensor(name)
    ]


def _is_task_tensor(name: str) -> bool:
    return any(f".{task_set}_{half}." in name for task_set in _TASK_SETS for half in "AB")


def _planned(entry: TensorEntry, dtype: torch.dtype | None) -> PlannedTensor:
    stored = dtype_of(entry)
    written = dtype if dtype is not None and stored.is_floating_point else stored
    return PlannedTensor(name=entry.name, dtype=written, shape=entry.shape)


def _summary(
    model: Source,
    pairs: Pairs,
    shards: tuple[PlannedShard, ...],
    *,
    merged: str,
    dtype: str,
    num_resumed: int,
) -> MergeSummary:
    return MergeSummary(
        merged=merged,
        dtype=dtype,
        num_tensors=sum(len(shard.tensors) for shard in shards),
        num_merged=sum(site.name in pairs for site in model.sites()),
        num_bytes=sum(shard.num_bytes for shard in shards),
        num_shards=len(shards),
        num_resumed_shards=num_resumed,
    )
