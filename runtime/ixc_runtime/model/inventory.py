"""Which tensors a checkpoint must hold, and of what shape: the official names, sizes as found.

The config gives the decoder's sizes; the tower's sizes and the adapters' ranks stand in no config
and are read from the tensors themselves. An adapter set that is wholly absent is not offered; one
that is there in part is an incomplete checkpoint. Free of torch and of bytes: it compares names
and shapes, so a wrong folder is refused before anything is loaded.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ixc_runtime.checkpoint.shards import TensorEntry, name_some
from ixc_runtime.config import TOWER_PREFIX, ModelConfig, TowerShape, tower_shape
from ixc_runtime.errors import CheckpointInvalid

IMAGE_SET = "Plora"  # partial LoRA: image tokens only
WEB_SET, SFT_SET, DPO_SET = "lora_web", "lora_sft", "lora_dpo"
LOW_RANK_SETS = (IMAGE_SET, WEB_SET, SFT_SET, DPO_SET)

# An adapter as a request names it, and the sets whose sum it is.
TASK_ADAPTERS: Mapping[str, tuple[str, ...]] = {"web": (WEB_SET,), "write": (SFT_SET, DPO_SET)}

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
INTEGERS = frozenset({"I32"})
_CODES_PER_WORD = 8  # int4 codes in a word of 32 bits

# Present in some published siblings and used by nothing: buffers, and a norm behind the layer
# whose output we take.
_UNUSED = re.compile(
    rf"({re.escape(TOWER_PREFIX)}(post_layernorm\.(weight|bias)|embeddings\.position_ids)"
    r"|model\.layers\.\d+\.attention\.rotary_emb\.inv_freq)"
)
_TOWER_LAYER = re.compile(rf"{re.escape(TOWER_PREFIX)}encoder\.layers\.(\d{{1,4}})\.")
_IMAGE_NAMES = ("vision_proj.0.weight", "plora_sub_GN", "plora_glb_GN")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearSite:
    """One of the five linears of a layer: `name` without suffix, and its shape."""

    name: str
    out_features: int
    in_features: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerSizes:
    shape: TowerShape
    channels: int
    num_layers: int
    mlp_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What a checked checkpoint offers."""

    entries: Mapping[str, TensorEntry]  # the needed ones
    low_rank_sets: frozenset[str]
    tower: TowerSizes | None

    @property
    def adapters(self) -> frozenset[str]:
        return frozenset(
            name for name, sets in TASK_ADAPTERS.items() if self.low_rank_sets.issuperset(sets)
        )

    @property
    def num_weights(self) -> int:
        """As they are computed with: int4 codes are unpacked, their zeros and scales not kept."""
        return sum(
            math.prod(entry.shape) * (_CODES_PER_WORD if entry.dtype in INTEGERS else 1)
            for entry in self.entries.values()
            if not entry.name.endswith((".qzeros", ".scales"))
        )


def layer_sites(config: ModelConfig, layer: int) -> tuple[LinearSite, ...]:
    """wqkv, wo, w1, w3, w2 of a layer, in the order they are applied."""
    hidden, inner = config.hidden_size, config.intermediate_size
    packed = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    prefix = f"model.layers.{layer}"
    shapes = {
        "attention.wqkv": (packed, hidden),
        "attention.wo": (hidden, hidden),
        "feed_forward.w1": (inner, hidden),
        "feed_forward.w3": (inner, hidden),
        "feed_forward.w2": (hidden, inner),
    }
    return tuple(
        LinearSite(name=f"{prefix}.{name}", out_features=rows, in_features=columns)
        for name, (rows, columns) in shapes.items()
    )


def take_inventory(config: ModelConfig, entries: Mapping[str, TensorEntry]) -> Inventory:
    """Compare a checkpoint with what its config calls for; every difference is named."""
    low_rank_sets = frozenset(
        name
        for name in LOW_RANK_SETS
        if any(f".{name}_A." in key or f".{name}_B." in key for key in entries)
    )
    tower = _tower_sizes(entries)
    needed: dict[str, tuple[tuple[int, ...], frozenset[str]]] = {}
    needed.update(_decoder_tensors(config))
    for site in (site for layer in range(config.num_layers) for site in layer_sites(config, layer)):
        needed.update(_linear_tensors(config, site))
        for set_name in sorted(low_rank_sets):
            needed.update(_low_rank_tensors(site, set_name, entries))
    if tower is not None:
        needed.update(_image_tensors(config, tower))
    _compare(needed, entries)
    return Inventory(
        entries={name: entries[name] for name in needed},
        low_rank_sets=low_rank_sets,
        tower=tower,
    )


_Needed = Iterator[tuple[str, tuple[tuple[int, ...], frozenset[str]]]]


def _decoder_tensors(config: ModelConfig) -> _Needed:
    hidden = (config.hidden_size,)
    yield "model.tok_embeddings.weight", ((config.vocab_size, config.hidden_size), FLOATS)
    for layer in range(config.num_layers):
        yield f"model.layers.{layer}.attention_norm.weight", (hidden, FLOATS)
        yield f"model.layers.{layer}.ffn_norm.weight", (hidden, FLOATS)
    yield "model.norm.weight", (hidden, FLOATS)
    yield "output.weight", ((config.vocab_size, config.hidden_size), FLOATS)


