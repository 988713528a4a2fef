"""A small random checkpoint in the official layout, made in milliseconds: a real model, tiny.

Every size is free, every part can be left out, and equal arguments give equal bytes. There is no
tokenizer in it: whoever needs one writes it beside the weights.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ixc_cuda import awq_layout

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyTower:
    """A tile is `grid * patch` pixels wide; `heads` None leaves it to hidden / 64."""

    channels: int = 64
    layers: int = 2
    mlp: int = 96
    patch: int = 14
    grid: int = 4
    heads: int | None = None
    post_layernorm: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyModel:
    """`ranks` holds the low-rank sets that are present: Plora, lora_web, lora_sft, lora_dpo."""

    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    intermediate: int = 96
    vocab: int = 320
    rope_theta: float = 10000.0
    rope_factor: float | None = 2.0
    max_positions: int = 2048
    rms_eps: float = 1e-5
    eos: int | tuple[int, ...] = 2
    dtype: str = "float32"
    ranks: Mapping[str, int] = field(
        default_factory=lambda: {"Plora": 8, "lora_web": 8, "lora_sft": 4, "lora_dpo": 4}
    )
    tower: TinyTower | None = field(default_factory=TinyTower)
    awq_group: int | None = None
    shards: int = 2
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)  # ixc.json
    config: Mapping[str, Any] = field(default_factory=dict)  # over config.json's keys


def write_tiny_checkpoint(folder: Path, model: TinyModel | None = None, /, **sizes: Any) -> Path:
    """Write one to `folder` (made if need be) and return it: `(path, hidden=128, tower=None)`."""
    model = replace(model or TinyModel(), **sizes)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(tiny_config(model), indent=1))
    if settings := tiny_settings(model):
        (folder / "ixc.json").write_text(json.dumps(settings, indent=1))
    write_shards(folder, tiny_tensors(model), shards=model.shards)
    return folder


def write_shards(folder: Path, tensors: Mapping[str, torch.Tensor], *, shards: int) -> None:
    names = sorted(tensors)
    if shards == 1:
        save_file(dict(tensors), folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        held = names[shard * len(names) // shards : (shard + 1) * len(names) // shards]
        save_file({name: tensors[name] for name in held}, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(held, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def tiny_config(model: TinyModel) -> dict[str, Any]:
    config: dict[str, Any] = {
        "architectures": ["InternLMXComposer2ForCausalLM"],
        "model_type": "internlm2",
        "torch_dtype": model.dtype,
        "vocab_size": model.vocab,
        "hidden_size": model.hidden,
        "intermediate_size": model.intermediate,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "rms_norm_eps": model.rms_eps,
        "bias": False,
        "rope_theta": model.rope_theta,
        "rope_scaling": model.rope_factor and {"type": "dynamic", "factor": model.rope_factor},
        "max_position_embeddings": model.max_positions,
        "bos_token_id": 1,
        "eos_token_id": list(model.eos) if isinstance(model.eos, tuple) else model.eos,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }
    if model.awq_group is not None:
        config["quantization_config"] = {
            "bits": 4,
            "group_size": model.awq_group,
            "quant_method": "awq",
            "version": "gemm",
            "zero_point": True,
        }
    return config | dict(model.config)


def tiny_settings(model: TinyModel) -> dict[str, Any]:
    settings = dict(model.settings)
    if model.tower is not None and model.tower.heads is not None:
        settings.setdefault("tower_heads", model.tower.heads)
    return settings


def tiny_tensors(model: TinyModel) -> dict[str, torch.Tensor]:
    """Random weights of a size that keeps activations near one, rounded to the model's dtype."""
    generator = torch.Generator().manual_seed(model.seed)

    def matrix(rows: int, columns: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator) * (scale / columns**0.5)

    def vector(size: int, centre: float = 0.0) -> torch.Tensor:
        return centre + 0.1 * torch.randn(size, generator=generator)

    head_dim = model.hidden // model.heads
    packed = (model.heads + 2 * model.kv_heads) * head_dim
    tensors = {
        "model.tok_embeddings.weight": torch.randn(model.vocab, model.hidden, generator=generator),
        "model.norm.weight": vector(model.hidden, 1.0),
        "output.weight": matrix(model.vocab, model.hidden, 2.0),
    }
    for layer in range(model.layers):
        prefix = f"model.layers.{layer}"
        tensors[f"{prefix}.attention_norm.weight"] = vector(model.hidden, 1.0)
        tensors[f"{prefix}.ffn_norm.weight"] = vector(model.hidden, 1.0)
        for name, rows, columns in (
            ("attention.wqkv", packed, model.hidden),
            ("attention.wo", model.hidden, model.hidden),
            ("feed_forward.w1", model.intermediate, model.hidden),
            ("feed_forward.w3", model.intermediate, model.hidden),
            ("feed_forward.w2", model.hidden, model.intermediate),
        ):
            tensors[f"{prefix}.{name}.weight"] = matrix(rows, columns)
            for low_rank, rank in model.ranks.items():
                tensors[f"{prefix}.{name}.{low_rank}_A.weight"] = matrix(rank, columns)
                tensors[f"{prefix}.{name}.{low_rank}_B.weight"] = matrix(rows, rank, 0.5)
    if model.tower is not None:
        _add_tower(tensors, model, model.tower, matrix, vector)
    stored = {name: tensor.to(DTYPES[model.dtype]) for name, tensor in tensors.items()}
    if model.awq_group is not None:
        _quantise(stored, model.awq_group)
    return stored


