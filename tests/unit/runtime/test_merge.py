"""MergeLora: what comes out, what is refused, and what an interruption leaves behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ixc_runtime.checkpoint.shards import read_shards
from ixc_runtime.config import load_settings
from ixc_runtime.errors import (
    AdapterUnavailable,
    CheckpointInvalid,
    CheckpointUnsupported,
    FieldInvalid,
    QualityTooLow,
    RuntimeFault,
)
from ixc_runtime.jobs.messages import MergeWork
from ixc_runtime.jobs.verdict import require_agreement
from ixc_runtime.model.loader import load_model
from ixc_runtime.weights import MergeSettings
from ixc_runtime.weights.figures import AGREEMENT_LIMITS, AgreementFigures
from ixc_runtime.weights.merge import merge
from ixc_runtime.weights.quality import check_merged_over
from ixc_runtime.weights.source import Source
from tests.fakes.tiny_checkpoint import (
    TinyModel,
    tiny_tensors,
    write_shards,
    write_tiny_checkpoint,
)
from tests.fakes.weights_work import FolderOutput, Notes, digests, tiny_passages

SETS = {"web": ["lora_web"], "write": ["lora_sft", "lora_dpo"]}
LINEARS = (
    "attention.wqkv",
    "attention.wo",
    "feed_forward.w1",
    "feed_forward.w3",
    "feed_forward.w2",
)


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {
        name: tensor
        for shard in folder.glob("*.safetensors")
        for name, tensor in load_file(shard).items()
    }


def ulps(left: Tensor, right: Tensor) -> int:
    """The largest distance between 16-bit floats, in representable steps."""

    def ordered(tensor: Tensor) -> Tensor:
        bits = tensor.view(torch.int16).to(torch.int32)
        return torch.where(bits < 0, -(bits & 0x7FFF), bits)

    return int((ordered(left) - ordered(right)).abs().max())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("task", ["web", "write"])
def test_a_task_merged(tmp_path: Path, task: str, dtype: str) -> None:
    """W + the sum of B A, rounded once; everything else as it was; task adapters gone."""
    source = write_tiny_checkpoint(tmp_path / "source", dtype="bfloat16")
    output = FolderOutput(tmp_path / "merged")
    summary = merge(source, output, MergeSettings(task=task, dtype=dtype), Notes())
    before, after = tensors_of(source), tensors_of(output.folder)
    rounded = getattr(torch, dtype)
    for layer in range(2):
        for linear in LINEARS:
            site = f"model.layers.{layer}.{linear}"
            exact = before.pop(f"{site}.weight").double()
            for name in SETS[task]:
                down, up = (before[f"{site}.{name}_{half}.weight"].double() for half in "AB")
                exact += up @ down
            merged = after.pop(f"{site}.weight")
            assert merged.dtype == rounded
            assert ulps(merged, exact.to(rounded)) <= 1
            assert (merged == exact.to(rounded)).float().mean() > 0.999
    kept = {name: tensor for name, tensor in before.items() if ".lora_" not in name}
    assert kept.keys() == after.keys()
    for name, tensor in kept.items():
        assert torch.equal(tensor.to(rounded), after[name]), name
    assert summary.num_merged == 2 * len(LINEARS)
    assert summary.num_bytes == sum(
        entry.num_bytes for entry in read_shards(output.folder).values()
    )
    assert (summary.merged, summary.dtype) == (task, dtype)


def test_a_merged_folder_is_a_model(tmp_path: Path) -> None:
    """It loads, offers no task adapter any more, and says what was merged into it."""
    source = write_tiny_checkpoint(tmp_path / "source", settings={"display_name": "Tiny"})
    (source / "tokenizer.json").write_text("{}")
    (source / "modeling_tiny.py").write_text("raise SystemExit")
    output = FolderOutput(tmp_path / "merged")
    merge(source, output, MergeSettings(task="write"), Notes())
    assert load_model(output.folder).adapters == frozenset()
    settings = load_settings(output.folder)
    assert (settings.merged_task, settings.display_name) == ("write", "Tiny")
    assert (output.folder / "tokenizer.json").read_text() == "{}"
    assert not (output.folder / "modeling_tiny.py").exists()


def agreement(
    folder: Path, model: TinyModel, settings: MergeSettings, *, task: str | None = None
) -> AgreementFigures:
    source = write_tiny_checkpoint(folder / "source", model)
    output = FolderOutput(folder / "merged")
    merge(source, output, settings, Notes())
    claimed = MergeSettings(task=task or settings.task)
    return check_merged_over(
        tiny_passages(), Source(source), Source(output.folder), claimed, Notes()
    )


@pytest.mark.parametrize(
    ("stored", "written"), [("float32", "float32"), ("float32", None), ("float32", "float16"),
                            ("bfloat16", "bfloat16"), ("bfloat16", "float16")]
)  # fmt: skip
@pytest.mark.parametrize("task", ["web", "write"])
def test_merged_answers_as_the_adapter_does(
    tmp_path: Path, task: str, stored: str, written: str | None
) -> None:
    """Logits of merged weights are those of the run-time adapter, images' rows among them."""
    figures = agreement(tmp_path, TinyModel(dtype=stored), MergeSettings(task=task, dtype=written))
    assert figures.dtype == (written or stored)
    assert figures.image is not None
    for part in (figures.text, figures.image):
        assert part.relative_difference < AGREEMENT_LIMITS[figures.dtype]
    if figures.dtype == "float32":
        require_agreement(figures, MergeWork(task=task))


