"""Safetensors shards from outside: every lie in a file is named, none reaches the model."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ixc_runtime.checkpoint.shards import INDEX_NAME, read_shard, read_shards
from ixc_runtime.errors import CheckpointError, CheckpointInvalid, CheckpointMissing
from ixc_runtime.model.loader import checkpoint_digest, load_model
from ixc_runtime.model.weights import read_tensor
from tests.fakes.tiny_checkpoint import TinyModel, tiny_tensors, write_shards, write_tiny_checkpoint

SHARD = "model.safetensors"


def file_of(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(encoded) if length is None else length).to_bytes(8, "little") + encoded + data


def tensor(begin: int, end: int, shape: list[Any] | None = None, dtype: str = "F32") -> Any:
    shape = [(end - begin) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_well_formed_file(tmp_path: Path) -> None:
    """Names, shapes and bytes come out as they went in; metadata is free text."""
    path = tmp_path / SHARD
    header = {"__metadata__": {"made by": "hand"}, "b": tensor(0, 8), "a": tensor(8, 12, [1, 1])}
    values = torch.tensor([1.5, -2.0, 7.0])
    path.write_bytes(file_of(header, values.numpy().tobytes()))
    entries = read_shard(path)
    assert read_tensor(entries["b"]).tolist() == [1.5, -2.0]
    assert read_tensor(entries["a"]).tolist() == [[7.0]]


LIES = {
    "empty file": b"",
    "seven bytes": b"\0" * 7,
    "header longer than the file": file_of({}, length=1 << 40),
    "header of two to the 64": file_of({}, length=(1 << 64) - 1),
    "header of no bytes": file_of({}, length=0),
    "header is no JSON": file_of(b"not json"),
    "header is a list": file_of([]),
    "header of deep nesting": file_of(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "name twice": file_of(b'{"a":%b,"a":%b}' % ((json.dumps(tensor(0, 4)).encode(),) * 2), b"1234"),
    "tensor is a number": file_of({"a": 3}),
    "no offsets": file_of({"a": {"dtype": "F32", "shape": [1]}}, b"1234"),
    "surplus field": file_of({"a": tensor(0, 4) | {"code": "x"}}, b"1234"),
    "unknown dtype": file_of({"a": tensor(0, 4, dtype="F8_E4M3")}, b"1234"),
    "dtype is a list": file_of({"a": tensor(0, 4) | {"dtype": ["F32"]}}, b"1234"),
    "negative size": file_of({"a": tensor(0, 4, [-1])}, b"1234"),
    "size is true": file_of({"a": tensor(0, 4, [True])}, b"1234"),
    "size is a fraction": file_of({"a": tensor(0, 4, [1.0])}, b"1234"),
    "size of many digits": file_of({"a": tensor(0, 4, [1 << 4000])}, b"1234"),
    "product overflows 64 bits": file_of({"a": tensor(0, 4, [1 << 40, 1 << 40])}, b"1234"),
    "hundred dimensions": file_of({"a": tensor(0, 4, [1] * 100)}, b"1234"),
    "offsets backwards": file_of({"a": tensor(4, 0, [1])}, b"1234"),
    "three offsets": file_of({"a": tensor(0, 4) | {"data_offsets": [0, 4, 8]}}, b"1234"),
    "negative offset": file_of({"a": tensor(-4, 0, [1])}, b"1234"),
    "past the end": file_of({"a": tensor(0, 8)}, b"1234"),
    "bytes that do not fit the shape": file_of({"a": tensor(0, 4, [2])}, b"1234"),
    "overlap": file_of({"a": tensor(0, 8), "b": tensor(4, 12)}, b"x" * 12),
    "hole": file_of({"a": tensor(0, 4), "b": tensor(8, 12)}, b"x" * 12),
    "bytes behind the last tensor": file_of({"a": tensor(0, 4)}, b"12345"),
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES.keys())
def test_lie_in_a_file(tmp_path: Path, content: bytes) -> None:
    """It is CheckpointInvalid with the file's name; nothing is allocated by a claim."""
    (tmp_path / SHARD).write_bytes(content)
    with pytest.raises(CheckpointInvalid, match=SHARD):
        read_shard(tmp_path / SHARD)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damage(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes changed, cut or added anywhere: it loads or is a CheckpointError, nothing else."""
    content = bytearray(file_of({"a": tensor(0, 8), "b": tensor(8, 16, [2, 1])}, bytes(range(16))))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    path = tmp_path_factory.mktemp("damage") / SHARD
    path.write_bytes(content)
    try:
        for entry in read_shard(path).values():
            read_tensor(entry)
    except CheckpointError:
        pass


def test_file_cut_after_its_header_was_read(tmp_path: Path) -> None:
    """A short read is named; it neither crashes nor yields stale memory."""
    entries = read_shards(write_tiny_checkpoint(tmp_path, shards=1))
    os.truncate(tmp_path / SHARD, (tmp_path / SHARD).stat().st_size - 4)
    last = max(entries.values(), key=lambda entry: entry.offset)
    with pytest.raises(CheckpointInvalid, match=r"ends inside"):
        read_tensor(last)


def change_index(change: Callable[[dict[str, str]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        index = json.loads((folder / INDEX_NAME).read_text())
        index["weight_map"] = change(index["weight_map"])
        (folder / INDEX_NAME).write_text(json.dumps(index))

    return apply


WRONG_INDEX = {
    "no map": (change_index(lambda names: []), "weight_map"),
    "a tensor no shard holds": (
        change_index(lambda names: names | {"ghost": "model-00001-of-00002.safetensors"}),
        "ghost",
    ),
    "a tensor it leaves out": (
        change_index(lambda names: {n: names[n] for n in names if n != "model.norm.weight"}),
        "model.norm",
    ),
    "a tensor in the other shard": (
        change_index(
            lambda names: names | {"model.norm.weight": "model-00001-of-00002.safetensors"}
        ),
        "model.norm",
    ),
    "a path instead of a name": (
        change_index(lambda names: names | {"x": "../model.safetensors"}),
        "plain",
    ),
    "a shard that is not there": (
        change_index(lambda names: names | {"x": "model-00009-of-00002.safetensors"}),
        "00009",
    ),
    "a number for a shard": (change_index(lambda names: names | {"x": 3}), "plain"),
}


@pytest.mark.parametrize(("damage", "named"), WRONG_INDEX.values(), ids=WRONG_INDEX.keys())
def test_wrong_index(tmp_path: Path, damage: Callable[[Path], None], named: str) -> None:
    """The index and the shards must agree; the difference is named."""
    damage(write_tiny_checkpoint(tmp_path))
    with pytest.raises(CheckpointError, match=named):
        read_shards(tmp_path)


def test_a_name_in_two_shards(tmp_path: Path) -> None:
    """Which one is meant cannot be known."""
    tensors = tiny_tensors(TinyModel())
    write_shards(tmp_path, tensors, shards=2)
    second = "model-00002-of-00002.safetensors"
    single = tmp_path / "single"
    single.mkdir()
    name = "model.layers.0.ffn_norm.weight"
    write_shards(single, {name: tensors[name]}, shards=1)
    (single / SHARD).rename(tmp_path / second)
    with pytest.raises(CheckpointInvalid, match=f"{name} is in"):
        read_shards(tmp_path)


def test_folder_without_weights(tmp_path: Path) -> None:
    """An empty folder and an absent one are CheckpointMissing."""
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(CheckpointMissing):
            read_shards(folder)


def load_with(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    write_tiny_checkpoint(folder, shards=1)
    tensors = tiny_tensors(TinyModel())
    change(tensors)
    write_shards(folder, tensors, shards=1)
    load_model(folder)


WQKV = "model.layers.1.attention.wqkv"
TOWER = "vit.vision_tower.vision_model"


def put(
    name: str, *shape: int, dtype: torch.dtype = torch.float32
) -> Callable[[dict[str, Any]], None]:
    return lambda tensors: tensors.update({name: torch.zeros(shape, dtype=dtype)})


def drop(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda tensors: tensors.__delitem__(name)


WRONG_TENSORS = {
    "missing": (drop(f"{WQKV}.weight"), rf"missing: {WQKV}\.weight"),
    "half an adapter pair": (drop(f"{WQKV}.lora_web_B.weight"), r"missing: .*lora_web_B"),
    "missing in the tower": (drop(f"{TOWER}.encoder.layers.1.mlp.fc1.bias"), "missing: .*fc1"),
    "missing separator": (drop("plora_sub_GN"), "missing: plora_sub_GN"),
    "no patch embedding": (drop(f"{TOWER}.embeddings.patch_embedding.weight"), "patch"),
    "surplus": (put(f"{WQKV}.bias", 128), r"of no known use: .*wqkv\.bias"),
    "surplus layer": (put("model.layers.2.ffn_norm.weight", 64), "of no known use"),
    "wrong shape": (put(f"{WQKV}.weight", 128, 63), r"wqkv\.weight is \[128, 63\], \[128, 64\]"),
    "ranks that differ": (put(f"{WQKV}.Plora_B.weight", 128, 7), r"Plora_B.* \[128, 7\]"),
    "wrong dtype": (put("model.norm.weight", 64, dtype=torch.int32), "dtype I32"),
    "positions of no square": (
        put(f"{TOWER}.embeddings.position_embedding.weight", 16, 64),
        "square",
    ),
}


@pytest.mark.parametrize(("change", "named"), WRONG_TENSORS.values(), ids=WRONG_TENSORS.keys())
def test_tensors_that_do_not_fit(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None], named: str
) -> None:
    """Missing, surplus, misshapen and mistyped tensors are reported by name."""
    with pytest.raises(CheckpointInvalid, match=named):
        load_with(tmp_path, change)


def test_unused_tensors_are_tolerated(tmp_path: Path) -> None:
    """post_layernorm may be there or not; old buffers may be stored."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors.pop(f"{TOWER}.post_layernorm.weight")
        tensors.pop(f"{TOWER}.post_layernorm.bias")
        tensors[f"{TOWER}.embeddings.position_ids"] = torch.arange(17)[None]
        tensors["model.layers.0.attention.rotary_emb.inv_freq"] = torch.zeros(8)

    load_with(tmp_path, change)


@pytest.mark.parametrize(
    ("ranks", "offered"),
    [
        ({}, set()),
        ({"lora_web": 3}, {"web"}),
        ({"lora_sft": 3}, set()),
        ({"lora_sft": 3, "lora_dpo": 5, "Plora": 2}, {"write"}),
    ],
    ids=str,
)
def test_adapters_offered(tmp_path: Path, ranks: dict[str, int], offered: set[str]) -> None:
    """Web needs its one set, write both of its own; ranks are whatever the tensors have."""
    model = load_model(write_tiny_checkpoint(tmp_path, ranks=ranks))
    assert offered == model.adapters


def test_sizes_of_a_loaded_model(tmp_path: Path) -> None:
    """Its bytes are those of the tensors it uses; adapters are counted among them and apart."""
    tensors = tiny_tensors(TinyModel())
    unused = sum(tensors[name].nbytes for name in tensors if "post_layernorm" in name)
    adapters = sum(tensors[name].nbytes for name in tensors if "ora_" in name and "GN" not in name)
    model = load_model(write_tiny_checkpoint(tmp_path))
    assert sum(tensor.nbytes for tensor in tensors.values()) - unused == model.weights_bytes
    assert adapters == model.adapters_bytes


def test_digest(tmp_path: Path) -> None:
    """Equal for the same weights in other shards; different for one changed weight or config."""
    digests = [
        checkpoint_digest(write_tiny_checkpoint(tmp_path / "a")),
        checkpoint_digest(write_tiny_checkpoint(tmp_path / "b", shards=3)),
        checkpoint_digest(write_tiny_checkpoint(tmp_path / "c", seed=1)),
        checkpoint_digest(write_tiny_checkpoint(tmp_path / "d", rope_theta=5000.0)),
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
