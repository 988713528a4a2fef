"""Merging and rounding beside the recorded reference: tensors, packing, and what they compute."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from ixc_cuda import awq_layout
from ixc_runtime.jobs.messages import MergeWork
from ixc_runtime.jobs.verdict import require_agreement
from ixc_runtime.media.transform import transform_image
from ixc_runtime.model.loader import load_model
from ixc_runtime.weights import MergeSettings, QuantizeMethod, QuantizeSettings
from ixc_runtime.weights.awq.layerwise import quantize_over
from ixc_runtime.weights.awq.search import round_plainly
from ixc_runtime.weights.merge import merge
from ixc_runtime.weights.quality import check_merged_over
from ixc_runtime.weights.source import Source
from ixc_runtime.weights.walk import Passage
from tests.fakes.step_driver import Lane, StepDriver
from tests.fakes.weights_work import FolderOutput, Notes, text_passage
from tests.parity.conftest import Golden
from tests.parity.naive import NaiveModel


@pytest.fixture(scope="module")
def merged_folders() -> dict[Any, Path]:
    return {}


def merged_folder(
    golden: Golden, settings: MergeSettings, folders: dict[Any, Path], base: Any
) -> Path:
    key = (golden.folder, settings)
    if key not in folders:
        output = FolderOutput(base.mktemp("merged"))
        merge(golden.folder, output, settings, Notes())
        folders[key] = output.folder
    return folders[key]


def stored(folder: Path, name: str) -> Tensor:
    tensors = (load_file(path) for path in sorted(folder.glob("model*.safetensors")))
    return next(each[name] for each in tensors if name in each)


def test_merged_tensor(
    golden: Golden,
    merged: tuple[str, str],
    merged_folders: dict[Any, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Within one float16 step of the recorded one everywhere, and equal nearly everywhere."""
    task, name = merged
    settings = MergeSettings(task=task, dtype="float16")
    folder = merged_folder(golden, settings, merged_folders, tmp_path_factory)
    ours, recorded = stored(folder, name), golden.tensors[f"merge.{task}.{name}"]
    steps = np.spacing(np.abs(recorded.numpy()))
    assert (np.abs(ours.numpy() - recorded.numpy()) <= steps).all()
    assert (ours == recorded).float().mean() >= 0.999


# Of the logits' scale, and of the positions.
LIMITS = {"float16": 2e-2, "bfloat16": 5e-2}


@pytest.mark.parametrize("dtype", sorted(LIMITS))
@pytest.mark.parametrize("task", ["web", "write"])
def test_merged_beside_run_time_adapters(
    golden: Golden,
    task: str,
    dtype: str,
    merged_folders: dict[Any, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The same logits up to the rounding of the weights, for text and for pictures."""
    settings = MergeSettings(task=task, dtype=dtype)
    folder = merged_folder(golden, settings, merged_folders, tmp_path_factory)
    figures = check_merged_over(
        passages(golden), Source(golden.folder), Source(folder), settings, Notes()
    )
    assert figures.image is not None
    for part in (figures.text, figures.image):
        assert part.relative_difference <= LIMITS[dtype]


def passages(golden: Golden) -> tuple[Passage, ...]:
    vocab = golden.model.config.vocab_size
    y, x = np.mgrid[0:300, 0:400]
    pixels = np.stack([x * 255 // 399, y * 255 // 299, (x + y) % 256], -1).astype(np.uint8)
    canvas = transform_image(Image.fromarray(pixels), hd_num=1, tile_size=560)
    text = text_passage(60, vocab=vocab, seed=4)
    num_image = 841
    return (
        text_passage(200, vocab=vocab, seed=3),
        Passage(
            token_ids=(*[-1] * num_image, *text.token_ids),
            canvases=(torch.from_numpy(np.array(canvas)),),
            judged=slice(num_image, num_image + 59),
        ),
    )


def test_packing(golden: Golden) -> None:
    """Plain rounding gives the recorded words, bit for bit."""
    recorded = golden.expected["awq"]
    weight = stored(golden.folder, recorded["source"]).float()
    packed = awq_layout.pack_linear(round_plainly(weight, recorded["group_size"]))
    for name in ("qweight", "qzeros", "scales"):
        assert torch.equal(getattr(packed, name), golden.tensors[f"awq.{name}"]), name


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("method", list(QuantizeMethod))
def test_an_independent_reader(
    golden: Golden, tmp_path: Path, method: QuantizeMethod, group_size: int
) -> None:
    """What we quantise, the plain model unpacks by itself and answers alike, adapters included."""
    settings = QuantizeSettings(method=method, group_size=group_size)
    output = FolderOutput(tmp_path / "quantised")
    quantize_over(passages(golden)[:1], Source(golden.folder), output, settings, Notes())
    tokens = list(text_passage(24, vocab=golden.model.config.vocab_size, seed=5).token_ids)
    model = load_model(output.folder, dtype=torch.float64)
    naive = NaiveModel(output.folder)
    for adapter in ("base", "web", "write"):
        logits = StepDriver(model).step((Lane(tokens=tokens, adapter=adapter), len(tokens)))[0]
        expected = naive.logits(tokens, adapter=adapter)
        assert (logits - expected).abs().max() / expected.abs().max() < 1e-6


def test_float32_merges_are_exact(golden: Golden, tmp_path: Path) -> None:
    """Merged in float32, where the source is, logits are the run-time adapter's within 1e-4."""
    source = tmp_path / "source"
    source.mkdir()
    for path in golden.folder.glob("*.json"):
        text = path.read_text().replace('"bfloat16"', '"float32"')
        (source / path.name).write_text(text)
    for path in golden.folder.glob("model*.safetensors"):
        wide = {name: tensor.float() for name, tensor in load_file(path).items()}
        FolderOutput(source).write_shard(path.name, wide)
    settings = MergeSettings(task="write", dtype="float32")
    output = FolderOutput(tmp_path / "merged")
    merge(source, output, settings, Notes())
    figures = check_merged_over(
        passages(golden), Source(source), Source(output.folder), settings, Notes()
    )
    require_agreement(figures, MergeWork(task="write"))
