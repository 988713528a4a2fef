"""Our outputs beside the reference implementation's recorded ones, in float32."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from torch import Tensor

from ixc_cuda import awq_layout
from ixc_runtime.media.geometry import num_image_tokens, plan_tiles
from ixc_runtime.media.strip import draw_strip, transform_strip
from ixc_runtime.media.transform import resample_and_pad, transform_image
from ixc_runtime.media.video import plan_strip, plan_strip_tiles
from ixc_runtime.model.rope import rotary_base
from tests.fakes.step_driver import IMAGE_TOKEN, Lane
from tests.parity.conftest import Golden

TOLERANCE = 1e-4  # of the largest recorded value
CHUNK = 700  # of a long prompt: not a multiple of a page, less than the images are long


def assert_close(ours: Tensor, recorded: Tensor) -> None:
    assert ours.shape == recorded.shape
    error = (ours.cpu() - recorded).abs().max() / recorded.abs().max()
    assert error <= TOLERANCE, f"differs by {error:.1e} of its scale; {TOLERANCE} is allowed"


def draw_picture(width: int, height: int, seed: int) -> Image.Image:
    """The recipe of golden/README.md."""
    y, x = numpy.arange(height)[:, None], numpy.arange(width)[None, :]
    channels = numpy.broadcast_arrays(
        (x * 255 // max(width - 1, 1)).astype(numpy.uint8),
        (y * 255 // max(height - 1, 1)).astype(numpy.uint8),
        ((x + y) * 255 // max(width + height - 2, 1)).astype(numpy.uint8),
    )
    image = Image.fromarray(numpy.stack(channels, -1))
    draw = ImageDraw.Draw(image)
    random = numpy.random.default_rng(seed)
    for _ in range(25):
        x0, y0 = int(random.integers(0, width)), int(random.integers(0, height))
        size = int(random.integers(5, max(6, min(width, height) // 3)))
        colour = tuple(int(value) for value in random.integers(0, 255, 3))
        shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
        shape([x0, y0, x0 + size, y0 + size], fill=colour)
    return image


def sha256(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def test_image_transform(golden: Golden, picture: dict[str, Any]) -> None:
    """Same size, tiles, tokens and bytes; a sensible result where the reference crashes."""
    width, height, hd_num = picture["width"], picture["height"], picture["hd_num"]
    tower = golden.model.tower
    assert tower is not None
    image = draw_picture(width, height, picture["picture_seed"])
    if "input_sha256" in picture:
        assert picture["input_sha256"] == sha256(image), "the recipe itself"
    plan = plan_tiles(width, height, hd_num=hd_num, tile_size=tower.tile_size)
    result = transform_image(image, hd_num=hd_num, tile_size=tower.tile_size)
    assert (plan.canvas_width, plan.canvas_height) == result.size
    if "sha256_rgb" not in picture:
        assert picture["reference_raises"]
        assert plan.num_tiles <= hd_num
        return
    assert (picture["out_width"], picture["out_height"]) == result.size
    assert (picture["tiles_w"], picture["tiles_h"]) == (plan.tiles_wide, plan.tiles_high)
    tokens = num_image_tokens(plan.tiles_wide, plan.tiles_high, tower.grid // 2)
    assert picture["tokens"] == tokens
    assert picture["sha256_rgb"] == sha256(result)


def test_clip_strip(golden: Golden, clip: dict[str, Any]) -> None:
    """The labelled strip of a clip's frames and what it is transformed to, byte for byte.

    Labels are in Pillow's built-in font at the recorded size: a strip that differs while
    `test_plain_strip` holds means that this Pillow draws text differently.
    """
    tower = golden.model.tower
    assert tower is not None
    width, height, num_frames = clip["width"], clip["height"], clip["frames"]
    plan = plan_strip(width, height, num_frames=num_frames, tile_size=tower.tile_size)
    seeds = range(clip["first_picture_seed"], clip["first_picture_seed"] + num_frames)
    strip = draw_strip((draw_picture(width, height, seed) for seed in seeds), plan)
    assert clip["strip"] == [plan.width, plan.height] == list(strip.size)
    assert clip["strip_sha256_pillow_default_font_40"] == sha256(strip)
    result = transform_strip(strip, plan)
    assert clip["out"] == list(result.size)
    assert clip["tiles"] == [plan.tiles.tiles_wide, plan.tiles.tiles_high]
    assert clip["out_sha256_pillow_default_font_40"] == sha256(result)


def test_plain_strip(golden: Golden, clip: dict[str, Any]) -> None:
    """A picture of the strip's size, transformed as a strip: no font has a part in it."""
    tower, recorded = golden.model.tower, clip["plain_strip"]
    assert tower is not None
    width, height = clip["strip"]
    tiles = plan_strip_tiles(width, height, tile_size=tower.tile_size)
    result = resample_and_pad(draw_picture(width, height, recorded["picture_seed"]), tiles)
    assert recorded["out"] == list(result.size)
    assert recorded["sha256_rgb"] == sha256(result)


