"""The least time that a step of a model can take: bytes over bandwidth, operations over arithmetic.

Every weight is read once a step and every cached key and value once a row that sees it;
activations, norms and launches are free. Phases add up, and in each the slower of moving and
computing counts.
"""

from dataclasses import dataclass

from ixc_runtime.config import ModelConfig
from ixc_runtime.model.inventory import Inventory, layer_sites


@dataclass(frozen=True, slots=True, kw_only=True)
class Floors:
    """Seconds, of one model on one device. `item_bytes`: of a weight, and of a key's element."""

    config: ModelConfig
    inventory: Inventory
    item_bytes: int
    bytes_per_second: float
    operations_per_second: float

    def decode_step(self, batch: int, context: int) -> float:
        """A token for each of `batch` sequences that see `context` tokens."""
        read = batch * context * self._bytes_per_token / self.bytes_per_second
        return self._layers(batch) + self._output(batch) + read

    def prefill(self, tokens: int, *, sequences: int = 1, image_tokens: int = 0) -> float:
        """The first token of `sequences` prompts of `tokens` each, from nothing."""
        config = self.config
        seen = tokens * (tokens + 1) // 2
        attention = 4 * config.num_layers * config.num_heads * config.head_dim * seen
        rows = sequences * tokens
        return (
            self._layers(rows)
            + self._output(sequences)
            + sequences * attention / self.operations_per_second
            + 2 * self._image_weights * image_tokens / self.operations_per_second
        )

    def tiles(self, count: int) -> float:
        """The tower and the projector, over `count` tiles at once."""
        tower = self.inventory.tower
        assert tower is not None, "asked of models that see"
        channels, patches = tower.channels, tower.shape.grid**2 + 1
        layer = 4 * channels**2 + 2 * channels * tower.mlp_size
        attention = 4 * patches**2 * channels
        merged = 4 * channels * self.config.hidden_size + self.config.hidden_size**2
        weights = tower.num_layers * layer + merged
        # Four patches make a row of the projector.
        operations = (
            2 * patches * tower.num_layers * layer
            + tower.num_layers * attention
            + 2 * (patches // 4) * merged
        )
        return max(
            weights * self.item_bytes / self.bytes_per_second,
            count * operations / self.operations_per_second,
        )

    @property
    def _bytes_per_token(self) -> int:
        config = self.config
        return 2 * config.num_layers * config.num_kv_heads * config.head_dim * self.item_bytes

    @property
    def _layer_weights(self) -> int:
        sites = (
            site
            for layer in range(self.config.num_layers)
            for site in layer_sites(self.config, layer)
        )
        return sum(site.out_features * site.in_features for site in sites)

    @property
    def _image_weights(self) -> int:
        """Of the partial low-rank matrices, which image tokens alone meet."""
        return sum(
            entry.shape[0] * entry.shape[1]
            for name, entry in self.inventory.entries.items()
            if ".Plora_" in name
        )

    def _layers(self, rows: int) -> float:
        return self._linear(self._layer_weights, rows)

    def _output(self, rows: int) -> float:
        return self._linear(self.config.vocab_size * self.config.hidden_size, rows)

    def _linear(self, weights: int, rows: int) -> float:
        moving = weights * self.item_bytes / self.bytes_per_second
        return max(moving, 2 * weights * rows / self.operations_per_second)
