"""A golden folder's model made as large as the kernels want it, with the same outputs.

The recorded model has heads of 32, two to a KV head; kernels are for heads of 128 (or 64) in fours
(or threes). So zeros are added around what is there: to every head, heads that add nothing, and
hidden channels that stay zero. Three things then want to be put right, all by powers of two, which
no floating-point format rounds:

* rotation: number i of a head of 32 turns with half's frequency i, which in a head of 128 belongs
  to number 4 i, so that is where it goes;
* attention divides scores by the root of the head's size, now twice as large: queries are doubled;
* RMSNorm divides by the mean over all channels, of which 16 times as many are there now: weights
  are a quarter, and eps a sixteenth.

Sizes of which the ratios are not such squares are refused.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

HEAD_DIM, GROUP = 128, 4

_LINEAR = re.compile(
    r"model\.layers\.\d+\.(?:attention|feed_forward)\.(?P<site>\w+)(?:\.(?P<set>\w+)_(?P<half>[AB]))?"
    r"\.weight"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """Where each number of the old model stands in the new one."""

    hidden: Tensor
    heads: Tensor  # of the attention's output: head after head
    packed: Tensor  # of wqkv's output
    is_query: Tensor  # of wqkv's old rows
    new_hidden: int
    new_heads: int
    new_kv_heads: int
    query_factor: float
    norm_factor: float

    @property
    def num_packed(self) -> int:
        return self.new_kv_heads * (GROUP + 2) * HEAD_DIM


def widen(source: Path, target: Path) -> Path:
    """Write `target`, a folder of the golden format beside `source`, whose recordings it shares."""
    target.mkdir(parents=True)
    config = json.loads((source / "config.json").read_text())
    plan = _plan(config)
    config |= {
        "hidden_size": plan.new_hidden,
        "num_attention_heads": plan.new_heads,
        "num_key_value_heads": plan.new_kv_heads,
        "rms_norm_eps": config["rms_norm_eps"] * plan.norm_factor**2,
    }
    (target / "config.json").write_text(json.dumps(config))
    weight_map: dict[str, str] = {}
    for path in sorted(source.glob("model*.safetensors")):
        tensors = {name: _widened(name, tensor, plan) for name, tensor in load_file(path).items()}
        save_file(tensors, target / path.name)
        weight_map |= dict.fromkeys(tensors, path.name)
    (target / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for name in ("expected.json", "expected.safetensors", "images"):
        (target / name).symlink_to((source / name).resolve())
    return target


def _plan(config: Mapping[str, int]) -> _Plan:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    kv_heads, head_dim = config["num_key_value_heads"], hidden // heads
    group = heads // kv_heads
    query_factor = math.sqrt(HEAD_DIM / head_dim)
    # The fewest channels that hold all KV heads and whose number is a square's multiple.
    norm_factor = 1.0
    while hidden / norm_factor**2 < kv_heads * GROUP * HEAD_DIM:
        norm_factor /= 2
    new_hidden = round(hidden / norm_factor**2)
    assert group <= GROUP and math.log2(query_factor).is_integer(), "sizes that can be widened"
    stretch = HEAD_DIM // head_dim
    within = torch.arange(head_dim) % (head_dim // 2) * stretch
    within[head_dim // 2 :] += HEAD_DIM // 2
    blocks = torch.tensor([*range(group), GROUP, GROUP + 1])  # queries, key, value
    starts = torch.arange(kv_heads)[:, None] * (GROUP + 2) + blocks
    queries = torch.arange(kv_heads)[:, None] * GROUP + torch.arange(group)
    return _Plan(
        hidden=torch.arange(hidden),
        heads=(queries.flatten()[:, None] * HEAD_DIM + within).flatten(),
        packed=(starts.flatten()[:, None] * HEAD_DIM + within).flatten(),
        is_query=(blocks < GROUP).repeat(kv_heads).repeat_interleave(head_dim),
        new_hidden=new_hidden,
        new_heads=new_hidden // HEAD_DIM,
        new_kv_heads=new_hidden // HEAD_DIM // GROUP,
        query_factor=query_factor,
        norm_factor=norm_factor,
    )


def _widened(name: str, tensor: Tensor, plan: _Plan) -> Tensor:
    hidden = (plan.hidden, plan.new_hidden)
    if found := _LINEAR.fullmatch(name):
        site, half = found["site"], found["half"]
        inputs = {"wo": (plan.heads, plan.new_hidden), "w2": None}.get(site, hidden)
        outputs = {"wqkv": (plan.packed, plan.num_packed), "wo": hidden, "w2": hidden}.get(site)
        if site == "wqkv" and half != "A":
            tensor = torch.where(plan.is_query[:, None], tensor * plan.query_factor, tensor)
        rows = outputs if half != "A" else None
        columns = inputs if half != "B" else None
        return _spread(_spread(tensor, 0, rows), 1, columns)
    if name.endswith("norm.weight") and name.startswith("model."):
        return _spread(tensor * plan.norm_factor, 0, hidden)
    if name in ("model.tok_embeddings.weight", "output.weight"):
        return _spread(tensor, 1, hidden)
    if name.startswith("vision_proj."):
        wide = _spread(tensor, 0, hidden)
        return _spread(wide, 1, hidden) if name == "vision_proj.2.weight" else wide
    return tensor


def _spread(tensor: Tensor, dim: int, places: tuple[Tensor, int] | None) -> Tensor:
    """Zeros, but for the tensor's slices along `dim`, each at its place; None leaves it as is."""
    if places is None:
        return tensor
    where, size = places
    shape = list(tensor.shape)
    shape[dim] = size
    return torch.zeros(shape, dtype=tensor.dtype).index_copy_(dim, where, tensor)