def _linear_tensors(config: ModelConfig, site: LinearSite) -> _Needed:
    rows, columns = site.out_features, site.in_features
    if config.quantization is None:
        yield f"{site.name}.weight", ((rows, columns), FLOATS)
        return
    group = config.quantization.group_size
    if columns % group or rows % 8:
        raise CheckpointInvalid(
            f"{site.name} is {rows} x {columns}: int4 groups of {group} do not divide its columns, "
            "or 8 its rows",
            tensor=site.name,
        )
    yield f"{site.name}.qweight", ((columns, rows // 8), INTEGERS)
    yield f"{site.name}.qzeros", ((columns // group, rows // 8), INTEGERS)
    yield f"{site.name}.scales", ((columns // group, rows), FLOATS)


def _low_rank_tensors(
    site: LinearSite, set_name: str, entries: Mapping[str, TensorEntry]
) -> _Needed:
    down, up = f"{site.name}.{set_name}_A.weight", f"{site.name}.{set_name}_B.weight"
    found = entries.get(down) or entries.get(up)
    if found is None or len(found.shape) != 2:
        rank = 1  # reported as missing or misshapen; the number is not used
    else:
        rank = max(found.shape[0] if found.name == down else found.shape[1], 1)
    yield down, ((rank, site.in_features), FLOATS)
    yield up, ((site.out_features, rank), FLOATS)


def _tower_sizes(entries: Mapping[str, TensorEntry]) -> TowerSizes | None:
    layers = {int(match[1]) for name in entries if (match := _TOWER_LAYER.match(name))}
    shape = tower_shape(entries)
    if shape is None:
        if layers or any(name in entries for name in _IMAGE_NAMES):
            raise CheckpointInvalid(
                "the checkpoint holds parts of an image tower but no patch and position embedding"
            )
        return None
    fc1 = entries.get(f"{TOWER_PREFIX}encoder.layers.0.mlp.fc1.weight")
    patches = entries[f"{TOWER_PREFIX}embeddings.patch_embedding.weight"]
    return TowerSizes(
        shape=shape,
        channels=patches.shape[0],
        num_layers=max(layers, default=0) + 1,
        mlp_size=fc1.shape[0] if fc1 is not None and fc1.shape else 1,
    )


def _image_tensors(config: ModelConfig, tower: TowerSizes) -> _Needed:
    channels, mlp, patch = tower.channels, tower.mlp_size, tower.shape.patch_size
    hidden, merged = config.hidden_size, 4 * tower.channels
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.class_embedding": (channels,),
        "embeddings.patch_embedding.weight": (channels, 3, patch, patch),
        "embeddings.position_embedding.weight": (tower.shape.grid**2 + 1, channels),
        "pre_layrnorm.weight": (channels,),  # spelt so
        "pre_layrnorm.bias": (channels,),
    }
    for layer in range(tower.num_layers):
        prefix = f"encoder.layers.{layer}"
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"{prefix}.self_attn.{projection}.weight"] = (channels, channels)
            shapes[f"{prefix}.self_attn.{projection}.bias"] = (channels,)
        for norm in ("layer_norm1", "layer_norm2"):
            shapes[f"{prefix}.{norm}.weight"] = (channels,)
            shapes[f"{prefix}.{norm}.bias"] = (channels,)
        shapes[f"{prefix}.mlp.fc1.weight"] = (mlp, channels)
        shapes[f"{prefix}.mlp.fc1.bias"] = (mlp,)
        shapes[f"{prefix}.mlp.fc2.weight"] = (channels, mlp)
        shapes[f"{prefix}.mlp.fc2.bias"] = (channels,)
    for name, tensor_shape in shapes.items():
        yield f"{TOWER_PREFIX}{name}", (tensor_shape, FLOATS)
    yield "vision_proj.0.weight", ((hidden, merged), FLOATS)
    yield "vision_proj.0.bias", ((hidden,), FLOATS)
    yield "vision_proj.2.weight", ((hidden, hidden), FLOATS)
    yield "vision_proj.2.bias", ((hidden,), FLOATS)
    yield "plora_sub_GN", ((1, 1, 1, merged), FLOATS)
    yield "plora_glb_GN", ((1, 1, merged), FLOATS)


def _compare(
    needed: Mapping[str, tuple[tuple[int, ...], frozenset[str]]],
    entries: Mapping[str, TensorEntry],
) -> None:
    faults: list[str] = []
    if missing := sorted(needed.keys() - entries.keys()):
        faults.append(f"missing: {name_some(missing)}")
    surplus = sorted(name for name in entries.keys() - needed.keys() if not _UNUSED.fullmatch(name))
    if surplus:
        faults.append(f"of no known use: {name_some(surplus)}")
    wrong: list[str] = []
    for name in sorted(needed.keys() & entries.keys()):
        (shape, dtypes), entry = needed[name], entries[name]
        if entry.shape != shape:
            wrong.append(f"{name} is {list(entry.shape)}, {list(shape)} is due")
        elif entry.dtype not in dtypes:
            wrong.append(f"{name} has dtype {entry.dtype}, {' or '.join(sorted(dtypes))} is due")
    if wrong:
        faults.append(name_some(wrong))
    if faults:
        raise CheckpointInvalid(
            "the tensors do not fit the config. " + "; ".join(faults),
            missing=name_some(missing),
            surplus=name_some(surplus),
            wrong=name_some(wrong),
        )
