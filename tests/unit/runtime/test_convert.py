"""`ixc convert`: pickled shards in, a servable folder out, or nothing at all."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ixc_runtime.checkpoint.convert import ConvertProgress, convert_checkpoint
from ixc_runtime.errors import (
    CheckpointError,
    CheckpointInvalid,
    CheckpointMissing,
    CheckpointUnsupported,
    FieldInvalid,
)
from ixc_runtime.model.loader import load_model
from tests.fakes.tiny_checkpoint import TinyModel, tiny_config, tiny_tensors, write_tiny_checkpoint

MODEL = TinyModel(dtype="bfloat16")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder as the official branch holds it: two .bin shards, an index, code, a tokenizer."""
    folder = tmp_path / "published"
    folder.mkdir()
    tensors = tiny_tensors(MODEL)
    names = sorted(tensors)
    weight_map = {}
    for number, held in enumerate((names[:70], names[70:]), start=1):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({name: tensors[name] for name in held}, folder / file)
        weight_map |= dict.fromkeys(held, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(tiny_config(MODEL)))
    (folder / "tokenizer.model").write_bytes(b"pieces")
    (folder / "modeling_internlm_xcomposer2.py").write_text("raise SystemExit('was executed')")
    return folder


def converted(folder: Path) -> dict[str, torch.Tensor]:
    result = {}
    for shard in folder.glob("*.safetensors"):
        result |= load_file(shard)
    return result


def test_published_shards(published: Path, tmp_path: Path) -> None:
    """Every tensor arrives bit for bit, and the folder loads."""
    target = convert_checkpoint(published, tmp_path / "served")
    expected, actual = tiny_tensors(MODEL), converted(target)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    assert {"web", "write"} == load_model(target).adapters


def test_only_known_files_are_copied(published: Path, tmp_path: Path) -> None:
    """Config and tokenizer come along; code does not, and no half-made folder stays behind."""
    target = convert_checkpoint(published, tmp_path / "served")
    assert {
        "config.json",
        "tokenizer.model",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    } == {path.name for path in target.iterdir()}
    assert {"published", "served"} == {path.name for path in tmp_path.iterdir()}


def test_another_dtype(published: Path, tmp_path: Path) -> None:
    """Floating weights are rounded as asked, and the config says so."""
    target = convert_checkpoint(published, tmp_path / "served", dtype=torch.float32)
    assert {torch.float32} == {tensor.dtype for tensor in converted(target).values()}
    assert json.loads((target / "config.json").read_text())["torch_dtype"] == "float32"


def test_progress_reaches_the_total(published: Path, tmp_path: Path) -> None:
    """Bytes only grow, and end at the announced sum."""
    seen: list[ConvertProgress] = []
    convert_checkpoint(published, tmp_path / "served", progress=seen.append)
    done = [step.done_bytes for step in seen]
    assert sorted(done) == done
    assert seen[-1].total_bytes == done[-1] == sum(t.nbytes for t in tiny_tensors(MODEL).values())


def test_existing_target(published: Path, tmp_path: Path) -> None:
    """It is refused and left as it is."""
    target = tmp_path / "served"
    target.mkdir()
    (target / "mine").write_text("kept")
    with pytest.raises(FieldInvalid):
        convert_checkpoint(published, target)
    assert [path.name for path in target.iterdir()] == ["mine"]


class Payload:
    """Runs when a careless loader unpickles it."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("/tmp/never"),))


HOSTILE = {
    "code in the pickle": pickle.dumps(Payload()),
    "not a pickle": b"<html>not found</html>",
    "empty": b"",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_shard(published: Path, tmp_path: Path, content: bytes) -> None:
    """A shard that is no plain file of tensors is refused; nothing is run, nothing is left."""
    (published / "pytorch_model-00002-of-00002.bin").write_bytes(content)
    with pytest.raises(CheckpointInvalid):
        convert_checkpoint(published, tmp_path / "served")
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


def test_tensor_that_repeats_a_few_bytes(published: Path, tmp_path: Path) -> None:
    """A view that would swell on disk is refused."""
    shard = published / "pytorch_model-00002-of-00002.bin"
    torch.save({"output.weight": torch.zeros(1).expand(1 << 30)}, shard)
    with pytest.raises(CheckpointInvalid, match="claims"):
        convert_checkpoint(published, tmp_path / "served")


def test_missing_tensors_are_named_before_anything_is_written(
    published: Path, tmp_path: Path
) -> None:
    """A folder that could not be served is not converted."""
    torch.save({}, published / "pytorch_model-00002-of-00002.bin")
    with pytest.raises(CheckpointInvalid, match=r"missing: .*w1.lora_sft_A"):
        convert_checkpoint(published, tmp_path / "served")
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


def test_interrupted_conversion(published: Path, tmp_path: Path) -> None:
    """Stopped in the middle it leaves nothing behind."""

    def interrupt(step: ConvertProgress) -> None:
        if step.done_bytes * 2 > step.total_bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(published, tmp_path / "served", progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


def test_missing_shard(published: Path, tmp_path: Path) -> None:
    """An index that names a shard which is not there stops it."""
    (published / "pytorch_model-00001-of-00002.bin").unlink()
    with pytest.raises(CheckpointMissing, match="00001"):
        convert_checkpoint(published, tmp_path / "served")


def test_nothing_to_convert(tmp_path: Path) -> None:
    """No folder, an empty one, and one of safetensors each say what they are."""
    with pytest.raises(CheckpointMissing):
        convert_checkpoint(tmp_path / "absent", tmp_path / "served")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointMissing):
        convert_checkpoint(tmp_path / "empty", tmp_path / "served")
    with pytest.raises(CheckpointUnsupported, match="already"):
        convert_checkpoint(write_tiny_checkpoint(tmp_path / "done"), tmp_path / "served")


def test_unconverted_folder_says_what_to_do(published: Path) -> None:
    """Serving it directly names the command."""
    with pytest.raises(CheckpointError, match="ixc convert"):
        load_model(published)
