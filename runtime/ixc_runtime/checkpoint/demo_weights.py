"""The demo model's tensors: SmolLM2 in InternLM2's layout, and an untrained side for pictures.

Two parts of different worth:

* The language model is an exact repack. A Llama decoder is an InternLM2 decoder whose query, key
  and value projections stand in one matrix, interleaved by group, and whose output matrix is
  stored even where it equals the embedding. Answers to text are SmolLM2's own.
* The tower, the projector and all adapters are small and untrained. Every adapter's second matrix
  is zero, so base, web and write agree until someone trains them. The projector's bias is the
  embedding of a line break: pictures look like empty lines with a whisper of their content.

Knows names and shapes; knows nothing of files.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ixc_runtime.checkpoint.gguf_llama import Array, LlamaGguf, LlamaSizes

_SEED = 20250207
_WHISPER = 0.1  # a picture's share of an image row, in units of a word embedding's spread


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerSizes:
    """A CLIP tower for tiles of `grid * patch_size` pixels a side."""

    hidden_size: int = 128
    num_layers: int = 4
    num_heads: int = 4
    intermediate_size: int = 512
    patch_size: int = 14
    grid: int = 16

    @property
    def merged_size(self) -> int:
        """Channels of an image token: two by two patches side by side."""
        return 4 * self.hidden_size


TOWER = TowerSizes()

# Tensor name of the low-rank pair → its rank.
ADAPTER_RANKS = {"Plora": 16, "lora_sft": 8, "lora_dpo": 8, "lora_web": 16}

NamedArray = tuple[str, Array]


def demo_tensors(source: LlamaGguf, *, line_break_id: int) -> Iterator[NamedArray]:
    """Every tensor of the checkpoint, in the order in which the shards hold them."""
    embedding = source.embedding()
    generator = np.random.default_rng(_SEED)
    yield "model.tok_embeddings.weight", embedding
    for index in range(source.sizes.num_layers):
        yield from _decoder_layer(source, index)
        yield from _untrained_adapters(source.sizes, index, generator)
    yield "model.norm.weight", source.final_norm()
    yield "output.weight", source.output()
    yield from _untrained_tower(generator)
    yield from _untrained_projector(
        generator, resting_point=embedding[line_break_id], spread=float(embedding.std())
    )


def pack_wqkv(query: Array, key: Array, value: Array, *, sizes: LlamaSizes) -> Array:
    """One matrix, a KV group after the other: its queries, its key, its value.

    query (heads * head_dim, hidden), key and value (kv_heads * head_dim, hidden)
    → ((heads + 2 * kv_heads) * head_dim, hidden)
    """
    by_group = (sizes.num_kv_heads, -1, sizes.head_dim, sizes.hidden_size)
    groups = np.concatenate([rows.reshape(by_group) for rows in (query, key, value)], axis=1)
    return groups.reshape(-1, sizes.hidden_size)


def _decoder_layer(source: LlamaGguf, index: int) -> Iterator[NamedArray]:
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


def _untrained_adapters(
    sizes: LlamaSizes, index: int, generator: np.random.Generator
) -> Iterator[NamedArray]:
    hidden, intermediate = sizes.hidden_size, sizes.intermediate_size
    projections = {
        "attention.wqkv": (hidden, hidden + 2 * sizes.num_kv_heads * sizes.head_dim),
        "attention.wo": (hidden, hidden),
        "feed_forward.w1": (hidden, intermediate),
        "feed_forward.w3": (hidden, intermediate),
        "feed_forward.w2": (intermediate, hidden),
    }
    for projection, (fan_in, fan_out) in projections.items():
        for adapter, rank in ADAPTER_RANKS.items():
            name = f"model.layers.{index}.{projection}.{adapter}"
            yield f"{name}_A.weight", _normal(generator, (rank, fan_in), fan_in**-0.5)
            yield f"{name}_B.weight", np.zeros((fan_out, rank), np.float32)


def _untrained_tower(generator: np.random.Generator) -> Iterator[NamedArray]:
    """CLIP's own initial spreads. Without `post_layernorm`, which the model never uses."""
    width, prefix = TOWER.hidden_size, "vit.vision_tower.vision_model"
    patch = (width, 3, TOWER.patch_size, TOWER.patch_size)
    positions = (1 + TOWER.grid**2, width)
    embeddings = f"{prefix}.embeddings"
    yield f"{embeddings}.class_embedding", _normal(generator, (width,), width**-0.5)
    yield f"{embeddings}.patch_embedding.weight", _normal(generator, patch, 0.02)
    yield f"{embeddings}.position_embedding.weight", _normal(generator, positions, 0.02)
    yield from _layer_norm(f"{prefix}.pre_layrnorm", width)
    inner = TOWER.intermediate_size
    for index in range(TOWER.num_layers):
        layer = f"{prefix}.encoder.layers.{index}"
        yield from _layer_norm(f"{layer}.layer_norm1", width)
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _dense(generator, f"{layer}.self_attn.{projection}", width, width)
        yield from _layer_norm(f"{layer}.layer_norm2", width)
        yield from _dense(generator, f"{layer}.mlp.fc1", width, inner)
        yield from _dense(generator, f"{layer}.mlp.fc2", inner, width)


def _untrained_projector(
    generator: np.random.Generator, *, resting_point: Array, spread: float
) -> Iterator[NamedArray]:
    merged, hidden = TOWER.merged_size, resting_point.shape[0]
    yield "plora_glb_GN", _normal(generator, (1, 1, merged), 1.0)
    yield "plora_sub_GN", _normal(generator, (1, 1, 1, merged), 1.0)
    yield from _dense(generator, "vision_proj.0", merged, hidden)
    weight = _normal(generator, (hidden, hidden), _WHISPER * spread * hidden**-0.5)
    yield "vision_proj.2.weight", weight
    yield "vision_proj.2.bias", resting_point


def _dense(
    generator: np.random.Generator, name: str, fan_in: int, fan_out: int
) -> Iterator[NamedArray]:
    yield f"{name}.weight", _normal(generator, (fan_out, fan_in), fan_in**-0.5)
    yield f"{name}.bias", np.zeros(fan_out, np.float32)


def _layer_norm(name: str, width: int) -> Iterator[NamedArray]:
    yield f"{name}.weight", np.ones(width, np.float32)
    yield f"{name}.bias", np.zeros(width, np.float32)


def _normal(generator: np.random.Generator, shape: tuple[int, ...], spread: float) -> Array:
    return generator.standard_normal(shape, np.float32) * np.float32(spread)
