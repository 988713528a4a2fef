"""The model once more, written down as plainly as it can be said: dense, slow, without a cache.

A second opinion on our own implementation. It shares no code with it: one sequence at a time, every
token from the beginning, heads in a loop, each adapter as its two products, float64 throughout.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

TASK_SETS = {"base": [], "web": ["lora_web"], "write": ["lora_sft", "lora_dpo"]}


class NaiveModel:
    """Reads a checkpoint in the official layout, int4 ones included."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self.tensors: dict[str, Tensor] = {}
        for shard in sorted(folder.glob("*.safetensors")):
            self.tensors |= load_file(shard)

    def logits(
        self, tokens: list[int], *, features: Tensor | None = None, adapter: str = "base"
    ) -> Tensor:
        """(tokens, vocab). A token of -1 is an image's; `features` has its rows, in order."""
        config = self.config
        is_image = torch.tensor([token < 0 for token in tokens])
        x = self._get("model.tok_embeddings.weight")[[max(token, 0) for token in tokens]]
        if features is not None:
            x[is_image] = features.double()
        base = self.rotary_base(len(tokens))
        for layer in range(config["num_hidden_layers"]):
            name = f"model.layers.{layer}"
            normed = self._norm(x, f"{name}.attention_norm")
            packed = self._linear(normed, f"{name}.attention.wqkv", is_image, adapter)
            mixed = self._attention(packed, base)
            x = x + self._linear(mixed, f"{name}.attention.wo", is_image, adapter)
            normed = self._norm(x, f"{name}.ffn_norm")
            gate = self._linear(normed, f"{name}.feed_forward.w1", is_image, adapter)
            up = self._linear(normed, f"{name}.feed_forward.w3", is_image, adapter)
            inner = gate / (1 + torch.exp(-gate)) * up
            x = x + self._linear(inner, f"{name}.feed_forward.w2", is_image, adapter)
        return self._norm(x, "model.norm") @ self._get("output.weight").T

    def rotary_base(self, length: int) -> float:
        config = self.config
        dim = config["hidden_size"] // config["num_attention_heads"]
        native, scaling = config["max_position_embeddings"], config.get("rope_scaling")
        if not scaling or length <= native:
            return float(config["rope_theta"])
        factor = scaling["factor"]
        stretch = factor * length / native - (factor - 1)
        return float(config["rope_theta"] * stretch ** (dim / (dim - 2)))

    def _attention(self, packed: Tensor, base: float) -> Tensor:
        config = self.config
        length = len(packed)
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        dim, group = config["hidden_size"] // heads, heads // kv_heads
        groups = packed.reshape(length, kv_heads, group + 2, dim)
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        outputs = []
        for head in range(heads):
            kv, member = divmod(head, group)
            query = self._rotate(groups[:, kv, member], base)
            key = self._rotate(groups[:, kv, group], base)
            scores = query @ key.T / math.sqrt(dim)
            scores[future] = -math.inf
            outputs.append(torch.softmax(scores, -1) @ groups[:, kv, group + 1])
        return torch.cat(outputs, -1)

    def _rotate(self, x: Tensor, base: float) -> Tensor:
        length, dim = x.shape
        half = dim // 2
        out = torch.empty_like(x)
        for i in range(half):
            angle = torch.arange(length).double() * base ** (-2 * i / dim)
            out[:, i] = x[:, i] * angle.cos() - x[:, i + half] * angle.sin()
            out[:, i + half] = x[:, i + half] * angle.cos() + x[:, i] * angle.sin()
        return out

    def _norm(self, x: Tensor, name: str) -> Tensor:
        mean_square = (x * x).mean(-1, keepdim=True)
        return (
            x / torch.sqrt(mean_square + self.config["rms_norm_eps"]) * self._get(f"{name}.weight")
        )

    def _linear(self, x: Tensor, name: str, is_image: Tensor, adapter: str) -> Tensor:
        y = x @ self._dense(name).T
        for low_rank in TASK_SETS[adapter]:
            y = y + self._low_rank(x, name, low_rank)
        if f"{name}.Plora_A.weight" in self.tensors:
            y = y + self._low_rank(x, name, "Plora") * is_image[:, None]
        return y

    def _low_rank(self, x: Tensor, name: str, low_rank: str) -> Tensor:
        down, up = (self._get(f"{name}.{low_rank}_{half}.weight") for half in "AB")
        return (x @ down.T) @ up.T

    def _dense(self, name: str) -> Tensor:
        if f"{name}.weight" in self.tensors:
            return self._get(f"{name}.weight")
        words, zeros = self.tensors[f"{name}.qweight"], self.tensors[f"{name}.qzeros"]
        scales = self._get(f"{name}.scales")
        group = len(words) // len(zeros)
        columns = []
        for column in range(scales.shape[1]):
            word, nibble = column // 8, (0, 4, 1, 5, 2, 6, 3, 7)[column % 8]
            q, z = ((packed[:, word].long() >> 4 * nibble) & 15 for packed in (words, zeros))
            rows = torch.arange(len(words)) // group
            columns.append((q - z[rows]) * scales[rows, column])
        return torch.stack(columns)

    def _get(self, name: str) -> Tensor:
        return self.tensors[name].double()
