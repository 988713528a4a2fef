"""SmolLM2's weights as frozen tensors, packed as the demo checkpoint packs them.

Knows the GGUF file through the runtime's own reader, so that training sees the very values that
are served. Nothing here is ever trained.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ixc_runtime.checkpoint.demo_weights import decoder_layer
from ixc_runtime.checkpoint.gguf_llama import Array, LlamaGguf, LlamaSizes


class LayerWeights(NamedTuple):
    """One decoder layer; `wqkv` holds a KV group after the other: queries, key, value."""

    attention_norm: Tensor
    wqkv: Tensor
    wo: Tensor
    ffn_norm: Tensor
    w1: Tensor
    w3: Tensor
    w2: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    sizes: LlamaSizes
    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    norm: Tensor
    output: Tensor


def load_language(gguf: Path, *, device: torch.device, dtype: torch.dtype) -> Language:
    """Matrices in `dtype`, norms in float32, all on `device`."""
    source = LlamaGguf(gguf)

    def vector(array: Array) -> Tensor:
        return torch.tensor(array, device=device)

    def matrix(array: Array) -> Tensor:
        return torch.tensor(array, device=device, dtype=dtype)

    layers = []
    for index in range(source.sizes.num_layers):
        named = {
            name.removeprefix(f"model.layers.{index}.").removesuffix(".weight"): array
            for name, array in decoder_layer(source, index)
        }
        layers.append(
            LayerWeights(
                attention_norm=vector(named["attention_norm"]),
                wqkv=matrix(named["attention.wqkv"]),
                wo=matrix(named["attention.wo"]),
                ffn_norm=vector(named["ffn_norm"]),
                w1=matrix(named["feed_forward.w1"]),
                w3=matrix(named["feed_forward.w3"]),
                w2=matrix(named["feed_forward.w2"]),
            )
        )
    embedding = matrix(source.embedding())
    return Language(
        sizes=source.sizes,
        embedding=embedding,
        layers=tuple(layers),
        norm=vector(source.final_norm()),
        output=matrix(source.output()),
    )
