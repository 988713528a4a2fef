"""The model folder that work starts from: checked as a whole, read tensor by tensor.

Knows which tensors belong to which linear, and refuses weights that are not finite: a NaN that was
carried over into a new model would be found by nobody but its users.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ixc_runtime.checkpoint.convert import COMPANION_NAMES
from ixc_runtime.checkpoint.json_object import read_json_object
from ixc_runtime.checkpoint.shards import TensorEntry, read_shards
from ixc_runtime.config import CONFIG_NAME, SETTINGS_NAME, load_config, load_settings
from ixc_runtime.errors import CheckpointInvalid, CheckpointUnsupported
from ixc_runtime.model.inventory import LinearSite, layer_sites, take_inventory
from ixc_runtime.model.weights import TORCH_DTYPES, read_tensor
from ixc_runtime.weights.progress import Output

# Behind the language model's own: whatever is not part of a decoder layer.
_LAYERS_PREFIX = "model.layers."


class Source:
    """A model folder whose tensors fit its config. Opening it reads headers only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = load_config(folder)
        self.settings = load_settings(folder)
        self.entries = read_shards(folder)
        self.inventory = take_inventory(self.config, self.entries)

    def require_plain(self, work: str) -> None:
        """Rounded weights can be neither merged into nor rounded again without loss."""
        if self.config.quantization is not None:
            raise CheckpointUnsupported(
                f"{work} needs the plain weights; this model's are int4 already",
                quantization="awq",
            )

    def sites(self) -> Iterator[LinearSite]:
        for layer in range(self.config.num_layers):
            yield from layer_sites(self.config, layer)

    def layer_entries(self, layer: int) -> dict[str, TensorEntry]:
        prefix = f"{_LAYERS_PREFIX}{layer}."
        return {name: entry for name, entry in self.entries.items() if name.startswith(prefix)}

    def other_entries(self) -> dict[str, TensorEntry]:
        """All that belongs to no decoder layer: embeddings, norm, output, tower, projector."""
        return {
            name: entry
            for name, entry in self.entries.items()
            if not name.startswith(_LAYERS_PREFIX)
        }

    def read(self, name: str) -> Tensor:
        """As stored, and finite."""
        tensor = read_tensor(self.entries[name])
        require_finite(name, tensor)
        return tensor

    def write_companions(
        self,
        output: Output,
        *,
        config: Mapping[str, object],
        settings: Mapping[str, object],
    ) -> None:
        """Everything beside the weights, with keys of the two config files added or replaced."""
        document = read_json_object(self.folder / CONFIG_NAME)
        if "torch_dtype" in config:  # the newer name for the same
            document.pop("dtype", None)
        output.write_json(CONFIG_NAME, document | dict(config))
        path = self.folder / SETTINGS_NAME
        document = (read_json_object(path) if path.is_file() else {}) | dict(settings)
        if document:
            output.write_json(SETTINGS_NAME, document)
        for name in COMPANION_NAMES:
            path = self.folder / name
            if name not in (CONFIG_NAME, SETTINGS_NAME) and path.is_file():
                output.copy(path)


def require_finite(name: str, tensor: Tensor) -> None:
    """Refuse NaN and infinity, naming the tensor. One pass, no copy."""
    if not tensor.is_floating_point() or not tensor.numel():
        return
    low, high = torch.aminmax(tensor)
    if not (torch.isfinite(low) and torch.isfinite(high)):
        count = int((~torch.isfinite(tensor)).sum())
        raise CheckpointInvalid(
            f"{name}: {count} of {tensor.numel()} values are not finite",
            tensor=name,
            count=count,
            total=tensor.numel(),
        )


def cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Round a floating tensor once; what leaves the dtype's range is refused, naming the value."""
    if not tensor.is_floating_point() or tensor.dtype == dtype:
        return tensor
    rounded = tensor.to(dtype)
    if tensor.numel():
        low, high = torch.aminmax(rounded)
        if not (torch.isfinite(low) and torch.isfinite(high)):
            largest, limit = float(tensor.abs().max()), torch.finfo(dtype).max
            raise CheckpointInvalid(
                f"{name} has a value of {largest:g}; {str(dtype).removeprefix('torch.')} "
                f"ends at {limit:g}: choose bfloat16",
                tensor=name,
                value=largest,
                limit=limit,
            )
    return rounded


def dtype_of(entry: TensorEntry) -> torch.dtype:
    return TORCH_DTYPES[entry.dtype]
