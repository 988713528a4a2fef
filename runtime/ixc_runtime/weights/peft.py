"""A user's own adapter in PEFT's layout, as factors of our linears with its scale folded in.

    adapter_config.json          r, lora_alpha, use_rslora, target_modules, …
    adapter_model.safetensors    base_model.model.NAME.lora_A.weight [r, in], lora_B [out, r]

NAME is one of the official names of a decoder's linears, in any selection. What PEFT's config can
say beyond that would change the arithmetic: it is refused with its key rather than ignored.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ixc_runtime.checkpoint.json_object import ObjectReader, read_json_object
from ixc_runtime.checkpoint.shards import TensorEntry, name_some, read_shard
from ixc_runtime.config import ModelConfig
from ixc_runtime.errors import (
    AdapterInvalid,
    CheckpointInvalid,
    CheckpointMissing,
    CheckpointUnsupported,
)
from ixc_runtime.model.decoder import LayerPairs
from ixc_runtime.model.inventory import FLOATS, LinearSite, layer_sites
from ixc_runtime.model.weights import read_tensor
from ixc_runtime.ops import LowRankPair, UpBlock
from ixc_runtime.weights.source import require_finite

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"

# The model sits once or twice inside PEFT's own wrappers; the adapter's name may be left in.
_TENSOR_NAME = re.compile(
    r"(?:base_model\.model\.)?(?P<site>model\.layers\.\d{1,4}\.[a-z0-9_.]{1,60})"
    r"\.lora_(?P<half>[AB])(?:\.default)?\.weight"
)

# Bookkeeping, training-time settings, where the adapter was made, and which linears were chosen:
# the tensors themselves say that.
_HARMLESS_KEYS = frozenset(
    re.findall(
        r"\S+",
        """
        auto_mapping base_model_name_or_path eva_config exclude_modules inference_mode
        layers_pattern layers_to_transform lora_dropout megatron_core peft_version
        qalora_group_size revision runtime_config target_modules task_type
        """,
    )
)
# Ways to initialise that leave the base weights as they are; the others subtract from them.
_PLAIN_INITS = (True, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeftAdapter:
    """`factors` by a linear's name: A (rank, in) and B (out, rank), scale folded into B; float32.

    Only the linears that the adapter changes are there.
    """

    factors: Mapping[str, tuple[Tensor, Tensor]]

    @property
    def num_bytes(self) -> int:
        return sum(down.nbytes + up.nbytes for down, up in self.factors.values())


def read_peft_adapter(folder: Path, config: ModelConfig) -> PeftAdapter:
    """Check an adapter against the model it is for, then read it.

    Raises AdapterInvalid if it is for another model, or CheckpointMissing, CheckpointInvalid or
    CheckpointUnsupported, naming key or tensor.
    """
    scaling = _read_config(folder)
    if not (folder / WEIGHTS_NAME).is_file() and (folder / "adapter_model.bin").is_file():
        raise CheckpointUnsupported(
            "the adapter is a PyTorch .bin file; safetensors are read", format="bin"
        )
    halves = _pair_up(read_shard(folder / WEIGHTS_NAME))
    sites = {
        site.name: site for layer in range(config.num_layers) for site in layer_sites(config, layer)
    }
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    for name, pair in halves.items():
        if name not in sites:
            raise AdapterInvalid(
                f"{WEIGHTS_NAME} adapts {name}, which is no linear of this model's "
                f"{config.num_layers} layers",
                tensor=name,
            )
        rank = _check_pair(sites[name], pair)
        down, up = (read_tensor(pair[half]).to(torch.float32) for half in "AB")
        require_finite(pair["A"].name, down)
        require_finite(pair["B"].name, up)
        factors[name] = down, up * scaling.of_rank(name, rank)
    return PeftAdapter(factors=factors)


def load_peft_adapter(
    folder: Path,
    config: ModelConfig,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> tuple[LayerPairs, ...]:
    """The adapter as a running model takes it: for each layer, the pair of each linear it changes.

    Linears are named as `DecoderLayer.linears` names them; the adapter leaves absent ones alone.
    """
    factors = read_peft_adapter(folder, config).factors

    def pair(*sites: LinearSite) -> LowRankPair | None:
        downs: list[Tensor] = []
        blocks: list[UpBlock] = []
        first_rank = first_output = 0
        for site in sites:
            if site.name in factors:
                down, up = (half.to(device, dtype) for half in factors[site.name])
                downs.append(down)
                blocks.append(UpBlock(up=up, first_rank=first_rank, first_output=first_output))
                first_rank += len(down)
            first_output += site.out_features
        return LowRankPair(down=torch.cat(downs), blocks=tuple(blocks)) if downs else None

    def layer(index: int) -> LayerPairs:
        wqkv, wo, w1, w3, w2 = layer_sites(config, index)
        pairs = {
            "wqkv": pair(wqkv), "wo": pair(wo), "gate_and_up": pair(w1, w3), "w2": pair(w2)
        }  # fmt: skip
        return {name: found for name, found in pairs.items() if found is not None}

    return tuple(layer(index) for index in range(config.num_layers))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scaling:
    """alpha / rank, or alpha / sqrt(rank) where the adapter is rank-stabilised."""

    alpha: float
    rank: int
    stabilised: bool
    any_rank: bool  # rank_pattern gives linears ranks of their own

    def of_rank(self, site: str, rank: int) -> float:
        if rank != self.rank and not self.any_rank:
            raise CheckpointInvalid(
                f"{site} has an adapter of rank {rank}; {CONFIG_NAME} says r {self.rank}",
                tensor=site,
                rank=rank,
            )
        return self.alpha / (math.sqrt(rank) if self.stabilised else rank)


def _read_config(folder: Path) -> _Scaling:
    fields = read_json_object(folder / CONFIG_NAME)
    # PEFT writes every key it knows; what is off says nothing.
    spoken = {key: value for key, value in fields.items() if value not in (None, {}, [], "")}
    said = {key: value for key, value in spoken.items() if value is not False}
    reader = ObjectReader(said, CONFIG_NAME)
    reader.fixed("peft_type", "LORA")
    reader.fixed("bias", "none", default="none")
    reader.fixed("use_rslora", True, default=True)
    init = reader.take("init_lora_weights", True)
    if init not in _PLAIN_INITS:
        raise CheckpointUnsupported(
            f"{CONFIG_NAME}: init_lora_weights is {init!r}, which has changed the base weights as "
            "well; save the adapter converted to a plain one",
            key="init_lora_weights",
        )
    scaling = _Scaling(
        alpha=reader.number("lora_alpha", minimum=0.0, maximum=1e6),
        rank=reader.count("r", maximum=1 << 14),
        stabilised="use_rslora" in said,
        any_rank=bool(reader.mapping("rank_pattern")),
    )
    reader.close(harmless=_HARMLESS_KEYS)
    return scaling


def _pair_up(entries: Mapping[str, TensorEntry]) -> dict[str, dict[str, TensorEntry]]:
    """Both halves of each linear; every tensor must be one of them."""
    halves: dict[str, dict[str, TensorEntry]] = defaultdict(dict)
    strange: list[str] = []
    for name, entry in sorted(entries.items()):
        match = _TENSOR_NAME.fullmatch(name)
        if match is None or match["half"] in halves[match["site"]]:
            strange.append(name)
        else:
            halves[match["site"]][match["half"]] = entry
    if strange:
        raise CheckpointInvalid(
            f"{WEIGHTS_NAME} has tensors that are no adapter's of a linear: {name_some(strange)}",
            surplus=name_some(strange),
        )
    if not halves:
        raise CheckpointMissing(f"{WEIGHTS_NAME} holds no adapter", file=WEIGHTS_NAME)
    if lone := sorted(site for site, pair in halves.items() if len(pair) == 1):
        raise CheckpointInvalid(
            f"{WEIGHTS_NAME} has half an adapter for {name_some(lone)}", missing=name_some(lone)
        )
    return halves


def _check_pair(site: LinearSite, pair: Mapping[str, TensorEntry]) -> int:
    """The rank that both halves agree on."""
    down = pair["A"]
    rank = down.shape[0] if down.shape else 0
    due = {"A": (rank, site.in_features), "B": (site.out_features, rank)}
    for half, entry in pair.items():
        if entry.shape != due[half] or rank < 1:
            raise AdapterInvalid(
                f"{entry.name} is {list(entry.shape)}; {list(due[half])} fits {site.name}, "
                f"{site.out_features} x {site.in_features}, at rank {rank}",
                tensor=entry.name,
            )
        if entry.dtype not in FLOATS:
            raise CheckpointInvalid(
                f"{entry.name} has dtype {entry.dtype}; a floating one is due", tensor=entry.name
            )
    return rank
