"""Small random adapters as users bring them, in PEFT's layout, and the checkpoint they make when
they are merged: two ways to the same numbers.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.fakes.tiny_checkpoint import (
    TinyModel,
    tiny_config,
    tiny_settings,
    tiny_tensors,
    write_shards,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyAdapter:
    """`linears` are those it changes, in every layer."""

    model: TinyModel
    rank: int = 4
    alpha: float = 16.0
    seed: int = 1
    linears: tuple[str, ...] = (
        "attention.wqkv", "attention.wo", "feed_forward.w1", "feed_forward.w2"
    )  # fmt: skip

    def factors(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """A (rank, in) and B (out, rank), as trained: without the scale."""
        generator = torch.Generator().manual_seed(self.seed)
        weights = tiny_tensors(replace(self.model, ranks={}))
        found = {}
        for layer in range(self.model.layers):
            for linear in self.linears:
                name = f"model.layers.{layer}.{linear}"
                out_features, in_features = weights[f"{name}.weight"].shape
                down = torch.randn(self.rank, in_features, generator=generator) / in_features**0.5
                up = torch.randn(out_features, self.rank, generator=generator) * 0.25
                found[name] = down, up
        return found


def write_tiny_adapter(folder: Path, adapter: TinyAdapter) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"peft_type": "LORA", "r": adapter.rank, "lora_alpha": adapter.alpha}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {
        f"base_model.model.{name}.lora_{half}.weight": tensor
        for name, pair in adapter.factors().items()
        for half, tensor in zip("AB", pair, strict=True)
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def write_merged_checkpoint(folder: Path, adapter: TinyAdapter) -> Path:
    """The adapter's model with the adapter in its weights; in float32, so that nothing is lost."""
    model = adapter.model
    tensors = tiny_tensors(model)
    for name, (down, up) in adapter.factors().items():
        tensors[f"{name}.weight"] += up @ down * (adapter.alpha / adapter.rank)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(tiny_config(model), indent=1))
    if settings := tiny_settings(model):
        (folder / "ixc.json").write_text(json.dumps(settings, indent=1))
    write_shards(folder, tensors, shards=model.shards)
    return folder
