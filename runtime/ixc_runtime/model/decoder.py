"""The language model: embeddings, decoder layers, logits, over one step's rows.

InternLM2 with the adapters of IXC-2.5. Knows tensors and pages; knows nothing of sequences' lives,
sampling or files. What it computes for a row depends on that row's sequence alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ixc_runtime.config import ModelConfig, TowerShape
from ixc_runtime.model.adapters import IMAGE, plan_routes
from ixc_runtime.model.batch import StepBatch
from ixc_runtime.model.kv_arena import KvArena
from ixc_runtime.model.linear import Linear, StepAdapters
from ixc_runtime.model.vision import Vision
from ixc_runtime.ops import LowRankPair, Norm, Ops, Rotary, Weight


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """What all layers of one step share; `attention` is the backend's own."""

    adapters: StepAdapters
    rotary: Rotary
    slots: Tensor
    attention: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderLayer:
    """`gate_and_up` is w1 over w3, read in one go."""

    attention_norm: Norm
    wqkv: Linear
    wo: Linear
    ffn_norm: Norm
    gate_and_up: Linear
    w2: Linear

    @property
    def linears(self) -> Mapping[str, Linear]:
        return {"wqkv": self.wqkv, "wo": self.wo, "gate_and_up": self.gate_and_up, "w2": self.w2}

    def run(self, ops: Ops, x: Tensor, plan: StepPlan, keys: Tensor, values: Tensor) -> None:
        """Take the step's rows through the layer, in place; `keys` and `values` are its pages."""
        adapters = plan.adapters
        qkv = self.wqkv.of_norm(x, self.attention_norm, adapters)
        queries = ops.rotate_and_store(qkv, plan.rotary, keys, values, plan.slots)
        self.wo.add_to(x, ops.attend(queries, keys, values, plan.attention), adapters)
        inner = self.gate_and_up.swiglu_of_norm(x, self.ffn_norm, adapters)
        self.w2.add_to(x, inner, adapters)


# One adapter's pairs in a layer, by the names of `linears`; those it leaves alone are not there.
LayerPairs = Mapping[str, LowRankPair]


class Model:
    """A loaded model. `adapters` are those that a request may name."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        ops: Ops,
        embeddings: Tensor,
        layers: tuple[DecoderLayer, ...],
        norm: Norm,
        output: Weight,
        vision: Vision | None,
    ) -> None:
        self.config = config
        self.ops = ops
        self.vision = vision
        self._embeddings = embeddings
        self._layers = layers
        self._norm = norm
        self._output = output
        self._available = frozenset(layers[0].wqkv.pairs)

    @property
    def adapters(self) -> frozenset[str]:
        return self._available - {IMAGE}

    def add_adapter(self, name: str, pairs: Sequence[LayerPairs]) -> None:
        """Between steps: rows may ask for it from now on. `pairs` are every layer's."""
        assert name not in self._available, "a name is given back before it is taken again"
        for layer, of_layer in zip(self._layers, pairs, strict=True):
            linears = layer.linears
            for linear_name, pair in of_layer.items():
                linears[linear_name].pairs[name] = pair
        self._available |= {name}

    def remove_adapter(self, name: str) -> None:
        """Between steps: no sequence asks for it any more."""
        assert name in self.adapters, "only what is there can go"
        for linear in self.linears:
            linear.pairs.pop(name, None)
        self._available -= {name}

    @property
    def linears(self) -> Iterator[Linear]:
        """Of all layers: those that adapters may change."""
        for layer in self._layers:
            yield from layer.linears.values()

    @property
    def has_images(self) -> bool:
        return self.vision is not None

    @property
    def tower(self) -> TowerShape | None:
        return self.vision.shape if self.vision else None

    @property
    def device(self) -> torch.device:
        return self._embeddings.device

    @property
    def dtype(self) -> torch.dtype:
        return self._embeddings.dtype

    @property
    def adapters_bytes(self) -> int:
        return sum(linear.adapters_bytes for linear in self.linears)

    @property
    def weights_bytes(self) -> int:
        """All resident weights: decoder, adapters, tower."""
        total = self._embeddings.nbytes + self._norm.weight.nbytes + self._output.nbytes
        for layer in self._layers:
            total += layer.attention_norm.weight.nbytes + layer.ffn_norm.weight.nbytes
            total += sum(linear.num_bytes for linear in layer.linears.values())
        return total + (self.vision.num_bytes if self.vision else 0)

    def embed(self, batch: StepBatch) -> Tensor:
        """The input row of every token: the vocabulary's embedding, or the picture's feature."""
        x = self.embed_ids(batch.token_ids)
        if batch.image_features is not None:
            x.index_copy_(0, batch.image_rows, batch.image_features.to(x.dtype))
        return x

    def embed_ids(self, token_ids: Tensor) -> Tensor:
        return self._embeddings[token_ids]

    @torch.inference_mode()
    def forward(self, batch: StepBatch, kv: KvArena) -> Tensor:
        """Compute every row, write its keys and values, return the wanted rows' logits in float32.

        (float64 where the model itself is.)
        """
        x = self.embed(batch)
        plan = StepPlan(
            adapters=plan_routes(batch, self._available),
            rotary=self.ops.rotary(
                batch.positions, batch.rotary_bases, self.config.head_dim, like=x
            ),
            slots=batch.slots,
            attention=self.ops.plan_attention(
                batch.query_starts, batch.context_lengths, batch.page_tables, kv.page_size
            ),
        )
        logits = self.compute(x, plan, kv, output_rows=batch.output_rows)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def compute(
        self,
        x: Tensor,
        plan: StepPlan,
        kv: KvArena,
        *,
        output_rows: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """All layers over `x`, in place, and the logits of `output_rows`; None is every row.

        They are written into `out` if that is given.
        """
        for layer, keys, values in zip(self._layers, kv.keys, kv.values, strict=True):
            layer.run(self.ops, x, plan, keys, values)
        last = x if output_rows is None else x[output_rows]
        return self.ops.normed_linear(last, self._norm, self._output, out=out)
