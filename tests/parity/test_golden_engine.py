"""The recorded answers once more, through the whole engine: all prompts at once, in chunks.

What test_golden.py checks of the model, this checks of scheduler, pages, images and sampler.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ixc_runtime.engine_process.messages import EngineConfig
from ixc_runtime.engine_process.process import make_core
from ixc_runtime.media.transform import transform_image
from ixc_runtime.request import SamplingParams
from tests.fakes.engine_driver import EngineDriver, Picture
from tests.parity.conftest import Golden


@dataclass(frozen=True, kw_only=True)
class FilePicture(Picture):
    """A picture of the golden folder, transformed as the media worker does."""

    path: Path
    hd_num: int

    def pixels(self, tile_size: int) -> np.ndarray:
        return np.asarray(transformed(self.path, self.hd_num, tile_size))


def transformed(path: Path, hd_num: int, tile_size: int) -> Image.Image:
    with Image.open(path) as image:
        return transform_image(image, hd_num=hd_num, tile_size=tile_size)


def prompt_parts(golden: Golden, prompt: dict[str, Any], tile_size: int) -> list[int | Picture]:
    parts: list[int | Picture] = []
    for segment in prompt["segments"]:
        if "token_ids" in segment:
            parts += segment["token_ids"]
            continue
        path, hd_num = golden.folder / segment["image"], segment["hd_num"]
        canvas = transformed(path, hd_num, tile_size)
        parts.append(
            FilePicture(
                path=path,
                hd_num=hd_num,
                wide=canvas.width // tile_size,
                high=canvas.height // tile_size,
            )
        )
    return parts


def test_all_recorded_prompts_at_once_give_the_recorded_ids(golden: Golden) -> None:
    """Base, web and write in one batch, prefilled in chunks of 300 rows: every id as recorded."""
    tower = golden.model.tower
    assert tower is not None
    config = EngineConfig(
        model=str(golden.folder),
        device=golden.device,
        max_batch=32,
        max_step_tokens=300,
        kv_bytes=64 * 2**20,
    )
    core, _ = make_core(golden.model, config, digest="golden")
    driver = EngineDriver(core, tile_size=tower.tile_size, side=tower.grid // 2)
    expected = {}
    for prompt in golden.expected["prompts"]:
        parts = prompt_parts(golden, prompt, tower.tile_size)
        for kind in ("greedy", "greedy_rep"):
            name, recorded = f"{prompt['name']}-{kind}", prompt[kind]
            driver.submit(
                name,
                parts,
                adapter=prompt["mode"],
                max_output=24,
                sampling=SamplingParams(
                    temperature=0.0,
                    repetition_penalty=recorded["args"].get("repetition_penalty", 1.0),
                ),
                stop_token_ids=[2],
            )
            expected[name] = [token_id for token_id in recorded["tokens"] if token_id != 2]

    assert {name: outcome.ids for name, outcome in driver.run().items()} == expected
