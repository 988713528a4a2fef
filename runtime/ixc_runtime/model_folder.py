"""What a model folder would be if it were loaded, told from its headers alone.

Free of torch: the front end lists models that nobody has loaded.
"""

from dataclasses import dataclass
from pathlib import Path

from ixc_runtime.checkpoint.shards import read_shards
from ixc_runtime.config import AwqConfig, IxcSettings, TowerShape, load_config, load_settings
from ixc_runtime.model.inventory import take_inventory


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A checkpoint that would load."""

    settings: IxcSettings
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    native_context_limit: int
    adapters: tuple[str, ...]
    tower: TowerShape | None
    stored_dtype: str
    quantization: AwqConfig | None


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
    )
