"""Trained modules as safetensors in the official names and float16, as they are shipped."""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.demo.training.model import Adapter, DemoModel, Tower
from models.demo.training.sizes import IMAGE

Named = Iterator[tuple[str, Tensor]]

_PROJECTION_NAMES = {
    "wqkv": "attention.wqkv",
    "wo": "attention.wo",
    "w1": "feed_forward.w1",
    "w3": "feed_forward.w3",
    "w2": "feed_forward.w2",
}


def export_vision(model: DemoModel, folder: Path) -> None:
    """`vision.safetensors`: tower, projector, separators and the partial adapter."""
    _save(dict(_vision(model)), folder / "vision.safetensors")


@torch.no_grad()
def load_vision(model: DemoModel, file: Path) -> None:
    """What `export_vision` wrote, back into the model it came from or one like it."""
    stored = load_file(file)
    for name, tensor in _vision(model):
        tensor.copy_(stored[name])  # a parameter or a view of one


def export_adapters(model: DemoModel, names: tuple[str, ...], file: Path) -> None:
    """Task adapters by the checkpoint's names, for example ("lora_sft", "lora_dpo")."""
    tensors: dict[str, Tensor] = {}
    for name in names:
        tensors |= dict(_adapter(name, model.adapter(name)))
    _save(tensors, file)


def save_whole(tensors: dict[str, Tensor], file: Path) -> None:
    """So that whoever looks finds the whole file, the old or the new one."""
    written = file.with_suffix(".new")
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(held, written, metadata={"format": "pt"})
    written.replace(file)


@torch.no_grad()
def load_adapters(model: DemoModel, names: tuple[str, ...], file: Path) -> None:
    """What `export_adapters` wrote."""
    stored = load_file(file)
    for name in names:
        for key, tensor in _adapter(name, model.adapter(name)):
            tensor.copy_(stored[key])


def _vision(model: DemoModel) -> Named:
    projector = model.vision.projector
    yield from _tower(model.vision.tower)
    yield "plora_glb_GN", projector.view_end[None, None]
    yield "plora_sub_GN", projector.row_end[None, None, None]
    yield from _affine("vision_proj.0", projector.first)
    yield from _affine("vision_proj.2", projector.second)
    yield from _adapter(IMAGE, model.adapter(IMAGE))


def _save(tensors: dict[str, Tensor], file: Path) -> None:
    halves = {}
    for name, tensor in tensors.items():
        half = tensor.detach().to("cpu", torch.float16).contiguous()
        if not half.isfinite().all():
            raise ValueError(f"{name} does not fit float16: {tensor.abs().max():.4g}")
        halves[name] = half
    file.parent.mkdir(parents=True, exist_ok=True)
    save_whole(halves, file)


def _adapter(name: str, adapter: Adapter) -> Named:
    for index in range(len(adapter)):
        for projection, (down, up) in adapter.pairs(index).items():
            prefix = f"model.layers.{index}.{_PROJECTION_NAMES[projection]}.{name}"
            yield f"{prefix}_A.weight", down
            yield f"{prefix}_B.weight", up


def _tower(tower: Tower) -> Named:
    prefix = "vit.vision_tower.vision_model"
    yield f"{prefix}.embeddings.class_embedding", tower.class_token
    yield f"{prefix}.embeddings.patch_embedding.weight", tower.patches.weight
    yield f"{prefix}.embeddings.position_embedding.weight", tower.positions
    yield from _affine(f"{prefix}.pre_layrnorm", tower.norm)
    for index, layer in enumerate(tower.each_layer):
        at = f"{prefix}.encoder.layers.{index}"
        yield from _affine(f"{at}.layer_norm1", layer.layer_norm1)
        weights, biases = layer.qkv.weight.chunk(3), layer.qkv.bias.chunk(3)
        for projection, weight, bias in zip("qkv", weights, biases, strict=True):
            yield f"{at}.self_attn.{projection}_proj.weight", weight
            yield f"{at}.self_attn.{projection}_proj.bias", bias
        yield from _affine(f"{at}.self_attn.out_proj", layer.out_proj)
        yield from _affine(f"{at}.layer_norm2", layer.layer_norm2)
        yield from _affine(f"{at}.mlp.fc1", layer.fc1)
        yield from _affine(f"{at}.mlp.fc2", layer.fc2)


def _affine(name: str, module: nn.Linear | nn.LayerNorm) -> Named:
    yield f"{name}.weight", module.weight
    yield f"{name}.bias", module.bias
