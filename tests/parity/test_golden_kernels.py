"""The recorded outputs beside our kernels, in half precision: `pytest tests/parity --device cuda`.

Kernels have no heads as small as the recorded model's, so `widening` first makes it larger with the
same outputs, which is checked in float32 wherever the tests run.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ixc_runtime.config import load_config
from ixc_runtime.engine_process.messages import EngineConfig
from ixc_runtime.engine_process.process import make_core
from ixc_runtime.model.loader import load_model
from ixc_runtime.request import SamplingParams
from tests.fakes.engine_driver import EngineDriver
from tests.parity.conftest import Golden
from tests.parity.test_golden import CHUNK, assert_close
from tests.parity.test_golden_engine import prompt_parts
from tests.parity.widening import widen

# How far a logit may be from the recorded one, in parts of the largest. Where the best two are
# further apart than that, the best must be the recorded one. Plain torch on a CPU is off by as
# much as 0.048 and 0.0074.
BOUNDS = {"bfloat16": 0.06, "float16": 0.01}
MAX_BATCH = 32


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    return {}


@pytest.fixture
def wide_folder(
    golden: Golden, folders: dict[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    if golden.folder not in folders:
        target = tmp_path_factory.mktemp("wide") / golden.folder.name
        folders[golden.folder] = widen(golden.folder, target)
    return folders[golden.folder]


@pytest.fixture(scope="module")
def halves() -> dict[tuple[Path, str], Golden]:
    return {}


@pytest.fixture(params=BOUNDS)
def dtype(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def half(
    golden: Golden, wide_folder: Path, dtype: str, halves: dict[tuple[Path, str], Golden]
) -> Golden:
    """The wide model on our kernels."""
    device = golden.device
    if not device.startswith("cuda"):
        pytest.skip("kernels want --device cuda")
    key = (golden.folder, dtype)
    if key not in halves:
        from ixc_runtime.ops.cuda import CudaOps

        ops = CudaOps(load_config(wide_folder), max_sequences=MAX_BATCH, device=device)
        model = load_model(wide_folder, device=device, dtype=dtype, ops=ops)
        halves[key] = Golden(wide_folder, device, model)
    return halves[key]


def logits_of(golden: Golden, name: str, chunk: int, ids: list[int] | None = None) -> Tensor:
    """Of every position, also of an answer behind the prompt; float32, on the CPU."""
    lane = golden.lane(name)
    lane.tokens += ids or []
    driver = golden.driver(len(lane.tokens))
    parts = []
    while lane.left:
        parts.append(driver.step((lane, min(lane.left, chunk)))[0].cpu())
    return torch.cat(parts)


def margins(logits: Tensor) -> Tensor:
    """Between the best two of each row."""
    best = logits.topk(2).values
    return best[:, 0] - best[:, 1]


def test_the_wide_model_is_the_recorded_one(golden: Golden, wide_folder: Path) -> None:
    """In float32 and plain torch: text and pictures, every adapter."""
    wide = Golden(wide_folder, golden.device)
    for prompt in golden.expected["prompts"]:
        if prompt["length"] > 1000:
            continue
        logits = logits_of(wide, prompt["name"], 1 << 20)
        recorded = golden.tensors[f"{prompt['name']}.last_logits"]
        assert_close(logits[-len(recorded) :], recorded)
        assert golden.tensors[f"{prompt['name']}.argmax"].tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize("chunk", [CHUNK, 1 << 20], ids=["chunked", "whole"])
def test_logits(golden: Golden, half: Golden, dtype: str, prompt: str, chunk: int) -> None:
    """Within the bound at the last positions, and the best token wherever the bound decides it."""
    logits = logits_of(half, prompt, chunk)
    recorded = golden.tensors[f"{prompt}.last_logits"]
    scale = recorded.abs().max()
    error = float((logits[-len(recorded) :] - recorded).abs().max() / scale)
    print(f"{dtype} {prompt}: off by {error:.4f} of the scale")
    assert error <= BOUNDS[dtype]
    is_clear = margins(logits_of(golden, prompt, chunk)) > BOUNDS[dtype] * scale
    assert is_clear.float().mean() > 0.2
    best = golden.tensors[f"{prompt}.argmax"]
    assert torch.equal(best[is_clear], logits.argmax(-1)[is_clear])


def test_answers(golden: Golden, half: Golden, dtype: str) -> None:
    """All recorded prompts at once through the engine, its graphs and its sampling on the device.

    Ids are the recorded ones up to a place that the bound leaves open; without a penalty, since
    margins are those of the plain logits.
    """
    tower = half.model.tower
    assert tower is not None
    config = EngineConfig(
        model=str(half.folder),
        device=half.device,
        max_batch=MAX_BATCH,
        max_step_tokens=300,
        kv_bytes=2**30,
    )
    core, _ = make_core(half.model, config, digest="golden")
    driver = EngineDriver(core, tile_size=tower.tile_size, side=tower.grid // 2)
    prompts: list[dict[str, Any]] = golden.expected["prompts"]
    for prompt in prompts:
        driver.submit(
            prompt["name"],
            prompt_parts(half, prompt, tower.tile_size),
            adapter=prompt["mode"],
            max_output=24,
            sampling=SamplingParams(temperature=0.0),
            stop_token_ids=[2],
        )
    outcomes = driver.run()
    num_compared = num_recorded = 0
    for prompt in prompts:
        name = prompt["name"]
        recorded = [token for token in prompt["greedy"]["tokens"] if token != 2]
        ids = outcomes[name].ids
        num_recorded += len(recorded)
        if ids == recorded:
            num_compared += len(recorded)
            continue
        place = next(
            (at for at, (a, b) in enumerate(zip(ids, recorded, strict=False)) if a != b),
            min(len(ids), len(recorded)),
        )
        num_compared += place
        logits = logits_of(golden, name, 1 << 20, recorded[:place])
        margin = margins(logits[-1:]) / golden.tensors[f"{name}.last_logits"].abs().max()
        print(f"{dtype} {name}: leaves the recorded answer at {place}, margin {float(margin):.4f}")
        assert float(margin) <= BOUNDS[dtype]
    print(f"{dtype}: {num_compared} of {num_recorded} recorded ids")
    assert num_compared > num_recorded // 4
