"""The demo model as one differentiable module: frozen language model, trained everything else.

    tiles ──Tower──► maps ──merge, order──► Projector ──► image rows ─┐
    token ids ──embedding────────────────────────────────────────────┴──► decoder layers ──► hidden

The same arithmetic as `ixc_runtime.model` in the form that training wants: whole padded sequences
instead of pages, masks instead of row lists. A test holds the two against each other.

Shapes: B sequences of L tokens (padding on the right, which causal attention never looks at),
H hidden, T tiles of S pixels a side.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ixc_runtime.checkpoint.gguf_llama import LlamaSizes
from ixc_runtime.model.vision import LAYER_NORM_EPS, MEAN, STD
from models.demo.training.language import Language, LayerWeights
from models.demo.training.sizes import IMAGE, TOWER, TowerSizes

PROJECTIONS = ("wqkv", "wo", "w1", "w3", "w2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvases:
    """Pictures of `tiles_wide` by `tiles_high` tiles, each by the number (P,) of its first tile."""

    tiles_wide: int
    tiles_high: int
    first_tiles: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInputs:
    """The pictures of a batch.

    tiles: uint8 (T, S, S, 3). `canvases` are the pictures of several tiles, whose global views are
    encoded after all tiles, in that order; of a single tile, it is its own view. `sources` (N,)
    says for every image token which merged feature it is: 64 a map, then `row_end`, then
    `view_end`. `rows` (N,) is the place of each in the flattened (B * L) batch.
    """

    tiles: Tensor
    canvases: tuple[Canvases, ...]
    sources: Tensor
    rows: Tensor


class LowRankPair(nn.Module):
    """B (A x). B starts at zero, so a fresh pair changes nothing."""

    def __init__(self, fan_in: int, fan_out: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, fan_in) * fan_in**-0.5)
        self.up = nn.Parameter(torch.zeros(fan_out, rank))


class Adapter(nn.Module):
    """A pair for each of the five projections of each layer."""

    def __init__(self, language: Language, rank: int) -> None:
        super().__init__()
        self._by_layer = [
            {
                name: LowRankPair(weight.shape[1], weight.shape[0], rank)
                for name in PROJECTIONS
                for weight in [getattr(layer, name)]
            }
            for layer in language.layers
        ]
        self.layers = nn.ModuleList(nn.ModuleDict(pairs) for pairs in self._by_layer)

    def __len__(self) -> int:
        return len(self._by_layer)

    def pairs(self, layer: int) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: (pair.down, pair.up) for name, pair in self._by_layer[layer].items()}


class TowerLayer(nn.Module):
    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        width = sizes.hidden_size
        self.num_heads = sizes.num_heads
        self.compiled: Callable[..., Tensor] | None = None
        self.layer_norm1 = nn.LayerNorm(width, LAYER_NORM_EPS)
        self.qkv = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        self.layer_norm2 = nn.LayerNorm(width, LAYER_NORM_EPS)
        self.fc1 = nn.Linear(width, sizes.intermediate_size)
        self.fc2 = nn.Linear(sizes.intermediate_size, width)

    def forward(self, x: Tensor) -> Tensor:
        layer = (self.compiled if torch.is_grad_enabled() else None) or encode_layer
        return layer(x, dict(self.named_parameters()), self.num_heads)


def encode_layer(x: Tensor, weights: dict[str, Tensor], num_heads: int) -> Tensor:
    """One layer of the tower. A function of tensors, so that it is compiled once for all."""
    count, length, width = x.shape

    def linear(inner: Tensor, name: str) -> Tensor:
        return functional.linear(inner, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(inner: Tensor, name: str) -> Tensor:
        scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return functional.layer_norm(inner, (width,), scale, shift, LAYER_NORM_EPS)

    qkv = linear(norm(x, "layer_norm1"), "qkv").view(count, length, 3, num_heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    mixed = functional.scaled_dot_product_attention(q, k, v)
    x = x + linear(mixed.transpose(1, 2).reshape(count, length, width), "out_proj")
    inner = linear(norm(x, "layer_norm2"), "fc1")
    return x + linear(inner * torch.sigmoid(1.702 * inner), "fc2")


class Tower(nn.Module):
    """CLIP's shape: (T, 3, S, S) normalised -> (T, grid * grid, channels)."""

    def __init__(self, sizes: TowerSizes = TOWER) -> None:
        super().__init__()
        width = sizes.hidden_size
        self.sizes = sizes
        self.patches = nn.Conv2d(3, width, sizes.patch_size, sizes.patch_size, bias=False)
        self.class_token = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positions = nn.Parameter(torch.randn(1 + sizes.grid**2, width) * 0.02)
        self.norm = nn.LayerNorm(width, LAYER_NORM_EPS)
        self.each_layer = [TowerLayer(sizes) for _ in range(sizes.num_layers)]
        self.layers = nn.ModuleList(self.each_layer)

    def forward(self, tiles: Tensor) -> Tensor:
        # A convolution whose patches do not overlap is a product of matrices, and faster as one.
        grid, side = self.sizes.grid, self.sizes.patch_size
        cut = tiles.view(-1, 3, grid, side, grid, side).permute(0, 2, 4, 1, 3, 5)
        x = functional.linear(cut.reshape(-1, grid**2, 3 * side**2), self.patches.weight.flatten(1))
        first = self.class_token.to(x.dtype).expand(len(x), 1, -1)
        x = self.norm(torch.cat([first, x], dim=1) + self.positions)
        for layer in self.each_layer:
            x = layer(x)
        patches: Tensor = x[:, 1:]
        return patches


