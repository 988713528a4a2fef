"""What a model folder would be if it were loaded, told from its headers alone; and its memory.

Free of torch: the front end lists models that nobody has loaded, and refuses those that plainly do
not fit, before a process is started for them.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ixc_runtime.checkpoint.shards import TensorEntry, read_shards
from ixc_runtime.config import AwqConfig, IxcSettings, TowerShape, load_config, load_settings
from ixc_runtime.model.inventory import INTEGERS, take_inventory

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_CODES_PER_WORD = 8  # int4 codes in a word of 32 bits
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A checkpoint that would load. `num_weights` counts them as they are computed with."""

    settings: IxcSettings
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    native_context_limit: int
    adapters: tuple[str, ...]
    tower: TowerShape | None
    stored_dtype: str
    quantization: AwqConfig | None
    num_weights: int

    def loaded_bytes(self, dtype: str | None) -> int:
        """What its weights take when they are computed in `dtype`; None is float32."""
        return self.num_weights * _ITEM_BYTES[dtype or "float32"]


def look_at(folder: Path) -> ModelFolder:
    """Raises CheckpointError, as loading it would."""
    config = load_config(folder)
    inventory = take_inventory(config, read_shards(folder))
    return ModelFolder(
        settings=load_settings(folder),
        vocab_size=config.vocab_size,
        eos_token_ids=config.eos_token_ids,
        native_context_limit=config.max_position_embeddings,
        adapters=tuple(sorted(inventory.adapters)),
        tower=inventory.tower.shape if inventory.tower else None,
        stored_dtype=config.torch_dtype,
        quantization=config.quantization,
        num_weights=_num_weights(inventory.entries),
    )


def _num_weights(entries: Mapping[str, TensorEntry]) -> int:
    """int4 weights are unpacked when they are loaded; their zeros and scales are not kept."""
    return sum(
        math.prod(entry.shape) * (_CODES_PER_WORD if entry.dtype in INTEGERS else 1)
        for entry in entries.values()
        if not entry.name.endswith((".qzeros", ".scales"))
    )


def free_host_bytes() -> int:
    """Memory that can be taken without anybody else having to give some up: of the machine, and of
    the control group that this process is confined to.
    """
    in_group = _free_of_group(_CGROUP)
    return _free_of_machine() if in_group is None else min(_free_of_machine(), in_group)


def _free_of_machine() -> int:
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _free_of_group(group: Path) -> int | None:
    """None where there is no such group, or it sets no bound."""
    try:
        bound = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        stat = (group / "memory.stat").read_text()
    except OSError:
        return None
    if bound == "max":
        return None
    # Pages of files are counted as used, and given up when somebody needs them.
    cached = next(
        (int(line.split()[1]) for line in stat.splitlines() if line.startswith("inactive_file ")), 0
    )
    return max(0, int(bound) - used + cached)
