"""What is trained is what is served: the differentiable model beside the product's own parts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ixc_runtime.checkpoint.demo_model import build_demo_model
from ixc_runtime.config import load_settings, read_tower_shape
from ixc_runtime.media.geometry import ImageInfo
from ixc_runtime.media.strip import draw_strip, transform_strip
from ixc_runtime.media.transform import transform_image
from ixc_runtime.media.video import VideoInfo, plan_strip
from ixc_runtime.model.loader import load_model
from ixc_runtime.prompt.layout import lay_out
from ixc_runtime.prompt.tokenizer import load_tokenizer, resolve_roles
from ixc_runtime.request import (
    Conversation,
    ImagePart,
    ImageSource,
    Message,
    Part,
    Role,
    TextPart,
    VideoPart,
    VideoSource,
)
from models.demo.training.batches import (
    HD_NUM_SEVERAL,
    HD_NUM_SINGLE,
    IGNORED,
    TILE,
    Framer,
    Picture,
    collate,
    prepare_clip,
    prepare_picture,
)
from models.demo.training.model import DemoModel
from tests.fakes.tiny_gguf import write_tiny_gguf
from tests.fakes.tiny_trained import tiny_demo, write_tiny_trained
from tests.parity.naive import NaiveModel

TURNS = [("What is it?", "It is a cat."), ("Sure?", "Yes.")]
TASK_ADAPTERS = {"base": (), "web": ("lora_web",), "write": ("lora_sft", "lora_dpo")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoModel, Path]:
    """A tiny demo model, and the checkpoint that its exported parts make."""
    folder = tmp_path_factory.mktemp("training")
    write_tiny_gguf(folder / "tiny.gguf")
    model = tiny_demo(folder / "tiny.gguf")
    trained = write_tiny_trained(model, folder / "trained")
    target = build_demo_model(
        folder / "demo", gguf=folder / "tiny.gguf", trained=trained, progress=lambda _: None
    )
    return model, target


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def conversation(parts: Sequence[Part]) -> Conversation:
    (question, answer), (follow_up, _) = TURNS
    return Conversation(
        messages=(
            Message(role=Role.USER, parts=(*parts, TextPart(text=question))),
            Message(role=Role.ASSISTANT, parts=(TextPart(text=answer),)),
            Message(role=Role.USER, parts=(TextPart(text=follow_up),)),
        )
    )


@pytest.mark.parametrize("sizes", [[(100, 80)], [(500, 300)], [(150, 90), (90, 150)]])
def test_a_training_prompt_is_the_served_prompt(
    built: tuple[DemoModel, Path], sizes: list[tuple[int, int]]
) -> None:
    """Id for id, for one picture, for one of several tiles, and for several pictures."""
    _, folder = built
    parts = tuple(
        ImagePart(source=ImageSource(digest=f"{index}", path=Path("unread")))
        for index in range(len(sizes))
    )
    info = {
        f"{index}": ImageInfo(width=width, height=height, format="PNG")
        for index, (width, height) in enumerate(sizes)
    }
    tokenizer, settings = load_tokenizer(folder), load_settings(folder)
    served = lay_out(
        conversation(parts),
        tokenizer=tokenizer,
        roles=resolve_roles(tokenizer, settings),
        settings=settings,
        tower=read_tower_shape(folder),
        media_info=info,
    )

    hd_num = HD_NUM_SINGLE if len(sizes) == 1 else HD_NUM_SEVERAL
    pictures = [prepare_picture(noise(*size), hd_num=hd_num) for size in sizes]
    sample = Framer(folder / "tokenizer.json").chat(TURNS, pictures)

    assert sample.ids[: len(served.token_ids)] == served.token_ids


def test_a_clips_training_prompt_is_the_served_one(built: tuple[DemoModel, Path]) -> None:
    """A clip is one picture, the strip of its frames, and costs the same tokens."""
    _, folder = built
    info = VideoInfo(width=64, height=48, num_frames=5, fps=1.0, format="MP4", codec="H.264")
    tokenizer, settings = load_tokenizer(folder), load_settings(folder)
    served = lay_out(
        conversation((VideoPart(source=VideoSource(digest="0", path=Path("unread"))),)),
        tokenizer=tokenizer,
        roles=resolve_roles(tokenizer, settings),
        settings=settings,
        tower=read_tower_shape(folder),
        media_info={"0": info},
    )

    clip = prepare_clip([noise(64, 48, seed) for seed in range(5)])
    sample = Framer(folder / "tokenizer.json").chat(TURNS, [clip])

    assert sample.ids[: len(served.token_ids)] == served.token_ids


def test_answers_and_their_ends_are_what_is_learnt(built: tuple[DemoModel, Path]) -> None:
    """Every answer's tokens and the end of its turn; nothing of the questions."""
    framer = Framer(built[1] / "tokenizer.json")
    sample = framer.chat(TURNS)
    learnt = [label for label in sample.labels if label != IGNORED]

    expected = []
    for _, answer in TURNS:
        expected += [*framer.encode(answer), framer.end]
    assert learnt == expected


def pixels_of(pictures: Sequence[Image.Image], hd_num: int) -> list[np.ndarray]:
    return [
        np.array(transform_image(picture, hd_num=hd_num, tile_size=TILE)) for picture in pictures
    ]


@pytest.mark.parametrize("adapter", TASK_ADAPTERS)
def test_trained_and_served_logits_agree(built: tuple[DemoModel, Path], adapter: str) -> None:
    """A padded batch of three: one tile, several tiles, and a clip, under every adapter.

    The judges are the product's vision and a naive decoder on the exported checkpoint.
    """
    model, folder = built
    images = [noise(200, 120, 1), noise(450, 300, 2)]
    frames = [noise(64, 48, seed) for seed in range(4)]
    pictures: list[Picture] = [
        *(prepare_picture(image, hd_num=HD_NUM_SINGLE) for image in images),
        prepare_clip(frames),
    ]
    framer = Framer(folder / "tokenizer.json")
    samples = [framer.chat(TURNS, [picture]) for picture in pictures]
    batch = collate(samples, max(len(sample.ids) for sample in samples), framer.pad)
    with torch.inference_mode():
        hidden = model.hidden(batch.token_ids, TASK_ADAPTERS[adapter], batch.image)
        trained = model.logits(hidden)

    served = load_model(folder, dtype=torch.float32)
    strip = plan_strip(64, 48, num_frames=len(frames), tile_size=TILE)
    canvases = [
        *pixels_of(images, HD_NUM_SINGLE),
        np.array(transform_strip(draw_strip(frames, strip), strip)),
    ]
    naive = NaiveModel(folder)
    for row, (sample, canvas) in enumerate(zip(samples, canvases, strict=True)):
        high, wide = canvas.shape[0] // TILE, canvas.shape[1] // TILE
        assert served.vision is not None
        encoded = served.vision.encode_tiles(served.vision.cut(torch.from_numpy(canvas)))
        features = served.vision.assemble(encoded, wide, high)
        expected = naive.logits(list(sample.ids), features=features, adapter=adapter)
        found = trained[row, : len(sample.ids)].double()
        assert (found - expected).abs().max() <= 1e-3 * expected.abs().max()
