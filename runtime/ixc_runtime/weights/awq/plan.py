"""What a quantised checkpoint consists of, known before anything is rounded."""

from collections.abc import Mapping

import torch

from ixc_runtime.config import AWQ_GROUP_SIZES
from ixc_runtime.errors import FieldInvalid
from ixc_runtime.model.inventory import layer_sites
from ixc_runtime.weights.settings import QuantizeSettings
from ixc_runtime.weights.sharding import (
    PlannedShard,
    PlannedTensor,
    group_by_size,
    name_shards,
)
from ixc_runtime.weights.source import Source, dtype_of

KEPT_DTYPES: Mapping[str, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16}

_MAX_SHARD_BYTES = 2 << 30


def check_settings(model: Source, settings: QuantizeSettings) -> None:
    """Refuse wishes that this model cannot fulfil, naming tensor and figures."""
    model.require_plain("quantising")
    group = settings.group_size
    if settings.dtype not in KEPT_DTYPES:
        raise FieldInvalid(
            "dtype", f"dtype is {settings.dtype!r}; {' and '.join(KEPT_DTYPES)} can be kept"
        )
    if group not in AWQ_GROUP_SIZES:
        raise FieldInvalid(
            "group_size",
            f"group_size is {group}; {', '.join(map(str, AWQ_GROUP_SIZES))} can be chosen",
        )
    for site in layer_sites(model.config, 0):
        if site.in_features % group or site.out_features % 8:
            fitting = [size for size in AWQ_GROUP_SIZES if site.in_features % size == 0]
            raise FieldInvalid(
                "group_size",
                f"{site.name} is {site.out_features} x {site.in_features}: groups of {group} must "
                f"divide its columns, and 8 its rows; sizes that divide: {fitting or 'none'}",
                tensor=site.name,
                groupSize=group,
                columns=site.in_features,
                rows=site.out_features,
            )


def plan_shards(model: Source, group: int, kept: torch.dtype) -> tuple[PlannedShard, ...]:
    """A shard for each layer, then those of the rest."""
    layers = [_planned_layer(model, index, group, kept) for index in range(model.config.num_layers)]
    rest = (
        PlannedTensor(
            name=name,
            dtype=kept if dtype_of(entry).is_floating_point else dtype_of(entry),
            shape=entry.shape,
        )
        for name, entry in sorted(model.other_entries().items())
    )
    return name_shards([*layers, *group_by_size(rest, _MAX_SHARD_BYTES)])


def _planned_layer(
    model: Source, index: int, group: int, kept: torch.dtype
) -> tuple[PlannedTensor, ...]:
    needed = model.inventory.entries
    planned = {
        name: PlannedTensor(name=name, dtype=kept, shape=entry.shape)
        for name, entry in model.layer_entries(index).items()
        if name in needed
    }
    for site in layer_sites(model.config, index):
        del planned[f"{site.name}.weight"]
        rows, columns = site.out_features, site.in_features
        for suffix, dtype, shape in (
            ("qweight", torch.int32, (columns, rows // 8)),
            ("qzeros", torch.int32, (columns // group, rows // 8)),
            ("scales", torch.float16, (columns // group, rows)),
        ):
            name = f"{site.name}.{suffix}"
            planned[name] = PlannedTensor(name=name, dtype=dtype, shape=shape)
    return tuple(planned[name] for name in sorted(planned))


def quantization_document(settings: QuantizeSettings) -> dict[str, object]:
    """The published `quantization_config`."""
    return {
        "bits": 4,
        "group_size": settings.group_size,
        "quant_method": "awq",
        "version": "gemm",
        "zero_point": True,
    }