def test_prompt_length(golden: Golden, prompt: str) -> None:
    """A prompt has as many slots, and as many of its images, as the reference's."""
    lane, recorded = golden.lane(prompt), golden.prompt(prompt)
    assert recorded["length"] == len(lane.tokens)
    assert recorded["image_tokens"] == lane.tokens.count(IMAGE_TOKEN)


def test_input_embeddings(golden: Golden, prompt: str) -> None:
    """Text embeddings and image features stand in the same rows with the same values."""
    recorded = golden.tensors.get(f"{prompt}.input_embeds_rows")
    if recorded is None:
        pytest.skip("no embeddings are recorded of a prompt without images")
    lane = golden.lane(prompt)
    driver = golden.driver(len(lane.tokens))
    rows = golden.model.embed(driver.batch((lane, len(lane.tokens))))
    assert_close(rows[::37], recorded)


@pytest.mark.parametrize("chunk", [CHUNK, 1 << 20], ids=["chunked", "whole"])
def test_logits(golden: Golden, prompt: str, chunk: int) -> None:
    """Logits of the last positions, and the best token of every position."""
    lane = golden.lane(prompt)
    driver = golden.driver(len(lane.tokens))
    parts = []
    while lane.left:
        parts.append(driver.step((lane, min(lane.left, chunk)))[0])
    logits = torch.cat(parts)
    recorded = golden.tensors[f"{prompt}.last_logits"]
    assert_close(logits[-len(recorded) :], recorded)
    assert golden.tensors[f"{prompt}.argmax"].tolist() == logits.argmax(-1).tolist()


def test_answer(golden: Golden, answer: tuple[str, str]) -> None:
    """Greedy ids, with and without a repetition penalty, which sees generated tokens only."""
    name, kind = answer
    recorded = golden.prompt(name)[kind]
    ids = greedy(golden, golden.lane(name), recorded["args"], len(recorded["tokens"]))
    assert recorded["tokens"] == ids


def greedy(golden: Golden, lane: Lane, args: dict[str, Any], count: int) -> list[int]:
    assert args.keys() <= {"num_beams", "repetition_penalty"} and args.get("num_beams", 1) == 1
    penalty = args.get("repetition_penalty", 1.0)
    driver = golden.driver(len(lane.tokens) + count)
    ids: list[int] = []
    while len(ids) < count:
        logits = driver.step((lane, lane.left))[0][-1].clone()
        seen = logits[ids]
        logits[ids] = torch.where(seen > 0, seen / penalty, seen * penalty)
        ids.append(int(logits.argmax()))
        lane.tokens.append(ids[-1])
        if ids[-1] in golden.model.config.eos_token_ids:
            break
    return ids


def test_dynamic_ntk(golden: Golden) -> None:
    """A prompt past the native length is rotated by the enlarged base."""
    recorded = golden.expected["dynamic_ntk"]
    config = replace(
        golden.model.config, max_position_embeddings=recorded["max_position_embeddings"]
    )
    tokens = recorded["token_ids"]
    lane = Lane(tokens=list(tokens), base=rotary_base(config, len(tokens)))
    assert lane.base is not None and lane.base > config.rope_theta
    logits = golden.driver(len(tokens)).step((lane, len(tokens)))[0]
    last = golden.tensors["ntk.last_logits"]
    assert_close(logits[-len(last) :], last)


def test_awq_layout(golden: Golden) -> None:
    """Recorded int4 tensors unpack to the recorded weights, and pack again to the same words."""
    recorded, group_size = golden.expected["awq"], golden.expected["awq"]["group_size"]
    tensors = golden.tensors
    packed = awq_layout.PackedLinear(
        qweight=tensors["awq.qweight"],
        qzeros=tensors["awq.qzeros"],
        scales=tensors["awq.scales"],
    )
    assert torch.equal(tensors["awq.dequantised"], awq_layout.dequantize(packed, group_size))
    for words in (packed.qweight, packed.qzeros):
        assert torch.equal(words, awq_layout.pack(awq_layout.unpack(words)))
    again = awq_layout.quantize(read_weight(golden, recorded["source"]), group_size)
    assert torch.equal(packed.qweight, again.qweight)
    assert torch.equal(packed.qzeros, again.qzeros)
    assert torch.equal(packed.scales, again.scales)


def read_weight(golden: Golden, name: str) -> Tensor:
    for path in sorted(golden.folder.glob("model*.safetensors")):
        if name in (tensors := load_file(path)):
            return tensors[name].float()
    raise AssertionError(f"{name} is in no shard")


def test_not_offered_yet(golden: Golden, later: str) -> None:
    """Recorded for what the server does not offer yet."""
    pytest.skip(f"not offered yet: {later}")
