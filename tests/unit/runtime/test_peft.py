"""A user's own adapter in PEFT's layout: merged, or taken at run time, it does the same."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ixc_runtime.config import load_config
from ixc_runtime.errors import CheckpointError, CheckpointMissing, CheckpointUnsupported
from ixc_runtime.jobs.messages import MergeWork
from ixc_runtime.jobs.verdict import require_agreement
from ixc_runtime.model.loader import load_model
from ixc_runtime.weights import MergeSettings
from ixc_runtime.weights.merge import merge
from ixc_runtime.weights.peft import load_peft_adapter, read_peft_adapter
from ixc_runtime.weights.quality import check_merged_over
from ixc_runtime.weights.source import Source
from tests.fakes.step_driver import Lane, StepDriver
from tests.fakes.tiny_checkpoint import write_tiny_checkpoint
from tests.fakes.weights_work import FolderOutput, Notes, tiny_passages

# Out and in of the linears of a tiny checkpoint.
SHAPES = {
    "attention.wqkv": (128, 64),
    "attention.wo": (64, 64),
    "feed_forward.w1": (96, 64),
    "feed_forward.w3": (96, 64),
    "feed_forward.w2": (64, 96),
}
# As PEFT writes one: every key it knows.
CONFIG: dict[str, Any] = {
    "alora_invocation_tokens": None,
    "alpha_pattern": {},
    "auto_mapping": None,
    "base_model_name_or_path": "internlm/internlm-xcomposer2d5-7b",
    "bias": "none",
    "corda_config": None,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 6,
    "lora_bias": False,
    "lora_dropout": 0.05,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_type": "LORA",
    "qalora_group_size": 16,
    "r": 4,
    "rank_pattern": {},
    "revision": None,
    "target_modules": ["wqkv", "w3"],
    "target_parameters": None,
    "task_type": "CAUSAL_LM",
    "trainable_token_indices": None,
    "use_dora": False,
    "use_qalora": False,
    "use_rslora": False,
}


def adapter_tensors(
    linears: tuple[str, ...] = ("attention.wqkv", "feed_forward.w3"),
    *,
    rank: int = 4,
    prefix: str = "base_model.model.",
    suffix: str = ".weight",
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(rank)
    tensors: dict[str, Tensor] = {}
    for layer in range(2):
        for linear in linears:
            rows, columns = SHAPES[linear]
            name = f"{prefix}model.layers.{layer}.{linear}"
            tensors[f"{name}.lora_A{suffix}"] = (
                torch.randn(rank, columns, generator=generator) / columns**0.5
            )
            tensors[f"{name}.lora_B{suffix}"] = torch.randn(rows, rank, generator=generator) / rank
    return tensors


def write_adapter(folder: Path, tensors: Mapping[str, Tensor] | None = None, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config))
    save_file(dict(tensors or adapter_tensors()), folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("config", "scale"),
    [({}, 6 / 4), ({"use_rslora": True}, 6 / 2), ({"lora_alpha": 0.5}, 0.125)],
    ids=["alpha over rank", "rank-stabilised", "small alpha"],
)
def test_merged(tmp_path: Path, config: dict[str, Any], scale: float) -> None:
    """W + scale B A where the adapter has a pair; elsewhere the weights are the source's."""
    source = write_tiny_checkpoint(tmp_path / "source", shards=1)
    adapter = write_adapter(tmp_path / "mine", **config)
    output = FolderOutput(tmp_path / "merged")
    summary = merge(source, output, MergeSettings(adapter=adapter), Notes())
    before = load_file(source / "model.safetensors")
    (shard,) = output.folder.glob("*.safetensors")
    after, pairs = load_file(shard), adapter_tensors()
    for linear in SHAPES:
        site = f"model.layers.1.{linear}"
        expected = before[f"{site}.weight"].double()
        if linear in ("attention.wqkv", "feed_forward.w3"):
            down, up = (
                pairs[f"base_model.model.{site}.lora_{half}.weight"].double() for half in "AB"
            )
            expected = expected + scale * (up @ down)
        torch.testing.assert_close(after[f"{site}.weight"], expected.float(), rtol=0, atol=1e-6)
    assert (summary.merged, summary.num_merged) == ("mine", 4)


@pytest.mark.parametrize(
    "linears",
    [("attention.wqkv",), ("feed_forward.w1",), ("feed_forward.w3", "feed_forward.w2"),
     tuple(SHAPES)],
    ids=", ".join,
)  # fmt: skip
def test_at_run_time_as_merged(tmp_path: Path, linears: tuple[str, ...]) -> None:
    """Whichever linears it changes, w1 and w3 alone included."""
    source = write_tiny_checkpoint(tmp_path / "source")
    adapter = write_adapter(tmp_path / "mine", adapter_tensors(linears))
    output = FolderOutput(tmp_path / "merged")
    settings = MergeSettings(adapter=adapter)
    merge(source, output, settings, Notes())
    figures = check_merged_over(
        tiny_passages(), Source(source), Source(output.folder), settings, Notes()
    )
    require_agreement(figures, MergeWork())


