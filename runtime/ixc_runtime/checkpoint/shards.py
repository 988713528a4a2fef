"""What a checkpoint's safetensors files hold, checked before a byte of weights is used.

Reads headers and the index only, so it needs no torch and costs milliseconds. A file comes from
outside: everything it claims (lengths, offsets, shapes, names) is compared with what is really
there, and a lie becomes `CheckpointInvalid` with the file and the tensor named. Knows nothing of
which tensors a model needs: that is `ixc_runtime.model.inventory`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ixc_runtime.checkpoint.json_object import parse_json_object, read_json_object
from ixc_runtime.errors import CheckpointInvalid, CheckpointMissing, CheckpointUnsupported

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"

# Bytes of one element, by the format's dtype names; its others (float8, complex) are of no use.
DTYPE_BYTES: Mapping[str, int] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip

# The 7B model has 1,904 tensors and headers of a third of a megabyte; the format's own limit of
# 100 MB would let one file cost gigabytes of parsed JSON.
MAX_HEADER_BYTES = 16 << 20
MAX_INDEX_BYTES = 16 << 20
MAX_TENSORS = 1 << 16
MAX_DIMENSIONS = 8

_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}\.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """One tensor as its file describes it; `offset` counts from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    num_bytes: int


def read_shard(path: Path) -> dict[str, TensorEntry]:
    """The tensors of one safetensors file: u64 header length, JSON header, data without holes."""
    if not path.is_file():
        raise CheckpointMissing(f"{path.name} is not in the model folder", file=path.name)
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            prefix = stream.read(8)
            header_bytes = int.from_bytes(prefix, "little")
            room = min(size - 8, MAX_HEADER_BYTES)
            if len(prefix) < 8 or not 2 <= header_bytes <= room:
                raise CheckpointInvalid(
                    f"{path.name}: a header of {header_bytes} bytes is claimed, "
                    f"2 to {max(room, 2)} are possible",
                    file=path.name,
                )
            header = stream.read(header_bytes)
    except OSError as error:
        raise CheckpointInvalid(
            f"{path.name} cannot be read: {error.strerror}", file=path.name
        ) from None
    fields = parse_json_object(header, path.name)
    fields.pop("__metadata__", None)  # free text of whoever wrote the file
    if len(fields) > MAX_TENSORS:
        raise CheckpointInvalid(
            f"{path.name} claims {len(fields)} tensors; the limit is {MAX_TENSORS}", file=path.name
        )
    data_start = 8 + header_bytes
    entries = {name: _entry(name, claim, path, data_start) for name, claim in fields.items()}
    _check_coverage(entries, path, data_start, size)
    return entries


def read_shards(folder: Path) -> dict[str, TensorEntry]:
    """Every tensor of a model folder by name; the index, where there is one, must agree exactly."""
    if not folder.is_dir():
        raise CheckpointMissing(f"{folder.name} is not a folder")
    index_path = folder / INDEX_NAME
    if index_path.is_file():
        return _read_indexed(folder, index_path)
    if (folder / SINGLE_NAME).is_file():
        return read_shard(folder / SINGLE_NAME)
    if any(folder.glob("pytorch_model*.bin")):
        raise CheckpointUnsupported(
            "the weights are PyTorch .bin shards; turn them into safetensors with `ixc convert`",
            format="bin",
        )
    raise CheckpointMissing(
        f"neither {INDEX_NAME} nor {SINGLE_NAME} is in the model folder", file=SINGLE_NAME
    )


def _read_indexed(folder: Path, index_path: Path) -> dict[str, TensorEntry]:
    index = read_json_object(index_path, max_bytes=MAX_INDEX_BYTES)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointInvalid(f"{INDEX_NAME} has no weight_map", file=INDEX_NAME)
    for name, file in weight_map.items():
        if not isinstance(file, str) or not _SHARD_NAME.fullmatch(file):
            raise CheckpointInvalid(
                f"{INDEX_NAME} places {name} in {file!r}, which is no plain safetensors file name",
                file=INDEX_NAME,
                tensor=name,
            )
    entries: dict[str, TensorEntry] = {}
    for file in sorted(set(weight_map.values())):
        for name, entry in read_shard(folder / file).items():
            if name in entries:
                raise CheckpointInvalid(
                    f"{name} is in {entries[name].file.name} and again in {file}", tensor=name
                )
            if weight_map.get(name) != file:
                raise CheckpointInvalid(
                    f"{file} holds {name}, which {INDEX_NAME} does not place there",
                    file=file,
                    tensor=name,
                )
            entries[name] = entry
    if absent := sorted(weight_map.keys() - entries.keys()):
        raise CheckpointInvalid(
            f"{INDEX_NAME} names tensors that no shard holds: {name_some(absent)}", file=INDEX_NAME
        )
    return entries


def name_some(names: list[str], limit: int = 8) -> str:
    """Names for a message: the first few, and how many more."""
    listed = ", ".join(names[:limit])
    return listed if len(names) <= limit else f"{listed} and {len(names) - limit} more"


def _entry(name: str, claim: object, path: Path, data_start: int) -> TensorEntry:
    if not isinstance(claim, dict) or claim.keys() != {"dtype", "shape", "data_offsets"}:
        raise _lie(path, name, "is not described by exactly dtype, shape and data_offsets")
    dtype, shape, offsets = claim["dtype"], claim["shape"], claim["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise _lie(path, name, f"has dtype {dtype!r}; known are {', '.join(DTYPE_BYTES)}")
    if not _is_counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise _lie(path, name, f"has no shape of at most {MAX_DIMENSIONS} whole numbers")
    if not _is_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _lie(path, name, "has no data_offsets of the form [begin, end]")
    num_bytes = math.prod(shape) * DTYPE_BYTES[dtype]
    if offsets[1] - offsets[0] != num_bytes:
        raise _lie(
            path,
            name,
            f"claims {offsets[1] - offsets[0]} bytes; {dtype} {shape} takes {num_bytes}",
        )
    return TensorEntry(
        name=name,
        dtype=dtype,
        shape=tuple(shape),
        file=path,
        offset=data_start + offsets[0],
        num_bytes=num_bytes,
    )


def _check_coverage(
    entries: Mapping[str, TensorEntry], path: Path, data_start: int, size: int
) -> None:
    """The format allows neither overlap nor holes: the tensors tile the data exactly."""
    position = data_start
    for entry in sorted(entries.values(), key=lambda entry: (entry.offset, entry.num_bytes)):
        if entry.offset != position:
            fault = "overlaps the tensor before it" if entry.offset < position else "leaves a hole"
            raise _lie(
                path, entry.name, f"starts at {entry.offset} where {position} is due: {fault}"
            )
        position += entry.num_bytes
    if position != size:
        raise CheckpointInvalid(
            f"{path.name} has {size} bytes; its header describes {position}", file=path.name
        )


def _is_counts(value: object) -> bool:
    """A list of whole numbers that are no booleans, and small enough that products stay small."""
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < 1 << 48 for item in value
    )


def _lie(path: Path, name: str, what: str) -> CheckpointInvalid:
    return CheckpointInvalid(f"{path.name}: {name} {what}", file=path.name, tensor=name)
