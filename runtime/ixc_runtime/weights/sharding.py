"""Which tensors go into which file of a new checkpoint, known before any is computed.

Since names and sizes are planned, an interrupted run finds the same files with the same contents,
and an index can be written without reading what an earlier run has finished.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTensor:
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShard:
    file: str
    tensors: tuple[PlannedTensor, ...]

    @property
    def num_bytes(self) -> int:
        return sum(tensor.num_bytes for tensor in self.tensors)


def group_by_size(
    tensors: Iterable[PlannedTensor], max_bytes: int
) -> list[tuple[PlannedTensor, ...]]:
    """Consecutive tensors of at most `max_bytes` together; a larger tensor stands alone."""
    groups: list[list[PlannedTensor]] = []
    size = 0
    for tensor in tensors:
        if not groups or size + tensor.num_bytes > max_bytes:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += tensor.num_bytes
    return [tuple(group) for group in groups]


def name_shards(groups: Sequence[tuple[PlannedTensor, ...]]) -> tuple[PlannedShard, ...]:
    """The published numbering of files."""
    return tuple(
        PlannedShard(file=f"model-{number:05}-of-{len(groups):05}.safetensors", tensors=group)
        for number, group in enumerate(groups, start=1)
    )


def index_document(shards: Sequence[PlannedShard]) -> dict[str, object]:
    return {
        "metadata": {"total_size": sum(shard.num_bytes for shard in shards)},
        "weight_map": dict(
            sorted((tensor.name, shard.file) for shard in shards for tensor in shard.tensors)
        ),
    }
