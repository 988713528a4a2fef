"""`pytest tests/parity --golden DIR` checks any folder of the golden format; repeat it for more.

Without the option it is the copy kept beside this file. golden/README.md says what a folder holds.
With `--device cuda` the model computes there, in float32 and plain torch, as the service does in
float32; the kernels, which are for half precision, have test_golden_kernels.py.
"""

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from ixc_runtime.media.transform import transform_image
from ixc_runtime.model.decoder import Model
from ixc_runtime.model.loader import load_model
from tests.fakes.step_driver import IMAGE_TOKEN, Lane, StepDriver

KEPT = Path(__file__).parent / "golden" / "a"


class Golden:
    """One folder of recorded outputs, and our model loaded from it."""

    def __init__(self, folder: Path, device: str = "cpu", model: Model | None = None) -> None:
        self.folder = folder
        self.device = device
        self._model = model
        self.expected: dict[str, Any] = json.loads((folder / "expected.json").read_text())
        self._lanes: dict[str, tuple[list[int], Tensor | None]] = {}

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.folder / "expected.safetensors")

    @cached_property
    def model(self) -> Model:
        return self._model or load_model(self.folder, device=self.device)

    def prompt(self, name: str) -> dict[str, Any]:
        return next(prompt for prompt in self.expected["prompts"] if prompt["name"] == name)

    def lane(self, name: str) -> Lane:
        """A fresh sequence of a recorded prompt, its images encoded once."""
        prompt = self.prompt(name)
        if name not in self._lanes:
            self._lanes[name] = self._read(prompt)
        tokens, features = self._lanes[name]
        return Lane(tokens=list(tokens), features=features, adapter=prompt["mode"])

    def driver(self, length: int) -> StepDriver:
        return StepDriver(self.model, num_pages=length // 16 + 4)

    def _read(self, prompt: dict[str, Any]) -> tuple[list[int], Tensor | None]:
        tokens: list[int] = []
        features: list[Tensor] = []
        for segment in prompt["segments"]:
            if "token_ids" in segment:
                tokens += segment["token_ids"]
                continue
            features.append(self._encode(self.folder / segment["image"], segment["hd_num"]))
            tokens += [IMAGE_TOKEN] * len(features[-1])
        return tokens, torch.cat(features) if features else None

    def _encode(self, path: Path, hd_num: int) -> Tensor:
        vision = self.model.vision
        assert vision is not None
        side = vision.shape.tile_size
        with Image.open(path) as image:
            canvas = transform_image(image, hd_num=hd_num, tile_size=side)
        rows = torch.frombuffer(bytearray(canvas.tobytes()), dtype=torch.uint8)
        encoded = vision.encode_tiles(vision.cut(rows.view(canvas.height, canvas.width, 3)))
        return vision.assemble(encoded, canvas.width // side, canvas.height // side)


_GOLDEN: dict[Path, Golden] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        action="append",
        type=Path,
        metavar="DIR",
        help="a folder of recorded reference outputs; repeatable (default: the one kept here)",
    )
    parser.addoption("--device", default="cpu", help="where models compute: cpu, cuda, cuda:N")


def golden_folders(config: pytest.Config) -> Iterator[Golden]:
    device = config.getoption("--device", default="cpu")
    for folder in config.getoption("--golden", default=None) or [KEPT]:
        resolved = folder.resolve()
        if resolved not in _GOLDEN:
            _GOLDEN[resolved] = Golden(resolved, device)
        yield _GOLDEN[resolved]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every entry of every folder is a test of its own, named after both."""
    names = metafunc.fixturenames
    if "golden" not in names:
        return
    goldens = list(golden_folders(metafunc.config))
    entry = next((name for name in _ENTRIES if name in names), None)
    if entry is None:
        metafunc.parametrize("golden", goldens, ids=[golden.folder.name for golden in goldens])
        return
    cases = [
        pytest.param(golden, value, id=f"{golden.folder.name}-{label}")
        for golden in goldens
        for label, value in _ENTRIES[entry](golden)
    ]
    metafunc.parametrize(("golden", entry), cases)


def _pictures(golden: Golden) -> Iterator[tuple[str, Any]]:
    for case in golden.expected["image_transform"]:
        yield f"{case['width']}x{case['height']}-hd{case['hd_num']}", case


def _clips(golden: Golden) -> Iterator[tuple[str, Any]]:
    for case in golden.expected.get("video", []):
        yield f"{case['frames']}x{case['width']}x{case['height']}", case


def _prompts(golden: Golden) -> Iterator[tuple[str, Any]]:
    for prompt in golden.expected["prompts"]:
        yield prompt["name"], prompt["name"]


def _answers(golden: Golden) -> Iterator[tuple[str, Any]]:
    for prompt in golden.expected["prompts"]:
        for kind in ("greedy", "greedy_rep"):
            if kind in prompt:
                yield f"{prompt['name']}-{kind}", (prompt["name"], kind)


def _merged(golden: Golden) -> Iterator[tuple[str, Any]]:
    """Task and tensor of every recorded merge.TASK.TENSOR."""
    for name in sorted(golden.tensors):
        if name.startswith("merge."):
            task, _, tensor = name.removeprefix("merge.").partition(".")
            yield f"{task}-{tensor}", (task, tensor)


def _later(golden: Golden) -> Iterator[tuple[str, Any]]:
    """Entries of things that are not offered yet; each is skipped by its own name."""
    expected, tensors = golden.expected, golden.tensors
    for prompt in expected["prompts"]:
        for kind in ("beam3", "beam3_rep"):
            if kind in prompt:
                yield f"{prompt['name']}-{kind}", "beam search"
    for bits in ("kv8", "kv4"):
        if f"{bits}.q" in tensors:
            yield bits, "a quantised KV cache"


_ENTRIES = {
    "picture": _pictures,
    "clip": _clips,
    "prompt": _prompts,
    "answer": _answers,
    "merged": _merged,
    "later": _later,
}
