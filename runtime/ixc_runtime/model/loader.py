"""From a model folder to a `Model`: check everything first, then read tensor by tensor.

The only place that knows both the official names and the model's parts.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ixc_runtime.checkpoint.shards import TensorEntry, read_shards
from ixc_runtime.config import (
    CONFIG_NAME,
    SETTINGS_NAME,
    TOWER_PREFIX,
    IxcSettings,
    ModelConfig,
    load_config,
    load_settings,
)
from ixc_runtime.errors import CheckpointInvalid
from ixc_runtime.model.adapters import IMAGE
from ixc_runtime.model.decoder import DecoderLayer, Model
from ixc_runtime.model.inventory import (
    IMAGE_SET,
    TASK_ADAPTERS,
    Inventory,
    LinearSite,
    layer_sites,
    take_inventory,
)
from ixc_runtime.model.linear import Linear
from ixc_runtime.model.vision import Affine, ProjectorWeights, TowerLayer, TowerWeights, Vision
from ixc_runtime.model.weights import Weights
from ixc_runtime.ops import Int4Weight, LowRankPair, Norm, Ops, UpBlock, Weight
from ixc_runtime.ops.cpu import CpuOps

CHANNELS_PER_HEAD = 64  # CLIP's, in every published size

# Bytes of each tensor that go into the digest.
_SAMPLE_BYTES = 4096


def load_model(
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str | None = None,
    ops: Ops | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Model:
    """Load a checkpoint. `dtype` is what it computes in, float32 unless given.

    `on_progress` is told, after each tensor, how many bytes of all the needed ones are read.
    Raises CheckpointMissing, CheckpointInvalid or CheckpointUnsupported before reading any weights
    if the folder does not hold exactly the tensors its config calls for.
    """
    config = load_config(folder)
    ops = ops or CpuOps()
    settings = load_settings(folder)
    inventory = take_inventory(config, read_shards(folder))
    total = sum(entry.num_bytes for entry in inventory.entries.values())
    done = 0

    def count(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        on_progress(done, total)

    weights = Weights(inventory.entries, dtype=_torch_dtype(dtype), device=device, on_read=count)
    reader = DecoderLayerReader(config, inventory, weights, ops)
    with torch.inference_mode():
        return Model(
            config,
            ops=ops,
            embeddings=weights.take("model.tok_embeddings.weight"),
            layers=tuple(reader.read(layer) for layer in range(config.num_layers)),
            norm=reader.norm("model.norm"),
            output=ops.linear_weight(weights.take("output.weight")),
            vision=read_vision(inventory, settings, weights),
        )


def checkpoint_digest(folder: Path) -> str:
    """SHA-256 (hex) that tells checkpoints apart without reading them whole.

    Over both config files, every tensor's name, dtype and shape, and 4 KiB from the middle of each
    tensor: fine-tuned siblings differ there. The split into shards does not matter.
    """
    digest = hashlib.sha256()
    for name in (CONFIG_NAME, SETTINGS_NAME):
        path = folder / name
        content = path.read_bytes() if path.is_file() else b""
        digest.update(len(content).to_bytes(8, "little") + content)
    for name, entry in sorted(read_shards(folder).items()):
        digest.update(f"{name}\0{entry.dtype}\0{entry.shape}\0".encode())
        digest.update(_sample(entry))
    return digest.hexdigest()


def _sample(entry: TensorEntry) -> bytes:
    size = min(_SAMPLE_BYTES, entry.num_bytes)
    with entry.file.open("rb") as stream:
        stream.seek(entry.offset + (entry.num_bytes - size) // 2)
        return stream.read(size)


def _torch_dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    if dtype is None:
        return torch.float32
    if isinstance(dtype, torch.dtype):
        return dtype
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in named:
        raise ValueError(f"dtype {dtype} is none of {', '.join(named)}")
    return named[dtype]


class DecoderLayerReader:
    """Reads the decoder's parts: norms, and linears with their adapters."""

    def __init__(
        self, config: ModelConfig, inventory: Inventory, weights: Weights, ops: Ops
    ) -> None:
        self._config = config
        self._weights = weights
        self._ops = ops
        # The sets that an adapter is the sum of; sets nothing uses are not read.
        self._adapters = {name: TASK_ADAPTERS[name] for name in sorted(inventory.adapters)}
        if IMAGE_SET in inventory.low_rank_sets and inventory.tower is not None:
            self._adapters[IMAGE] = (IMAGE_SET,)

    @property
    def adapters(self) -> frozenset[str]:
        """Those that the layers carry, the images' own included."""
        return frozenset(self._adapters)

    def read(self, layer: int) -> DecoderLayer:
        prefix = f"model.layers.{layer}"
        wqkv, wo, w1, w3, w2 = layer_sites(self._config, layer)
        return DecoderLayer(
            attention_norm=self.norm(f"{prefix}.attention_norm"),
            wqkv=self._linear(wqkv),
            wo=self._linear(wo),
            ffn_norm=self.norm(f"{prefix}.ffn_norm"),
            gate_and_up=self._linear(w1, w3),
            w2=self._linear(w2),
        )

    def norm(self, name: str) -> Norm:
        weight = self._weights.take(f"{name}.weight")
        return Norm(weight=weight, eps=self._config.rms_norm_eps)

    def _linear(self, *sites: LinearSite) -> Linear:
        """One linear, or several that read the same input, one over the other."""
        quantization = self._config.quantization
        weight = (
            self._ops.linear_weight(
                torch.cat([self._weights.take(f"{site.name}.weight") for site in sites])
            )
            if quantization is None
            else self._int4(sites, quantization.group_size)
        )
        pairs = {name: self._pair(sites, sets) for name, sets in self._adapters.items()}
        return Linear(self._ops, weight, pairs)

    def _int4(self, sites: tuple[LinearSite, ...], group_size: int) -> Weight:
        device = self._weights.device

        def packed(suffix: str) -> Tensor:
            parts = [self._weights.take_as_stored(f"{site.name}.{suffix}") for site in sites]
            return torch.cat(parts, dim=1).to(device)  # outputs are columns here

        weight = Int4Weight(
            qweight=packed("qweight"),
            qzeros=packed("qzeros"),
            scales=packed("scales"),
            group_size=group_size,
        )
        return self._ops.int4_weight(weight, self._weights.dtype)

    def _pair(self, sites: tuple[LinearSite, ...], sets: tuple[str, ...]) -> LowRankPair:
        """The sum of several sets is one pair of their ranks together: [B1 B2] [A1; A2]."""
        downs: list[Tensor] = []
        blocks: list[UpBlock] = []
        first_rank = first_output = 0
        for site in sites:
            down, up = (
                [self._weights.take(f"{site.name}.{name}_{half}.weight") for name in sets]
                for half in ("A", "B")
            )
            joined = torch.cat(up, dim=1)
            blocks.append(UpBlock(up=joined, first_rank=first_rank, first_output=first_output))
            first_rank += joined.shape[1]
            first_output += site.out_features
            downs += down
        pair = LowRankPair(down=torch.cat(downs), blocks=tuple(blocks))
        return self._ops.low_rank_pair(pair)