class Projector(nn.Module):
    """Separators have the width of a merged feature and pass through the two layers too."""

    def __init__(self, hidden_size: int, sizes: TowerSizes = TOWER) -> None:
        super().__init__()
        self.row_end = nn.Parameter(torch.randn(sizes.merged_size))
        self.view_end = nn.Parameter(torch.randn(sizes.merged_size))
        self.first = nn.Linear(sizes.merged_size, hidden_size)
        self.second = nn.Linear(hidden_size, hidden_size)

    def forward(self, merged: Tensor, sources: Tensor) -> Tensor:
        """Features (M, 4 * channels) -> (N, hidden) in the order of `sources`."""
        table = torch.cat([merged, self.row_end[None], self.view_end[None]])
        return self.project(table[sources])

    def project(self, merged: Tensor) -> Tensor:
        projected: Tensor = self.second(functional.gelu(self.first(merged)))
        return projected


class Vision(nn.Module):
    """Pictures to image rows, in the order in which `ImageInputs.sources` wants them."""

    mean: Tensor
    std: Tensor

    def __init__(self, hidden_size: int, sizes: TowerSizes = TOWER) -> None:
        super().__init__()
        self.tower = Tower(sizes)
        self.projector = Projector(hidden_size, sizes)
        self.register_buffer("mean", 255 * torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD)[:, None, None], persistent=False)

    def forward(self, image: ImageInputs) -> Tensor:
        """(N, hidden): a row for every image token."""
        features: Tensor = self.projector(
            self.merge(self.maps(image.tiles, image.canvases)), image.sources
        )
        return features

    def maps(self, tiles: Tensor, canvases: tuple[Canvases, ...] = ()) -> Tensor:
        """(M, 256, channels): of all tiles, uint8 (T, S, S, 3), then of the canvases' views."""
        tiles = tiles.permute(0, 3, 1, 2).float()
        pixels = torch.cat([tiles, *(_views(tiles, one) for one in canvases)])
        maps: Tensor = self.tower((pixels - self.mean) / self.std)
        return maps

    def merge(self, maps: Tensor) -> Tensor:
        """(M, 256, channels) -> (M * 64, 4 * channels): four neighbours side by side."""
        side, channels = self.tower.sizes.grid // 2, maps.shape[-1]
        merged = maps.view(-1, side, 2, side, 2, channels).permute(0, 1, 3, 2, 4, 5)
        return merged.reshape(-1, 4 * channels)


def _views(tiles: Tensor, canvases: Canvases) -> Tensor:
    """The global view of each canvas, as `ixc_runtime.model.vision` makes it."""
    wide, high, side = canvases.tiles_wide, canvases.tiles_high, tiles.shape[-1]
    numbers = canvases.first_tiles[:, None] + torch.arange(wide * high, device=tiles.device)
    parts = tiles[numbers].view(-1, high, wide, 3, side, side)
    whole = parts.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, high * side, wide * side)
    return functional.interpolate(whole, size=(side, side), mode="bicubic", align_corners=False)


# One adapter's pairs in one layer, and the rows that take it: None is all of them.
Applied = tuple[dict[str, tuple[Tensor, Tensor]], Tensor | None]