def _add_tower(
    tensors: dict[str, torch.Tensor], model: TinyModel, tower: TinyTower, matrix: Any, vector: Any
) -> None:
    prefix = "vit.vision_tower.vision_model."
    width = tower.channels
    tensors[f"{prefix}embeddings.class_embedding"] = vector(width)
    tensors[f"{prefix}embeddings.patch_embedding.weight"] = matrix(
        width, 3 * tower.patch**2
    ).reshape(width, 3, tower.patch, tower.patch)
    tensors[f"{prefix}embeddings.position_embedding.weight"] = matrix(tower.grid**2 + 1, width, 4.0)
    norms = ["pre_layrnorm", *(["post_layernorm"] if tower.post_layernorm else [])]
    for layer in range(tower.layers):
        inner = f"encoder.layers.{layer}"
        norms += [f"{inner}.layer_norm1", f"{inner}.layer_norm2"]
        for name, rows, columns in (
            *((f"self_attn.{side}_proj", width, width) for side in ("q", "k", "v", "out")),
            ("mlp.fc1", tower.mlp, width),
            ("mlp.fc2", width, tower.mlp),
        ):
            tensors[f"{prefix}{inner}.{name}.weight"] = matrix(rows, columns)
            tensors[f"{prefix}{inner}.{name}.bias"] = vector(rows)
    for norm in norms:
        tensors[f"{prefix}{norm}.weight"] = vector(width, 1.0)
        tensors[f"{prefix}{norm}.bias"] = vector(width)
    tensors["vision_proj.0.weight"] = matrix(model.hidden, 4 * width)
    tensors["vision_proj.0.bias"] = vector(model.hidden)
    tensors["vision_proj.2.weight"] = matrix(model.hidden, model.hidden, 2.0)
    tensors["vision_proj.2.bias"] = vector(model.hidden)
    tensors["plora_sub_GN"] = vector(4 * width).reshape(1, 1, 1, -1)
    tensors["plora_glb_GN"] = vector(4 * width).reshape(1, 1, -1)


def _quantise(tensors: dict[str, torch.Tensor], group_size: int) -> None:
    """Round the decoder's linears to the nearest int4, as the published tool stores them."""
    for name in [name for name in tensors if name.startswith("model.layers.")]:
        site, _, suffix = name.rpartition(".")
        if suffix == "weight" and "norm" not in site and "ora_" not in site:
            packed = awq_layout.quantize(tensors.pop(name).float(), group_size)
            tensors[f"{site}.qweight"] = packed.qweight
            tensors[f"{site}.qzeros"] = packed.qzeros
            tensors[f"{site}.scales"] = packed.scales
