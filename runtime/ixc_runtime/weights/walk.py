"""Passages on their way through a model, one decoder layer at a time.

A model too large for the memory is run like this: every passage passes through layer 0, then
through layer 1, and so on; only one layer is loaded. The arithmetic is the product's own
(`DecoderLayer.run`, `Vision`, the cpu operations, which are plain torch and run on a GPU as well),
in float32 whatever the weights are stored in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ixc_runtime.model.adapters import plan_routes
from ixc_runtime.model.batch import StepBatch
from ixc_runtime.model.decoder import DecoderLayer, LayerPairs, StepPlan
from ixc_runtime.model.loader import DecoderLayerReader, read_vision
from ixc_runtime.model.rope import rotary_base
from ixc_runtime.model.vision import Vision
from ixc_runtime.model.weights import Weights
from ixc_runtime.ops.cpu import CpuOps
from ixc_runtime.request import BASE_ADAPTER
from ixc_runtime.weights.source import Source, require_finite

# The adapter of `pairs`, for passages to name.
EXTRA = "(extra)"

_TILES_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A sequence to run: ids with -1 at an image's slots, the images' pixels, and an adapter.

    `judged` are the rows whose predictions count: all of a text, the answer's in a chat.
    """

    token_ids: tuple[int, ...]
    canvases: tuple[Tensor, ...] = ()  # uint8 (height, width, 3), whole tiles
    adapter: str = BASE_ADAPTER
    judged: slice

    @property
    def num_image_tokens(self) -> int:
        return sum(token < 0 for token in self.token_ids)

    @property
    def num_text_tokens(self) -> int:
        return len(self.token_ids) - self.num_image_tokens

    @property
    def targets(self) -> tuple[int, ...]:
        """The token behind each judged row."""
        return self.token_ids[self.judged.start + 1 : self.judged.stop + 1]


class LayerWeights(Weights):
    """Reads each tensor once, onto the device, and keeps it there until told to forget."""

    def __init__(self, source: Source, *, device: torch.device) -> None:
        super().__init__(source.entries, device=device)
        self._kept: dict[str, Tensor] = {}

    def take_as_stored(self, name: str) -> Tensor:
        if name not in self._kept:
            tensor = super().take_as_stored(name).to(self.device)
            require_finite(name, tensor)  # there, where it takes no time
            self._kept[name] = tensor
        return self._kept[name]

    def forget(self) -> None:
        self._kept.clear()


@dataclass(slots=True, kw_only=True)
class _Track:
    """One passage under way: what its rows hold now, and what every layer needs to know of it."""

    hidden: Tensor
    plan: StepPlan


class Walk:
    """`pairs` are a user's adapter, which passages take by the name EXTRA."""

    def __init__(
        self,
        source: Source,
        passages: Sequence[Passage],
        *,
        device: torch.device | str = "cpu",
        pairs: Sequence[LayerPairs] = (),
    ) -> None:
        self.source = source
        self.passages = passages
        self.device = torch.device(device)
        self.weights = LayerWeights(source, device=self.device)
        self._ops = CpuOps()
        self._pairs = pairs
        self._reader = DecoderLayerReader(source.config, source.inventory, self.weights, self._ops)
        self._tracks: list[_Track] = []

    @torch.inference_mode()
    def enter(self) -> None:
        """Embed every passage; pictures go through the tower first."""
        vision = self._vision()
        table = self.weights.take_as_stored("model.tok_embeddings.weight")
        self._tracks = [self._track(passage, table, vision) for passage in self.passages]
        self.weights.forget()

    def read_layer(self, index: int) -> DecoderLayer:
        """The layer's weights stay in `weights` until the next call."""
        self.weights.forget()
        layer = self._reader.read(index)
        if self._pairs:
            for name, pair in self._pairs[index].items():
                layer.linears[name].pairs[EXTRA] = pair
        return layer

    @torch.inference_mode()
    def run(self, layer: DecoderLayer, passage: int) -> None:
        """Take one passage through a layer."""
        track, config = self._tracks[passage], self.source.config
        rows = len(track.hidden)
        pages = torch.empty((2, 1, rows, config.num_kv_heads, config.head_dim), device=self.device)
        layer.run(self._ops, track.hidden, track.plan, pages[0], pages[1])

    def run_all(self, layer: DecoderLayer) -> None:
        for passage in range(len(self.passages)):
            self.run(layer, passage)

    @torch.inference_mode()
    def leave(self) -> "Predictions":
        """Behind the last layer: what the judged rows predict."""
        norm = self._reader.norm("model.norm")
        hidden = [
            self._ops.rms_norm(track.hidden[passage.judged], norm)
            for track, passage in zip(self._tracks, self.passages, strict=True)
        ]
        self._tracks.clear()
        output = self._ops.linear_weight(self.weights.take("output.weight"))
        self.weights.forget()
        return Predictions(hidden=hidden, output=output)

    def _vision(self) -> Vision | None:
        if not any(passage.canvases for passage in self.passages):
            return None
        vision = read_vision(self.source.inventory, self.source.settings, self.weights)
        self.weights.forget()
        return vision

    def _track(self, passage: Passage, table: Tensor, vision: Vision | None) -> _Track:
        tokens = torch.tensor(passage.token_ids, device=self.device)
        hidden = table[tokens.clamp(min=0)].to(torch.float32)
        image_rows = (tokens < 0).nonzero().flatten()
        if passage.canvases:
            assert vision is not None, "a passage with pictures has a model with a tower"
            features = torch.cat([_features(vision, canvas) for canvas in passage.canvases])
            hidden.index_copy_(0, image_rows, features)
        return _Track(hidden=hidden, plan=self._plan(passage, hidden, image_rows))

    def _plan(self, passage: Passage, hidden: Tensor, image_rows: Tensor) -> StepPlan:
        rows, device, config = len(hidden), self.device, self.source.config
        positions = torch.arange(rows, device=device)
        base = torch.full((rows,), rotary_base(config, rows), dtype=torch.float64, device=device)
        tables = torch.zeros((1, 1), dtype=torch.int64, device=device)
        adapted = () if passage.adapter == BASE_ADAPTER else ((passage.adapter, positions),)
        batch = StepBatch(
            token_ids=positions,  # the rows are embedded already
            positions=positions,
            rotary_bases=base,
            slots=positions,
            image_rows=image_rows,
            image_features=None,
            adapter_rows=adapted,
            query_starts=(0, rows),
            context_lengths=(rows,),
            page_tables=tables,
            output_rows=positions,
        )
        return StepPlan(
            adapters=plan_routes(batch, self._available()),
            rotary=self._ops.rotary(positions, base, config.head_dim, like=hidden),
            slots=positions,
            attention=self._ops.plan_attention((0, rows), (rows,), tables, rows),
        )

    def _available(self) -> frozenset[str]:
        return self._reader.adapters | ({EXTRA} if self._pairs else frozenset())


class Predictions:
    """Logits of every passage's judged rows, computed when asked for: a vocabulary is large."""

    def __init__(self, *, hidden: list[Tensor], output: Tensor) -> None:
        self._hidden = hidden
        self._output = output

    @torch.inference_mode()
    def logits(self, passage: int) -> Tensor:
        return self._hidden[passage] @ self._output.t()


def _features(vision: Vision, canvas: Tensor) -> Tensor:
    tiles = vision.cut(canvas)
    encoded = torch.cat([vision.encode_tiles(part) for part in torch.split(tiles, _TILES_AT_ONCE)])
    height, width = (size // vision.shape.tile_size for size in canvas.shape[:2])
    return vision.assemble(encoded, width, height)