def decode_layer(
    x: Tensor, rotary: Tensor, weights: LayerWeights, applied: list[Applied], sizes: LlamaSizes
) -> Tensor:
    """One frozen layer and its adapters. A function of tensors, so that it is compiled once."""
    batch, length, _ = x.shape
    inner = _rms_norm(x, weights.attention_norm, sizes.rms_norm_eps)
    qkv = _linear(inner, weights.wqkv, "wqkv", applied)
    groups = qkv.view(batch, length, sizes.num_kv_heads, -1, sizes.head_dim)
    q = _rotate(groups[..., :-2, :].flatten(2, 3), rotary).transpose(1, 2)
    k = _rotate(groups[..., -2, :], rotary).transpose(1, 2)
    v = groups[..., -1, :].transpose(1, 2)
    # Repeated by hand: the fast kernels' backward pass wants as many keys as queries.
    k, v = (heads.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for heads in (k, v))
    mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    x = x + _linear(mixed.transpose(1, 2).reshape(x.shape), weights.wo, "wo", applied)
    inner = _rms_norm(x, weights.ffn_norm, sizes.rms_norm_eps)
    gate = _linear(inner, weights.w1, "w1", applied)
    inner = functional.silu(gate) * _linear(inner, weights.w3, "w3", applied)
    return x + _linear(inner, weights.w2, "w2", applied)


class DemoModel(nn.Module):
    """`adapters` by the checkpoint's names: Plora, lora_web, lora_sft, lora_dpo."""

    def __init__(self, language: Language, ranks: dict[str, int]) -> None:
        super().__init__()
        self.vision = Vision(language.sizes.hidden_size)
        self.adapters = nn.ModuleDict(
            {name: Adapter(language, rank) for name, rank in ranks.items()}
        )
        self.language = language
        self._compiled_layer: Callable[..., Tensor] | None = None

    def adapter(self, name: str) -> Adapter:
        module = self.adapters[name]
        assert isinstance(module, Adapter)
        return module

    def compile_layers(self) -> None:
        """For training on a GPU. Each shape of a batch costs a compilation of seconds, so what
        runs without gradients is left as it is.
        """
        self._compiled_layer = torch.compile(decode_layer, dynamic=False)
        encode = torch.compile(encode_layer)
        for layer in self.vision.tower.each_layer:
            layer.compiled = encode

    def hidden(
        self,
        token_ids: Tensor,
        adapters: tuple[str, ...] = (),
        image: ImageInputs | None = None,
        features: Tensor | None = None,
    ) -> Tensor:
        """token_ids (B, L) -> (B, L, H) behind the last norm; `adapters` apply to every row.

        `features`: the image rows, where the caller has made them already.
        """
        language = self.language
        x = language.embedding[token_ids]
        masked: list[tuple[Adapter, Tensor | None]] = [(self.adapter(n), None) for n in adapters]
        if image is not None:
            features = self.vision(image) if features is None else features
            flat = x.flatten(0, 1).index_copy(0, image.rows, features.to(x.dtype))
            x = flat.view(x.shape)
            mask = torch.zeros(len(flat), 1, device=x.device, dtype=x.dtype)
            mask = mask.index_fill(0, image.rows, 1).view(*token_ids.shape, 1)
            masked.append((self.adapter(IMAGE), mask))
        rotary = _rotary_table(token_ids.shape[1], language.sizes, x)
        compiled = self._compiled_layer if torch.is_grad_enabled() else None
        layer = compiled or decode_layer
        for index, weights in enumerate(language.layers):
            applied = [(adapter.pairs(index), mask) for adapter, mask in masked]
            x = layer(x, rotary, weights, applied, language.sizes)
        return _rms_norm(x, language.norm, language.sizes.rms_norm_eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., H) -> float32 (..., vocabulary)."""
        return functional.linear(hidden, self.language.output).float()


def _linear(x: Tensor, weight: Tensor, name: str, applied: list[Applied]) -> Tensor:
    y = functional.linear(x, weight)
    for pairs, mask in applied:
        down, up = pairs[name]
        low = functional.linear(x, down.to(x.dtype))
        y = y + functional.linear(low if mask is None else low * mask, up.to(x.dtype))
    return y


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


def _rotary_table(length: int, sizes: LlamaSizes, like: Tensor) -> Tensor:
    """(2, length, 1, head_dim / 2): cosines and sines, in float32."""
    exponents = torch.arange(0, sizes.head_dim, 2, device=like.device).float() / sizes.head_dim
    positions = torch.arange(length, device=like.device).float()
    angles = positions[:, None] / sizes.rope_theta**exponents
    return torch.stack([angles.cos(), angles.sin()])[:, :, None]


def _rotate(heads: Tensor, rotary: Tensor) -> Tensor:
    """(B, L, heads, head_dim): the two halves of a head are rotated against each other."""
    left, right = heads.float().chunk(2, dim=-1)
    cos, sin = rotary[0], rotary[1]
    return torch.cat([left * cos - right * sin, right * cos + left * sin], -1).to(heads.dtype)
