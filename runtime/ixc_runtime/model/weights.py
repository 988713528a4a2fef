"""Tensors out of a checked checkpoint's shards, one at a time, in the dtype the model runs in.

The bytes are read into memory of ours rather than mapped: a file cut short while we serve would
kill the process on its next access to a mapping. Knows names and bytes, not what they are for.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ixc_runtime.checkpoint.shards import TensorEntry
from ixc_runtime.errors import CheckpointInvalid

TORCH_DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class Weights:
    """Reads by name. Nothing is kept: whoever takes a tensor owns it.

    `on_read` is told of each tensor's bytes once they are read.
    """

    def __init__(
        self,
        entries: Mapping[str, TensorEntry],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        on_read: Callable[[int], None] = lambda num_bytes: None,
    ) -> None:
        self._entries = entries
        self._on_read = on_read
        self.dtype = dtype
        self.device = torch.device(device)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def take(self, name: str) -> Tensor:
        """A floating tensor in the model's dtype and on its device."""
        # Moved first and widened there: half the bytes travel.
        return self.take_as_stored(name).to(self.device).to(self.dtype)

    def take_as_stored(self, name: str) -> Tensor:
        tensor = read_tensor(self._entries[name])
        self._on_read(tensor.nbytes)
        return tensor


def read_tensor(entry: TensorEntry) -> Tensor:
    """The tensor's own bytes, whatever the file has become since its header was read."""
    buffer = torch.empty(entry.num_bytes, dtype=torch.uint8)
    view = memoryview(buffer.numpy().data)
    try:
        with entry.file.open("rb", buffering=0) as stream:
            stream.seek(entry.offset)
            done = 0
            while done < entry.num_bytes and (count := stream.readinto(view[done:])):
                done += count
    except OSError as error:
        raise CheckpointInvalid(
            f"{entry.file.name} cannot be read: {error.strerror}", file=entry.file.name
        ) from None
    if done < entry.num_bytes:
        raise CheckpointInvalid(
            f"{entry.file.name} ends inside {entry.name}: {done} of {entry.num_bytes} bytes",
            file=entry.file.name,
            tensor=entry.name,
        )
    return buffer.view(TORCH_DTYPES[entry.dtype]).reshape(entry.shape)
