"""Pictures to rows of the language model: cut into tiles, encode, stitch, project.

    pixels ──cut──► global view + tiles ──encode_tiles──► maps ──assemble──► features

The tower is CLIP's, taken at the output of its last layer (before the norm behind it), without the
class token. The three steps are apart so that tiles of several pictures can be encoded a few at a
time. How a picture is resized and padded is decided before: see `ixc_runtime.media`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import (
    gelu,
    interpolate,
    layer_norm,
    linear,
    scaled_dot_product_attention,
)

from ixc_runtime.config import TowerShape

# CLIP's own statistics of RGB.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """A weight with a bias: of a linear, or of a layer norm."""

    weight: Tensor
    bias: Tensor

    @property
    def num_bytes(self) -> int:
        return self.weight.nbytes + self.bias.nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerLayer:
    """`qkv` is the three projections, one over the other."""

    norm1: Affine
    qkv: Affine
    out: Affine
    norm2: Affine
    fc1: Affine
    fc2: Affine

    @property
    def num_bytes(self) -> int:
        parts = (self.norm1, self.qkv, self.out, self.norm2, self.fc1, self.fc2)
        return sum(part.num_bytes for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerWeights:
    patches: Tensor  # (channels, 3, patch, patch)
    class_token: Tensor  # (channels,)
    positions: Tensor  # (1 + grid * grid, channels): the class token's first
    norm: Affine
    layers: tuple[TowerLayer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectorWeights:
    """Separators have the width of four merged patches and pass through the projector too."""

    row_end: Tensor  # (4 * channels,): plora_sub_GN, behind every row of features
    view_end: Tensor  # (4 * channels,): plora_glb_GN, between global view and tiles
    first: Affine
    second: Affine


class Vision:
    """The image side of a model; free of state between calls."""

    def __init__(
        self, shape: TowerShape, *, heads: int, tower: TowerWeights, projector: ProjectorWeights
    ) -> None:
        self.shape = shape
        self._heads = heads
        self._tower = tower
        self._projector = projector
        device = tower.patches.device
        self._mean = torch.tensor(MEAN, device=device)[:, None, None]
        self._std = torch.tensor(STD, device=device)[:, None, None]

    @property
    def device(self) -> torch.device:
        return self._tower.patches.device

    @property
    def dtype(self) -> torch.dtype:
        return self._tower.patches.dtype

    @property
    def channels(self) -> int:
        return self._tower.patches.shape[0]

    @property
    def num_bytes(self) -> int:
        tower, projector = self._tower, self._projector
        plain = (
            tower.patches,
            tower.class_token,
            tower.positions,
            projector.row_end,
            projector.view_end,
        )
        affine = (tower.norm, projector.first, projector.second)
        return (
            sum(tensor.nbytes for tensor in plain)
            + sum(part.num_bytes for part in affine)
            + sum(layer.num_bytes for layer in tower.layers)
        )

    @torch.inference_mode()
    def cut(self, pixels: Tensor) -> Tensor:
        """uint8 (height, width, 3), whole tiles -> float32 (1 + tiles, 3, side, side).

        First the global view (the whole picture squeezed into one tile), then the tiles row by row.
        """
        side = self.shape.tile_size
        height, width = pixels.shape[:2]
        if height % side or width % side:
            raise ValueError(f"{width} x {height} pixels are not whole tiles of {side}")
        # From pinned memory nobody waits for the copy.
        pixels = pixels.to(self._tower.patches.device, non_blocking=True)
        picture = pixels.permute(2, 0, 1).to(torch.float32) / 255
        picture = (picture - self._mean) / self._std
        # No antialiasing: the model was trained on what this interpolation makes of large pictures.
        view = interpolate(picture[None], size=(side, side), mode="bicubic", align_corners=False)
        tiles = picture.reshape(3, height // side, side, width // side, side)
        return torch.cat([view, tiles.permute(1, 3, 0, 2, 4).reshape(-1, 3, side, side)])

    @torch.inference_mode()
    def encode_tiles(self, tiles: Tensor) -> Tensor:
        """(n, 3, side, side) -> (n, grid * grid, channels)."""
        tower = self._tower
        x = linear(self._patches(tiles.to(tower.patches.dtype)), tower.patches.flatten(1))
        first = tower.class_token.expand(x.shape[0], 1, -1)
        x = _norm(torch.cat([first, x], dim=1) + tower.positions, tower.norm)
        for layer in tower.layers:
            x = x + self._attend(_norm(x, layer.norm1), layer)
            inner = _linear(_norm(x, layer.norm2), layer.fc1)
            x = x + _linear(inner * torch.sigmoid(1.702 * inner), layer.fc2)  # CLIP's quick GELU
        return x[:, 1:]

    def _patches(self, tiles: Tensor) -> Tensor:
        """(n, 3, side, side) -> (n, grid * grid, 3 * patch * patch).

        CLIP's convolution never overlaps, so it is a product; cuDNN would round it to TF32.
        """
        patch = self.shape.patch_size
        grid = tiles.shape[-1] // patch
        parts = tiles.reshape(-1, 3, grid, patch, grid, patch).permute(0, 2, 4, 1, 3, 5)
        return parts.reshape(-1, grid * grid, 3 * patch * patch)

    @torch.inference_mode()
    def assemble(self, encoded: Tensor, tiles_wide: int, tiles_high: int) -> Tensor:
        """Maps of the global view and all tiles -> (tokens, hidden), in reading order.

        The rows of the global view, `view_end`, then the rows of all tiles stitched into one map;
        every row ends with `row_end`. With a side of 20: (high * wide + 1) * 400 + 1 + (high + 1)
        * 20 tokens.
        """
        grid = self.shape.grid
        side, channels = grid // 2, encoded.shape[-1]
        if encoded.shape[0] != 1 + tiles_wide * tiles_high:
            raise ValueError(
                f"{encoded.shape[0]} maps for a global view and {tiles_wide} x {tiles_high} tiles"
            )
        # Merge 2 x 2 patches into one feature: top left, top right, bottom left, bottom right.
        merged = encoded.reshape(-1, side, 2, side, 2, channels).permute(0, 1, 3, 2, 4, 5)
        merged = merged.reshape(-1, side, side, 4 * channels)
        stitched = merged[1:].reshape(tiles_high, tiles_wide, side, side, -1)
        stitched = stitched.permute(0, 2, 1, 3, 4)
        stitched = stitched.reshape(tiles_high * side, tiles_wide * side, -1)
        rows = torch.cat(
            [
                self._close_rows(merged[0]),
                self._projector.view_end[None],
                self._close_rows(stitched),
            ]
        )
        hidden = gelu(_linear(rows, self._projector.first))  # the exact one
        return _linear(hidden, self._projector.second)

    def _close_rows(self, features: Tensor) -> Tensor:
        """(rows, columns, width) -> (rows * (columns + 1), width)."""
        ends = self._projector.row_end.expand(features.shape[0], 1, -1)
        return torch.cat([features, ends], dim=1).flatten(0, 1)

    def _attend(self, x: Tensor, layer: TowerLayer) -> Tensor:
        n, length, width = x.shape
        qkv = _linear(x, layer.qkv).view(n, length, 3, self._heads, width // self._heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        # Torch takes cuDNN's here, on an H200: cuda/ixc_cuda/design/prefill_attention.md.
        out = scaled_dot_product_attention(q, k, v)
        return _linear(out.transpose(1, 2).reshape(n, length, width), layer.out)


def _norm(x: Tensor, norm: Affine) -> Tensor:
    return layer_norm(x, x.shape[-1:], norm.weight, norm.bias, LAYER_NORM_EPS)


def _linear(x: Tensor, layer: Affine) -> Tensor:
    return linear(x, layer.weight, layer.bias)
