"""Published PyTorch `.bin` shards into safetensors, which is what we serve from.

The official branch holds only pickled shards. They are opened with torch's restricted unpickler,
mapped rather than read, and checked against the config before anything is written; then each shard
is written, synced, read back and compared. The result appears under its name at once and whole, or
not at all.
"""

import json
import os
import pickle
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ixc_runtime.checkpoint.json_object import read_json_object
from ixc_runtime.checkpoint.shards import (
    INDEX_NAME,
    TensorEntry,
    read_shard,
    read_shards,
)
from ixc_runtime.config import CONFIG_NAME, SETTINGS_NAME, load_config, load_settings
from ixc_runtime.errors import (
    CheckpointInvalid,
    CheckpointMissing,
    CheckpointUnsupported,
    FieldInvalid,
)
from ixc_runtime.model.inventory import take_inventory
from ixc_runtime.model.weights import TORCH_DTYPES, read_tensor

# All that is copied beside the weights. Code in the folder is not among it.
COMPANION_NAMES = (
    CONFIG_NAME,
    SETTINGS_NAME,
    "generation_config.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)

_BIN_NAME = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin")
_DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
_COPY_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertProgress:
    """After each tensor. Bytes count the weights as written."""

    file: str
    tensor: str
    done_bytes: int
    total_bytes: int


def convert_checkpoint(
    source: Path,
    target: Path,
    *,
    dtype: torch.dtype | None = None,
    progress: Callable[[ConvertProgress], None] | None = None,
) -> Path:
    """Write `source`'s weights as safetensors shards to the new folder `target`, and return it.

    `dtype` rounds the floating weights (int4 scales stay as they are); None keeps them bit for bit.
    Raises CheckpointError for a source that could not be served, FieldInvalid for a target that
    exists, and OSError when the disk does not take it.
    """
    if target.exists():
        raise FieldInvalid("target", f"{target} exists already; it is left as it is")
    if not target.parent.is_dir():
        raise FieldInvalid("target", f"{target.parent} is not a folder")
    bins = find_bins(source)
    shards = [
        _Shard(bin_path, f"model-{number:05}-of-{len(bins):05}.safetensors", dtype)
        for number, bin_path in enumerate(bins, start=1)
    ]
    _check(source, shards)
    total_bytes = sum(shard.num_bytes for shard in shards)
    done_bytes = 0
    with _staged(target) as staging:
        _copy_companions(source, staging, dtype)
        weight_map: dict[str, str] = {}
        for shard in shards:
            for name, num_bytes in shard.write(staging):
                weight_map[name] = shard.file
                done_bytes += num_bytes
                if progress is not None:
                    progress(
                        ConvertProgress(
                            file=shard.file,
                            tensor=name,
                            done_bytes=done_bytes,
                            total_bytes=total_bytes,
                        )
                    )
            shard.verify(staging)
        index = {
            "metadata": {"total_size": total_bytes},
            "weight_map": dict(sorted(weight_map.items())),
        }
        _write_synced(staging / INDEX_NAME, json.dumps(index, indent=2).encode())
        read_shards(staging)
    return target


def find_bins(source: Path) -> list[Path]:
    """The shards of a published folder, in order; an index beside them must name the same ones."""
    if not source.is_dir():
        raise CheckpointMissing(f"{source.name} is not a folder")
    bins = sorted(path for path in source.iterdir() if _BIN_NAME.fullmatch(path.name))
    if not bins:
        if any(source.glob("*.safetensors")):
            raise CheckpointUnsupported("the folder holds safetensors already; serve it as it is")
        raise CheckpointMissing("no pytorch_model*.bin is in the folder")
    index_path = source / "pytorch_model.bin.index.json"
    if index_path.is_file():
        weight_map = read_json_object(index_path, max_bytes=16 << 20).get("weight_map")
        named = (
            {str(file) for file in weight_map.values()} if isinstance(weight_map, dict) else set()
        )
        if absent := sorted(named - {path.name for path in bins}):
            raise CheckpointMissing(f"{index_path.name} names shards that are not there: {absent}")
    return bins


class _Shard:
    """One `.bin` file on its way to one safetensors file."""

    def __init__(self, path: Path, file: str, dtype: torch.dtype | None) -> None:
        self.file = file
        self._tensors = _load_bin(path)
        self._dtypes = {
            name: dtype
            if dtype and tensor.is_floating_point() and not name.endswith(".scales")
            else tensor.dtype
            for name, tensor in self._tensors.items()
        }

    @property
    def num_bytes(self) -> int:
        return sum(
            tensor.numel() * self._dtypes[name].itemsize for name, tensor in self._tensors.items()
        )

    def entries(self) -> Iterator[TensorEntry]:
        """The tensors as they will be described, for the check before writing."""
        for name, tensor in self._tensors.items():
            dtype = self._dtypes[name]
            yield TensorEntry(
                name=name,
                dtype=_DTYPE_NAMES[dtype],
                shape=tuple(tensor.shape),
                file=Path(self.file),
                offset=0,
                num_bytes=tensor.numel() * dtype.itemsize,
            )

    def write(self, folder: Path) -> Iterator[tuple[str, int]]:
        """Header, then tensor after tensor; yields name and bytes as each is written."""
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        position = 0
        for entry in self.entries():
            header[entry.name] = {
                "dtype": entry.dtype,
                "shape": list(entry.shape),
                "data_offsets": [position, position + entry.num_bytes],
            }
            position += entry.num_bytes
        encoded = json.dumps(header, separators=(",", ":")).encode()
        encoded += b" " * (-len(encoded) % 8)  # so that the data is aligned
        with (folder / self.file).open("xb") as stream:
            stream.write(len(encoded).to_bytes(8, "little"))
            stream.write(encoded)
            for name in self._tensors:
                content = memoryview(self._as_written(name).view(torch.uint8).numpy().data)
                for start in range(0, len(content), _COPY_BYTES):
                    stream.write(content[start : start + _COPY_BYTES])
                yield name, len(content)
            stream.flush()
            os.fsync(stream.fileno())

    def verify(self, folder: Path) -> None:
        """Read the written file back, by the same code that will load it, and compare every bit."""
        written = read_shard(folder / self.file)
        for name in self._tensors:
            back = read_tensor(written[name]).flatten().view(torch.uint8)
            if not torch.equal(back, self._as_written(name).view(torch.uint8)):
                raise CheckpointInvalid(f"{self.file}: {name} reads back differently", tensor=name)

    def _as_written(self, name: str) -> Tensor:
        return self._tensors[name].to(self._dtypes[name]).contiguous().flatten()


def _load_bin(path: Path) -> dict[str, Tensor]:
    """A shard's tensors, mapped. Anything but a dict of plain tensors is refused unexecuted."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, OSError) as error:
        raise CheckpointInvalid(
            f"{path.name} is no PyTorch file of plain weights: {str(error).splitlines()[0][:200]}",
            file=path.name,
        ) from None
    if not isinstance(content, dict):
        raise CheckpointInvalid(f"{path.name} does not hold a dict of tensors", file=path.name)
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointInvalid(f"{path.name}: {str(name)[:80]} is no tensor", file=path.name)
        if tensor.layout != torch.strided or tensor.dtype not in _DTYPE_NAMES:
            raise CheckpointInvalid(
                f"{path.name}: {name} is {tensor.layout} of {tensor.dtype}; "
                "a dense tensor of a plain dtype is needed",
                file=path.name,
                tensor=name,
            )
    claimed, size = sum(tensor.nbytes for tensor in content.values()), path.stat().st_size
    if claimed > size:  # views that repeat a few stored bytes
        raise CheckpointInvalid(
            f"{path.name} has {size} bytes and claims tensors of {claimed}", file=path.name
        )
    return {name: tensor.detach() for name, tensor in sorted(content.items())}


def _check(source: Path, shards: list[_Shard]) -> None:
    """Refuse what could not be served, before hours of copying."""
    entries: dict[str, TensorEntry] = {}
    for shard in shards:
        for entry in shard.entries():
            if entry.name in entries:
                raise CheckpointInvalid(f"{entry.name} is in two shards", tensor=entry.name)
            entries[entry.name] = entry
    load_settings(source)
    take_inventory(load_config(source), entries)


def _copy_companions(source: Path, staging: Path, dtype: torch.dtype | None) -> None:
    for name in COMPANION_NAMES:
        if (source / name).is_file():
            content = (source / name).read_bytes()
            if name == CONFIG_NAME and dtype is not None:
                content = _with_dtype(source / name, dtype)
            _write_synced(staging / name, content)


def _with_dtype(path: Path, dtype: torch.dtype) -> bytes:
    config: Mapping[str, object] = read_json_object(path)
    name = str(dtype).removeprefix("torch.")
    kept = {key: value for key, value in config.items() if key != "dtype"}
    return json.dumps({**kept, "torch_dtype": name}, indent=2).encode()


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A hidden sibling that becomes `target` if the block ends well and vanishes if it does not."""
    staging = target.parent / f".{target.name}.{secrets.token_hex(4)}.partial"
    staging.mkdir()
    try:
        yield staging
        _sync_folder(staging)
        staging.rename(target)
        _sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
