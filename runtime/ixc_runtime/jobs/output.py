"""Tensors and documents into a staged model: the `weights.Output` of a job.

Shards are written here rather than by a library, so that every byte goes through the same few
operations on files, is hashed on its way, and can be made to fail by a test.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ixc_runtime.model.weights import TORCH_DTYPES
from ixc_runtime.models_root import Staging

_DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
_CHUNK_BYTES = 16 << 20


class StagedOutput:
    """`check` is called between pieces of a file, and may raise to end the work."""

    def __init__(self, staging: Staging, check: Callable[[], None]) -> None:
        self.folder = Path(staging.path)
        self._staging = staging
        self._check = check

    def write_shard(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        self._staging.write(name, self._checked(shard_pieces(tensors)))

    def write_json(self, name: str, document: object) -> None:
        """One that an earlier attempt has finished is the same, for the work is the same."""
        if not self._staging.has(name):
            self._staging.write(name, [json.dumps(document, indent=2).encode() + b"\n"])

    def copy(self, source: Path) -> None:
        if self._staging.has(source.name):
            return
        with source.open("rb") as stream:
            pieces = iter(lambda: stream.read(_CHUNK_BYTES), b"")
            self._staging.write(source.name, self._checked(pieces))

    def has_shard(self, name: str) -> bool:
        return self._staging.has(name)

    def _checked(self, pieces: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        for piece in pieces:
            self._check()
            yield piece


def shard_pieces(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """A safetensors file: u64 length of the header, JSON header, data without holes.

    Wide elements come first, so that each tensor lies at a multiple of its element's size.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name in order:
        tensor = tensors[name]
        header[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, position + tensor.nbytes],
        }
        position += tensor.nbytes
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    yield len(encoded).to_bytes(8, "little") + encoded
    for name in order:
        elements = tensors[name].contiguous().reshape(-1)
        data = memoryview(elements.view(torch.uint8).numpy().data)
        for start in range(0, len(data), _CHUNK_BYTES):
            yield data[start : start + _CHUNK_BYTES]
