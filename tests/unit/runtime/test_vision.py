"""The image side beside transformers' CLIP and a plain stitching, token by token."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from ixc_runtime.errors import CheckpointInvalid
from ixc_runtime.model.loader import load_model
from ixc_runtime.model.vision import MEAN, STD, Vision
from tests.fakes.tiny_checkpoint import TinyTower, write_tiny_checkpoint

SIDE = 56


def vision_of(folder: Path) -> Vision:
    vision = load_model(folder).vision
    assert vision is not None
    return vision


def picture(width: int, height: int) -> Tensor:
    generator = torch.Generator().manual_seed(width * height)
    return torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)


def test_cut(tmp_path: Path) -> None:
    """The global view first, then tiles row by row, all normalised."""
    pixels = picture(3 * SIDE, 2 * SIDE)
    tiles = vision_of(write_tiny_checkpoint(tmp_path)).cut(pixels)
    assert tiles.shape == (7, 3, SIDE, SIDE)
    normal = ((pixels.double() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)
    for index in range(6):
        row, column = divmod(index, 3)
        part = normal[:, row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
        torch.testing.assert_close(tiles[1 + index], part.float())
    view = torch.nn.functional.interpolate(
        normal[None].float(), (SIDE, SIDE), mode="bicubic", align_corners=False, antialias=False
    )
    torch.testing.assert_close(tiles[0], view[0])


def test_cut_of_a_broken_size(tmp_path: Path) -> None:
    """Pixels that are not whole tiles are refused with both numbers."""
    with pytest.raises(ValueError, match=f"{SIDE} x 57 pixels"):
        vision_of(write_tiny_checkpoint(tmp_path)).cut(picture(SIDE, SIDE + 1))


@pytest.mark.parametrize("heads", [None, 4], ids=["official heads", "heads by ixc.json"])
@pytest.mark.parametrize("layers", [1, 3])
def test_tower(tmp_path: Path, heads: int | None, layers: int) -> None:
    """The same features as CLIPVisionModel: last layer, before its final norm, no class token."""
    tower = TinyTower(channels=128, layers=layers, heads=heads, grid=6)
    folder = write_tiny_checkpoint(tmp_path, tower=tower, shards=1)
    clip = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=tower.channels,
            intermediate_size=tower.mlp,
            num_hidden_layers=layers,
            num_attention_heads=heads or tower.channels // 64,
            image_size=tower.grid * tower.patch,
            patch_size=tower.patch,
            hidden_act="quick_gelu",
            layer_norm_eps=1e-5,
        )
    ).eval()
    prefix = "vit.vision_tower."
    stored = {
        name.removeprefix(prefix): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
        if name.startswith(prefix)
    }
    names = clip.state_dict().keys()  # without the first prefix in some versions
    clip.load_state_dict(
        {name: stored[f"vision_model.{name.removeprefix('vision_model.')}"] for name in names}
    )
    vision = vision_of(folder)
    tiles = vision.cut(picture(2 * vision.shape.tile_size, vision.shape.tile_size))
    with torch.inference_mode():
        expected = clip(pixel_values=tiles).last_hidden_state[:, 1:]
    torch.testing.assert_close(vision.encode_tiles(tiles), expected, rtol=1e-4, atol=1e-4)


def test_tiles_are_encoded_alone(tmp_path: Path) -> None:
    """A tile's features do not depend on which others go through the tower with it."""
    vision = vision_of(write_tiny_checkpoint(tmp_path))
    tiles = vision.cut(picture(2 * SIDE, 2 * SIDE))
    parts = [vision.encode_tiles(tiles[:2]), vision.encode_tiles(tiles[2:])]
    torch.testing.assert_close(torch.cat(parts), vision.encode_tiles(tiles))


@pytest.mark.parametrize(("wide", "high"), [(1, 1), (3, 1), (1, 2), (3, 2)])
def test_assemble(tmp_path: Path, wide: int, high: int) -> None:
    """Global rows, a separator, the stitched rows; each row closed, everything projected."""
    folder = write_tiny_checkpoint(tmp_path, shards=1)
    vision = vision_of(folder)
    grid = vision.shape.grid
    side = grid // 2
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(1 + wide * high, grid * grid, 64, generator=generator)
    stored = load_file(folder / "model.safetensors")
    row_end, view_end = stored["plora_sub_GN"].flatten(), stored["plora_glb_GN"].flatten()

    def feature(tile: int, row: int, column: int) -> Tensor:
        corners = [(0, 0), (0, 1), (1, 0), (1, 1)]
        return torch.cat([maps[tile, (2 * row + i) * grid + 2 * column + j] for i, j in corners])

    rows = []
    for row in range(side):
        rows += [*(feature(0, row, column) for column in range(side)), row_end]
    rows.append(view_end)
    for row in range(high * side):
        for column in range(wide * side):
            tile = 1 + (row // side) * wide + column // side
            rows.append(feature(tile, row % side, column % side))
        rows.append(row_end)
    x = torch.stack(rows)
    x = x @ stored["vision_proj.0.weight"].T + stored["vision_proj.0.bias"]
    x = 0.5 * x * (1 + torch.erf(x / 2**0.5))
    expected = x @ stored["vision_proj.2.weight"].T + stored["vision_proj.2.bias"]
    assert (high * wide + 1) * side * side + 1 + (high + 1) * side == len(expected)
    torch.testing.assert_close(vision.assemble(maps, wide, high), expected, rtol=1e-4, atol=1e-4)


def test_assemble_of_too_few_maps(tmp_path: Path) -> None:
    """A count that does not fit the tiling is refused."""
    with pytest.raises(ValueError, match="5 maps"):
        vision_of(write_tiny_checkpoint(tmp_path)).assemble(torch.zeros(5, 16, 64), 2, 3)


def test_heads_that_do_not_divide(tmp_path: Path) -> None:
    """The checkpoint is refused and the setting named."""
    with pytest.raises(CheckpointInvalid, match="tower_heads"):
        load_model(write_tiny_checkpoint(tmp_path, tower=TinyTower(heads=5)))


def test_model_without_a_tower(tmp_path: Path) -> None:
    """It takes no images and says so."""
    model = load_model(write_tiny_checkpoint(tmp_path, tower=None))
    assert not model.has_images
    assert model.tower is None