def test_another_task_than_was_merged(tmp_path: Path) -> None:
    """The comparison tells web from write."""
    figures = agreement(tmp_path, TinyModel(), MergeSettings(task="web"), task="write")
    with pytest.raises(QualityTooLow):
        require_agreement(figures, MergeWork(task="write"))
    assert figures.text.relative_difference > 10 * AGREEMENT_LIMITS[figures.dtype]


def test_a_shard_is_no_larger_than_allowed(tmp_path: Path) -> None:
    """What is held in memory is one shard; only a single larger tensor exceeds the bound."""
    source = write_tiny_checkpoint(tmp_path / "source")
    output = FolderOutput(tmp_path / "merged")
    limit = 60_000
    summary = merge(source, output, MergeSettings(task="web", max_shard_bytes=limit), Notes())
    assert summary.num_shards > 4
    for path in output.folder.glob("*.safetensors"):
        tensors = load_file(path)
        assert len(tensors) == 1 or sum(tensor.nbytes for tensor in tensors.values()) <= limit


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    """Items rise to the total, naming each tensor."""
    source = write_tiny_checkpoint(tmp_path / "source")
    notes, output = Notes(), FolderOutput(tmp_path / "merged")
    summary = merge(source, output, MergeSettings(task="web"), notes)
    done = [item[1] for item in notes.items]
    assert done == sorted(done) and done[-1] == summary.num_bytes
    assert {name for name, _, _ in notes.items} == tensors_of(output.folder).keys()
    assert {total for _, _, total in notes.items} == {summary.num_bytes}


def test_interrupted_at_every_shard(tmp_path: Path) -> None:
    """A second run does only what is missing, and its bytes are those of a run in one go."""
    source = write_tiny_checkpoint(tmp_path / "source")
    settings = MergeSettings(task="write", max_shard_bytes=100_000)
    whole = FolderOutput(tmp_path / "whole")
    merge(source, whole, settings, Notes())
    for number, shard in enumerate(whole.written):
        folder = tmp_path / f"interrupted {number}"
        with pytest.raises(OSError, match="No space"):
            merge(source, FolderOutput(folder, fail_at=shard), settings, Notes())
        again = FolderOutput(folder)
        summary = merge(source, again, settings, Notes())
        assert summary.num_resumed_shards == number
        assert again.written == whole.written[number:]
        assert digests(folder) == digests(whole.folder)


WQKV = "model.layers.1.attention.wqkv"


def change(name: str, edit: Callable[[Tensor], Any]) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: edit(tensors[name])


