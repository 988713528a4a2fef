"""The shape of what is trained. All of it may take 16 MB in half precision, adapters included."""

from dataclasses import dataclass

from ixc_runtime.checkpoint.demo_model import TOWER_HEADS


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerSizes:
    """A CLIP tower for tiles of `grid * patch_size` pixels a side."""

    hidden_size: int = 192
    num_layers: int = 6
    num_heads: int = TOWER_HEADS
    intermediate_size: int = 768
    patch_size: int = 14
    grid: int = 16

    @property
    def merged_size(self) -> int:
        """Channels of an image token: two by two patches side by side."""
        return 4 * self.hidden_size


TOWER = TowerSizes()

IMAGE = "Plora"  # the adapter that image rows alone take; names are those of the checkpoint

# Rank of every adapter's pairs: a rank costs 541 kB.
RANKS = {IMAGE: 8, "lora_web": 4, "lora_sft": 2, "lora_dpo": 1}