def read_vision(inventory: Inventory, settings: IxcSettings, weights: Weights) -> Vision | None:
    sizes = inventory.tower
    if sizes is None:
        return None
    heads = settings.tower_heads or max(sizes.channels // CHANNELS_PER_HEAD, 1)
    if sizes.channels % heads:
        raise CheckpointInvalid(
            f"the tower's {sizes.channels} channels do not divide into {heads} heads; "
            f"{SETTINGS_NAME} may set tower_heads"
        )

    def affine(*names: str) -> Affine:
        weight = torch.cat([weights.take(f"{name}.weight") for name in names])
        bias = torch.cat([weights.take(f"{name}.bias") for name in names])
        return Affine(weight=weight, bias=bias)

    def layer(index: int) -> TowerLayer:
        prefix = f"{TOWER_PREFIX}encoder.layers.{index}"
        return TowerLayer(
            norm1=affine(f"{prefix}.layer_norm1"),
            qkv=affine(*(f"{prefix}.self_attn.{name}_proj" for name in "qkv")),
            out=affine(f"{prefix}.self_attn.out_proj"),
            norm2=affine(f"{prefix}.layer_norm2"),
            fc1=affine(f"{prefix}.mlp.fc1"),
            fc2=affine(f"{prefix}.mlp.fc2"),
        )

    return Vision(
        sizes.shape,
        heads=heads,
        tower=TowerWeights(
            patches=weights.take(f"{TOWER_PREFIX}embeddings.patch_embedding.weight"),
            class_token=weights.take(f"{TOWER_PREFIX}embeddings.class_embedding"),
            positions=weights.take(f"{TOWER_PREFIX}embeddings.position_embedding.weight"),
            norm=affine(f"{TOWER_PREFIX}pre_layrnorm"),
            layers=tuple(layer(index) for index in range(sizes.num_layers)),
        ),
        projector=ProjectorWeights(
            row_end=weights.take("plora_sub_GN").flatten(),
            view_end=weights.take("plora_glb_GN").flatten(),
            first=affine("vision_proj.0"),
            second=affine("vision_proj.2"),
        ),
    )