REFUSED: dict[str, tuple[dict[str, Any], MergeSettings, type[RuntimeFault], str]] = {
    "neither task nor adapter": ({}, MergeSettings(), FieldInvalid, "exactly one"),
    "both": ({}, MergeSettings(task="web", adapter=Path("a")), FieldInvalid, "exactly one"),
    "a task nobody knows": ({}, MergeSettings(task="poetry"), FieldInvalid, "poetry"),
    "an absent task": (
        {"ranks": {"lora_sft": 4}},
        MergeSettings(task="write"),
        AdapterUnavailable,
        "lora_dpo",
    ),
    "an unknown dtype": ({}, MergeSettings(task="web", dtype="int8"), FieldInvalid, "int8"),
    "float32 out of bfloat16": (
        {"dtype": "bfloat16"},
        MergeSettings(task="web", dtype="float32"),
        CheckpointUnsupported,
        "bfloat16",
    ),
    "weights that are rounded already": (
        {"hidden": 128, "intermediate": 128, "awq_group": 64},
        MergeSettings(task="web"),
        CheckpointUnsupported,
        "int4",
    ),
}


@pytest.mark.parametrize(("sizes", "settings", "fault", "named"), REFUSED.values(), ids=REFUSED)
def test_refused_before_anything_is_written(
    tmp_path: Path,
    sizes: dict[str, Any],
    settings: MergeSettings,
    fault: type[RuntimeFault],
    named: str,
) -> None:
    """Settings and folders that cannot work leave no file."""
    source = write_tiny_checkpoint(tmp_path / "source", **sizes)
    output = FolderOutput(tmp_path / "merged")
    with pytest.raises(fault, match=named):
        merge(source, output, settings, Notes())
    assert not list(output.folder.iterdir())


BROKEN = {
    "NaN in a factor": (
        change(f"{WQKV}.lora_web_B.weight", lambda tensor: tensor[3, 1].fill_(float("nan"))),
        rf"{WQKV}\.lora_web_B\.weight: 1 of 1024 values are not finite",
    ),
    "infinity in a tensor that is only copied": (
        change("model.norm.weight", lambda tensor: tensor[:2].fill_(float("inf"))),
        r"model\.norm\.weight: 2 of 64",
    ),
    "a sum beyond float16": (
        change(f"{WQKV}.weight", lambda tensor: tensor[0, 0].fill_(7e4)),
        rf"{WQKV}\.weight has a value of [67]\d+[.\d]*; float16 ends at 65504",
    ),
    "ranks that differ": (
        lambda tensors: tensors.update({f"{WQKV}.lora_web_A.weight": torch.zeros(3, 64)}),
        r"lora_web_B\.weight is \[128, 8\], \[128, 3\] is due",
    ),
    "half a pair": (
        lambda tensors: tensors.__delitem__(f"{WQKV}.lora_web_A.weight"),
        r"missing: .*wqkv\.lora_web_A",
    ),
}


@pytest.mark.parametrize(("damage", "named"), BROKEN.values(), ids=BROKEN)
def test_broken_weights(
    tmp_path: Path, damage: Callable[[dict[str, Tensor]], None], named: str
) -> None:
    """The tensor is named, and with it the figures."""
    source = write_tiny_checkpoint(tmp_path / "source", shards=1)
    tensors = tiny_tensors(TinyModel())
    damage(tensors)
    write_shards(source, tensors, shards=1)
    with pytest.raises(CheckpointInvalid, match=named):
        merge(
            source,
            FolderOutput(tmp_path / "merged"),
            MergeSettings(task="web", dtype="float16"),
            Notes(),
        )


def test_the_config_names_the_dtype(tmp_path: Path) -> None:
    """Under the older key alone, whichever the source had."""
    source = write_tiny_checkpoint(
        tmp_path / "source", config={"torch_dtype": None, "dtype": "float32"}
    )
    output = FolderOutput(tmp_path / "merged")
    merge(source, output, MergeSettings(task="web", dtype="bfloat16"), Notes())
    config = json.loads((output.folder / "config.json").read_text())
    assert config["torch_dtype"] == "bfloat16" and "dtype" not in config
