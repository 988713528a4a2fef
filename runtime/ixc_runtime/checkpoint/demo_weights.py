"""The demo model's tensors: SmolLM2 in InternLM2's layout, and what was trained on top of it.

Two parts of different origin:

* The language model is an exact repack. A Llama decoder is an InternLM2 decoder whose query, key
  and value projections stand in one matrix, interleaved by group, and whose output matrix is
  stored even where it equals the embedding. Answers to text are SmolLM2's own.
* Tower, projector, separators and all adapters were trained on top of it, frozen, by the recipe in
  `models/demo`, and come from safetensors files in the official names.

Knows names and shapes; knows nothing of where files lie.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ixc_runtime.checkpoint.gguf_llama import Array, LlamaGguf, LlamaSizes

NamedArray = tuple[str, Array]


def demo_tensors(source: LlamaGguf, trained: Sequence[Path]) -> Iterator[NamedArray]:
    """Every tensor of the checkpoint, in float32: the shards hold them in this order."""
    yield "model.tok_embeddings.weight", source.embedding()
    for index in range(source.sizes.num_layers):
        yield from decoder_layer(source, index)
    yield "model.norm.weight", source.final_norm()
    yield "output.weight", source.output()
    for file in trained:
        yield from _trained_tensors(file)


def decoder_layer(source: LlamaGguf, index: int) -> Iterator[NamedArray]:
    prefix = f"model.layers.{index}"
    value = source.layer(index, "attn_v")
    wqkv = pack_wqkv(source.query(index), source.key(index), value, sizes=source.sizes)
    yield f"{prefix}.attention.wqkv.weight", wqkv
    yield f"{prefix}.attention.wo.weight", source.layer(index, "attn_output")
    yield f"{prefix}.feed_forward.w1.weight", source.layer(index, "ffn_gate")
    yield f"{prefix}.feed_forward.w3.weight", source.layer(index, "ffn_up")
    yield f"{prefix}.feed_forward.w2.weight", source.layer(index, "ffn_down")
    yield f"{prefix}.attention_norm.weight", source.layer(index, "attn_norm")
    yield f"{prefix}.ffn_norm.weight", source.layer(index, "ffn_norm")


def pack_wqkv(query: Array, key: Array, value: Array, *, sizes: LlamaSizes) -> Array:
    """One matrix, a KV group after the other: its queries, its key, its value.

    query (heads * head_dim, hidden), key and value (kv_heads * head_dim, hidden)
    → ((heads + 2 * kv_heads) * head_dim, hidden)
    """
    by_group = (sizes.num_kv_heads, -1, sizes.head_dim, sizes.hidden_size)
    groups = np.concatenate([rows.reshape(by_group) for rows in (query, key, value)], axis=1)
    return groups.reshape(-1, sizes.hidden_size)


def _trained_tensors(file: Path) -> Iterator[NamedArray]:
    """Stored in half precision; the checkpoint, whose language weights need it, is in float32."""
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - not a mapping
            yield name, tensors.get_tensor(name).astype(np.float32)
