"""Trained parts for the language model of `tiny_gguf`, with random values that are not zero."""

from pathlib import Path

import torch
from torch import nn

from models.demo.training.export import export_adapters, export_vision
from models.demo.training.language import load_language
from models.demo.training.model import DemoModel
from models.demo.training.sizes import IMAGE

RANKS = {IMAGE: 2, "lora_web": 2, "lora_sft": 2, "lora_dpo": 1}


def tiny_demo(gguf: Path, *, seed: int = 0) -> DemoModel:
    """The differentiable model in float32, its values exactly those that float16 holds."""
    torch.manual_seed(seed)
    language = load_language(gguf, device=torch.device("cpu"), dtype=torch.float32)
    model = DemoModel(language, RANKS)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
        parameter.data = parameter.data.half().float()
    return model


def write_tiny_trained(model: DemoModel, folder: Path) -> tuple[Path, ...]:
    export_vision(model, folder)
    export_adapters(model, ("lora_web",), folder / "web.safetensors")
    export_adapters(model, ("lora_sft", "lora_dpo"), folder / "write.safetensors")
    return tuple(sorted(folder.glob("*.safetensors")))
