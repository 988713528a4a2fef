"""The language model: embeddings, decoder layers, logits, over one step's rows.

InternLM2 with the adapters of IXC-2.5. Knows tensors and pages; knows nothing of sequences' lives,
sampling or files. What it computes for a row depends on that row's sequence alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ixc_runtime.config import ModelConfig, TowerShape
from ixc_runtime.model.adapters import IMAGE, plan_routes
from ixc_runtime.model.batch import StepBatch
from ixc_runtime.model.kv_arena import KvArena
from ixc_runtime.model.linear import Linear
from ixc_runtime.model.vision import Vision
from ixc_runtime.ops import Ops


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderLayer:
    """`gate_and_up` is w1 over w3, read in one go."""

    attention_norm: Tensor
    wqkv: Linear
    wo: Linear
    ffn_norm: Tensor
    gate_and_up: Linear
    w2: Linear

    @property
    def linears(self) -> tuple[Linear, ...]:
        return self.wqkv, self.wo, self.gate_and_up, self.w2


class Model:
    """A loaded model. `adapters` are the task adapters a request may name."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        ops: Ops,
        embeddings: Tensor,
        layers: tuple[DecoderLayer, ...],
        norm: Tensor,
        output: Tensor,
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
        self.adapters = self._available - {IMAGE}

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
        return sum(linear.adapters_bytes for layer in self._layers for linear in layer.linears)

    @property
    def weights_bytes(self) -> int:
        """All resident weights: decoder, adapters, tower."""
        total = self._embeddings.nbytes + self._norm.nbytes + self._output.nbytes
        for layer in self._layers:
            total += layer.attention_norm.nbytes + layer.ffn_norm.nbytes
            total += sum(linear.num_bytes for linear in layer.linears)
        return total + (self.vision.num_bytes if self.vision else 0)

    def embed(self, batch: StepBatch) -> Tensor:
        """The input row of every token: the vocabulary's embedding, or the picture's feature."""
        x = self._embeddings[batch.token_ids]
        if batch.image_features is not None:
            x.index_copy_(0, batch.image_rows, batch.image_features.to(x.dtype))
        return x

    @torch.inference_mode()
    def forward(self, batch: StepBatch, kv: KvArena) -> Tensor:
        """Compute every row, write its keys and values, return the wanted rows' logits in float32.

        (float64 where the model itself is.)
        """
        ops, eps = self.ops, self.config.rms_norm_eps
        routes = plan_routes(batch, self._available)
        plan = ops.plan_attention(
            batch.query_starts, batch.context_lengths, batch.page_tables, kv.page_size
        )
        x = self.embed(batch)
        rotary = ops.rotary(batch.positions, batch.rotary_bases, self.config.head_dim, like=x)
        for layer, keys, values in zip(self._layers, kv.keys, kv.values, strict=True):
            qkv = layer.wqkv(ops.rms_norm(x, layer.attention_norm, eps), routes)
            queries = ops.rotate_and_store(qkv, rotary, keys, values, batch.slots)
            x += layer.wo(ops.attend(queries, keys, values, plan), routes)
            inner = ops.swiglu(layer.gate_and_up(ops.rms_norm(x, layer.ffn_norm, eps), routes))
            x += layer.w2(inner, routes)
        last = ops.rms_norm(x[batch.output_rows], self._norm, eps)
        logits = ops.linear(last, self._output)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