def test_added_to_a_running_model(tmp_path: Path) -> None:
    """Rows that ask for it are adapted, the others are not, and the merged model agrees."""
    source = write_tiny_checkpoint(tmp_path / "source")
    adapter = write_adapter(tmp_path / "mine")
    output = FolderOutput(tmp_path / "merged")
    merge(source, output, MergeSettings(adapter=adapter), Notes())
    model, tokens = load_model(source), [5, 80, 200, 3, 41]
    base = StepDriver(model).step((Lane(tokens=tokens), 5))[0]
    model.add_adapter("mine", load_peft_adapter(adapter, model.config))
    adapted, beside = StepDriver(model).step(
        (Lane(tokens=tokens, adapter="mine"), 5), (Lane(tokens=tokens), 5)
    )
    merged = StepDriver(load_model(output.folder)).step((Lane(tokens=tokens), 5))[0]
    torch.testing.assert_close(adapted, merged, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(beside, base, rtol=1e-4, atol=1e-4)
    assert (adapted - base).abs().max() > 0.1


@pytest.mark.parametrize(
    "names",
    [{"prefix": ""}, {"suffix": ".default.weight"}],
    ids=["without PEFT's prefix", "with the adapter's name"],
)
def test_spellings_of_names(tmp_path: Path, names: dict[str, str]) -> None:
    """All of them are the same adapter."""
    config = load_config(write_tiny_checkpoint(tmp_path / "source"))
    plain = read_peft_adapter(write_adapter(tmp_path / "plain"), config)
    other = read_peft_adapter(write_adapter(tmp_path / "other", adapter_tensors(**names)), config)
    assert plain.factors.keys() == other.factors.keys()
    for name, (down, up) in plain.factors.items():
        assert torch.equal(down, other.factors[name][0])
        assert torch.equal(up, other.factors[name][1])


def test_ranks_by_pattern(tmp_path: Path) -> None:
    """Each linear is scaled by its own rank, if the config says that ranks differ."""
    config = load_config(write_tiny_checkpoint(tmp_path / "source"))
    tensors = adapter_tensors(("attention.wqkv",)) | adapter_tensors(("attention.wo",), rank=2)
    folder = write_adapter(tmp_path / "mine", tensors, rank_pattern={"wo": 2})
    factors = read_peft_adapter(folder, config).factors
    name = "model.layers.0.attention.wo"
    stored = tensors[f"base_model.model.{name}.lora_B.weight"]
    torch.testing.assert_close(factors[name][1], stored * (6 / 2))


REFUSED_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "another method": ({"peft_type": "IA3"}, "IA3"),
    "weight-decomposed": ({"use_dora": True}, "use_dora"),
    "trained biases": ({"bias": "all"}, "bias"),
    "whole modules beside it": ({"modules_to_save": ["output"]}, "modules_to_save"),
    "transposed": ({"fan_in_fan_out": True}, "fan_in_fan_out"),
    "base weights changed at the start": ({"init_lora_weights": "pissa"}, "pissa"),
    "scales by pattern": ({"alpha_pattern": {"wo": 3}}, "alpha_pattern"),
    "a key of the future": ({"use_telepathy": True}, "use_telepathy"),
    "no rank": ({"r": 0}, "r is 0"),
    "another rank than the tensors": ({"r": 8}, "rank 4; .* r 8"),
    "no alpha": ({"lora_alpha": None}, "lora_alpha"),
}


@pytest.mark.parametrize(("config", "named"), REFUSED_CONFIGS.values(), ids=REFUSED_CONFIGS)
def test_configs_of_another_arithmetic(tmp_path: Path, config: dict[str, Any], named: str) -> None:
    """Refused by key, rather than run as something else."""
    model = load_config(write_tiny_checkpoint(tmp_path / "source"))
    with pytest.raises(CheckpointError, match=named):
        read_peft_adapter(write_adapter(tmp_path / "mine", **config), model)


A = "base_model.model.model.layers.0.attention.wqkv.lora_A.weight"
B = A.replace("lora_A", "lora_B")
REFUSED_TENSORS: dict[str, tuple[dict[str, Tensor | None], str]] = {
    "half a pair": ({B: None}, r"half an adapter for model\.layers\.0\.attention\.wqkv"),
    "swapped halves": ({A: torch.zeros(128, 4), B: torch.zeros(4, 64)}, r"\[128, 4\]"),
    "ranks that differ": ({B: torch.zeros(128, 3)}, r"\[128, 3\]; \[128, 4\] fits"),
    "NaN": ({A: torch.full((4, 64), torch.nan)}, "256 of 256 values are not finite"),
    "whole numbers": ({A: torch.zeros(4, 64, dtype=torch.int32)}, "dtype I32"),
    "a layer too many": (
        {A.replace("layers.0", "layers.7"): torch.zeros(4, 64),
         B.replace("layers.0", "layers.7"): torch.zeros(128, 4)},
        r"layers\.7.*2 layers",
    ),
    "an embedding": ({"base_model.model.tok_embeddings.weight": torch.zeros(2, 2)}, "embeddings"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "named"), REFUSED_TENSORS.values(), ids=REFUSED_TENSORS)
def test_tensors_that_do_not_fit(
    tmp_path: Path, changes: dict[str, Tensor | None], named: str
) -> None:
    """Refused by name, with the sizes."""
    model = load_config(write_tiny_checkpoint(tmp_path / "source"))
    tensors = {
        name: tensor for name, tensor in (adapter_tensors() | changes).items() if tensor is not None
    }
    with pytest.raises(CheckpointError, match=named):
        read_peft_adapter(write_adapter(tmp_path / "mine", tensors), model)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    """An empty folder is missing a file; a pickled adapter is not opened."""
    model = load_config(write_tiny_checkpoint(tmp_path / "source"))
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(CheckpointMissing, match="adapter_config"):
        read_peft_adapter(folder, model)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(CheckpointMissing, match="adapter_model"):
        read_peft_adapter(folder, model)
    (folder / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointUnsupported, match="bin"):
        read_peft_adapter(folder, model)
