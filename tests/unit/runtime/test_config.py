"""What a model folder says about itself, and what is refused."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ixc_runtime.config import (
    AwqConfig,
    IxcSettings,
    RolePieces,
    TowerShape,
    load_config,
    load_settings,
    read_tower_shape,
)
from ixc_runtime.errors import (
    CheckpointError,
    CheckpointInvalid,
    CheckpointMissing,
    CheckpointUnsupported,
)
from tests.fakes.tiny_checkpoint import TinyModel, TinyTower, tiny_config, write_tiny_checkpoint

AWQ = {"bits": 4, "group_size": 64, "quant_method": "awq", "version": "gemm", "zero_point": True}


def write_config(folder: Path, **changes: Any) -> Path:
    config = tiny_config(TinyModel()) | changes
    kept = {key: value for key, value in config.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


def write_settings(folder: Path, settings: Any) -> Path:
    (folder / "ixc.json").write_text(json.dumps(settings))
    return folder


def test_sizes(tmp_path: Path) -> None:
    """The official keys arrive under our names."""
    config = load_config(write_config(tmp_path, eos_token_id=[2, 7], torch_dtype="bfloat16"))
    assert (
        config.hidden_size,
        config.num_layers,
        config.num_heads,
        config.num_kv_heads,
        config.head_dim,
    ) == (64, 2, 4, 2, 16)
    assert config.eos_token_ids == (2, 7)
    assert config.torch_dtype == "bfloat16"
    assert config.rope_scaling_factor == 2.0
    assert config.quantization is None


def test_auto_map_alone_names_the_architecture(tmp_path: Path) -> None:
    """model_type is that of plain InternLM2 and decides nothing."""
    folder = write_config(
        tmp_path,
        architectures=...,
        auto_map={"AutoModel": "modeling_x.InternLMXComposer2ForCausalLM"},
    )
    assert load_config(folder).hidden_size == 64


def test_other_architecture(tmp_path: Path) -> None:
    """It is unsupported, and both names are in the message."""
    with pytest.raises(CheckpointUnsupported, match=r"LlamaForCausalLM.*InternLMXComposer2"):
        load_config(write_config(tmp_path, architectures=["LlamaForCausalLM"]))


UNSUPPORTED = {
    "activation": {"hidden_act": "gelu"},
    "biases": {"bias": True},
    "tied embeddings": {"tie_word_embeddings": True},
    "another rope": {"rope_scaling": {"type": "yarn", "factor": 2.0}},
    "another dtype": {"torch_dtype": "float8_e4m3fn"},
    "eight bits": {"quantization_config": AWQ | {"bits": 8}},
    "another method": {"quantization_config": AWQ | {"quant_method": "gptq"}},
    "another packing": {"quantization_config": AWQ | {"version": "gemv"}},
    "symmetric": {"quantization_config": AWQ | {"zero_point": False}},
    "columns in another order": {"quantization_config": AWQ | {"desc_act": True}},
    "odd group": {"quantization_config": AWQ | {"group_size": 100}},
}


@pytest.mark.parametrize("changes", UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
def test_another_kind_of_model(tmp_path: Path, changes: dict[str, Any]) -> None:
    """What we do not implement is refused rather than run wrongly."""
    with pytest.raises(CheckpointUnsupported):
        load_config(write_config(tmp_path, **changes))


INVALID = {
    "missing size": {"hidden_size": ...},
    "negative size": {"hidden_size": -64},
    "boolean size": {"num_hidden_layers": True},
    "text for a size": {"vocab_size": "320"},
    "enormous size": {"vocab_size": 1 << 40},
    "heads that do not divide": {"num_attention_heads": 5},
    "groups that do not divide": {"num_key_value_heads": 3},
    "odd head width": {"num_attention_heads": 64},
    "eps of zero": {"rms_norm_eps": 0},
    "factor below one": {"rope_scaling": {"type": "dynamic", "factor": 0.5}},
    "surplus key of rope": {"rope_scaling": {"type": "dynamic", "factor": 2.0, "beta": 1}},
    "eos beyond the vocabulary": {"eos_token_id": 320},
    "empty eos": {"eos_token_id": []},
    "surplus key of quantisation": {"quantization_config": AWQ | {"smooth": 1}},
}


@pytest.mark.parametrize("changes", INVALID.values(), ids=INVALID.keys())
def test_a_config_that_cannot_be_true(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Values are checked before anything is allocated by them."""
    with pytest.raises(CheckpointInvalid):
        load_config(write_config(tmp_path, **changes))


def test_unknown_key(tmp_path: Path) -> None:
    """It may change the arithmetic: refused by name, unless ixc.json lists it as ignored."""
    folder = write_config(tmp_path, sliding_window=128, use_cache=False)
    with pytest.raises(CheckpointInvalid, match="sliding_window") as failure:
        load_config(folder)
    assert failure.value.metadata == {"keys": "sliding_window"}
    write_settings(folder, {"ignored_config_keys": ["sliding_window"]})
    assert load_config(folder).hidden_size == 64


BROKEN = {
    "no JSON": b"{",
    "not UTF-8": b'{"a": "\xff"}',
    "a list": b"[]",
    "a repeated key": b'{"hidden_size": 64, "hidden_size": 65}',
    "not a number": b'{"rope_theta": NaN}',
    "depth": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number of many digits": b'{"a": ' + b"9" * 10_000 + b"}",
    "two megabytes": b" " * (2 << 20),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_broken_file(tmp_path: Path, content: bytes) -> None:
    """Whatever the bytes are, the answer is CheckpointInvalid with the file's name."""
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointInvalid, match=r"config\.json"):
        load_config(tmp_path)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(
    key=st.sampled_from([*tiny_config(TinyModel()), "quantization_config", "auto_map", "dtype"]),
    value=ANY_JSON | st.fixed_dictionaries({"type": ANY_JSON, "factor": ANY_JSON}),
)
def test_any_value_of_any_key(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: Any
) -> None:
    """A config of any content is read or refused as a checkpoint; nothing else is raised."""
    folder = write_config(tmp_path_factory.mktemp("config"), **{key: value})
    with contextlib.suppress(CheckpointError):
        load_config(folder)


def test_no_config(tmp_path: Path) -> None:
    """A folder without one is CheckpointMissing."""
    with pytest.raises(CheckpointMissing):
        load_config(tmp_path)


def test_quantisation(tmp_path: Path) -> None:
    """The published AWQ block is read."""
    expected = AwqConfig(bits=4, group_size=64, zero_point=True, version="gemm")
    assert expected == load_config(write_config(tmp_path, quantization_config=AWQ)).quantization


BY_OTHERS = {
    "AutoAWQ": {
        "modules_to_not_convert": ["vit", "vision_proj", "lora"],
        "do_fuse": False,
        "fuse_max_seq_len": None,
        "modules_to_fuse": None,
        "exllama_config": None,
    },
    "transformers 5": {
        "modules_to_not_convert": None,
        "backend": "auto",
        "format": "gemm",
        "desc_act": False,
        "sym": True,
        "damp_percent": 0.1,
        "true_sequential": True,
        "act_group_aware": True,
        "cache_block_outputs": True,
        "batch_size": 1,
        "tokenizer": None,
        "dataset": None,
    },
}


@pytest.mark.parametrize("notes", BY_OTHERS.values(), ids=BY_OTHERS)
def test_quantisation_by_other_tools(tmp_path: Path, notes: dict[str, Any]) -> None:
    """Their notes on how it was made and how they would run it change nothing."""
    theirs, ours = (
        load_config(write_config(tmp_path, quantization_config=AWQ | added)).quantization
        for added in (notes, {})
    )
    assert theirs == ours


def test_no_settings_file(tmp_path: Path) -> None:
    """Without ixc.json the official model's values hold."""
    settings = load_settings(tmp_path)
    assert IxcSettings() == settings
    assert (settings.hd_num_single, settings.hd_num_several) == (24, 6)
    assert settings.roles.start_of_turn == "[UNUSED_TOKEN_146]"


def test_settings_file(tmp_path: Path) -> None:
    """What it says replaces the official values; a null begin_of_text means there is none."""
    settings = load_settings(
        write_settings(
            tmp_path,
            {
                "display_name": "Demo",
                "roles": {"begin_of_text": None, "start_of_turn": "<|im_start|>"},
                "hd_num": {"single": 4, "several": 1},
                "tower_heads": 4,
                "sampling": {"temperature": 0, "top_k": 0},
            },
        )
    )
    assert settings.display_name == "Demo"
    assert RolePieces(begin_of_text=None, start_of_turn="<|im_start|>") == settings.roles
    assert (
        settings.hd_num_single,
        settings.hd_num_several,
        settings.max_hd_num,
        settings.tower_heads,
    ) == (4, 1, 36, 4)
    sampling = settings.default_sampling
    assert (
        sampling.temperature,
        sampling.top_k,
        sampling.top_p,
        sampling.repetition_penalty,
    ) == (0.0, 0, 0.8, 1.005)


WRONG_SETTINGS = [
    {"colour": "red"},
    {"roles": {"start": "x"}},
    {"roles": {"start_of_turn": 3}},
    {"hd_num": {"single": 40}},
    {"hd_num": {"single": 0}},
    {"sampling": {"top_p": 0}},
    {"sampling": {"temperature": "hot"}},
    {"tower_heads": 0},
    {"ignored_config_keys": "all"},
    {"display_name": 7},
]


@pytest.mark.parametrize("settings", WRONG_SETTINGS, ids=str)
def test_wrong_settings(tmp_path: Path, settings: dict[str, Any]) -> None:
    """A closed schema: unknown keys and values out of range are refused."""
    with pytest.raises(CheckpointInvalid, match=r"ixc\.json"):
        load_settings(write_settings(tmp_path, settings))


def test_tower_shape(tmp_path: Path) -> None:
    """It is read from the tensors' shapes, and is None where there is no tower."""
    tower = TinyTower(patch=7, grid=6)
    with_tower = write_tiny_checkpoint(tmp_path / "with", tower=tower)
    without = write_tiny_checkpoint(tmp_path / "without", tower=None)
    assert TowerShape(tile_size=42, patch_size=7, grid=6) == read_tower_shape(with_tower)
    assert read_tower_shape(without) is None


def test_front_ends_do_not_load_torch() -> None:
    """Config, shard headers and rotary base are free of torch, so the front end may read them."""
    modules = "ixc_runtime.config, ixc_runtime.model.rope, ixc_runtime.model.inventory, ixc_cuda"
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; import {modules}; print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert result.stdout.strip() == "False"
