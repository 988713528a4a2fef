"""The device that an engine runs on: whether it can be used, what computes on it, what is free.

Knows drivers and kernels; nothing of an engine's parts, or of how its memory is divided.
"""

import logging
import re

import torch

from ixc_cuda.device import DeviceRefused, check_device
from ixc_runtime.byte_sizes import size_text
from ixc_runtime.config import ModelConfig
from ixc_runtime.engine_process.messages import EngineConfig
from ixc_runtime.engine_process.planning import batch_limit, device_kind
from ixc_runtime.errors import CheckpointUnsupported, FieldInvalid, MemoryLow
from ixc_runtime.host_memory import free_host_bytes
from ixc_runtime.ops import Ops
from ixc_runtime.ops.cpu import CpuOps

_log = logging.getLogger(__name__)

# What a model computes in where nobody says: exact on a CPU, fast on a GPU.
_DEFAULT_DTYPES = {"cpu": "float32", "cuda": "bfloat16"}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_DEVICE = re.compile(r"cpu|cuda(?::(0|[1-9][0-9]{0,3}))?")
# A process takes about this much of a GPU by opening it.
_CONTEXT_BYTES = 512 * 2**20
# Of what was planned for steps, left to libraries that take their memory by themselves; and enough
# for another process to open the device, and see that it is full.
_UNCLAIMED_BYTES = 1024 * 2**20


def open_device(config: EngineConfig) -> None:
    """Makes it the current one. Raises FieldInvalid where it is none, or cannot be used, MemoryLow
    where others have left nothing of it.
    """
    match = _DEVICE.fullmatch(config.device)
    if match is None:
        raise FieldInvalid("device", f"device is {config.device!r}, allowed: cpu, cuda, cuda:N")
    if config.device == "cpu":
        return
    index = int(match[1] or 0)
    try:
        info = check_device(index)
    except DeviceRefused as refused:
        raise FieldInvalid("device", f"device is {config.device}: {refused}") from None
    _log.info("running on %s, compute capability %d.%d", info.name, *info.capability)
    try:
        # Streams, events, graphs and our kernels are the current device's.
        torch.cuda.set_device(index)
    except RuntimeError as error:  # of no class of its own
        if "out of memory" not in str(error):
            raise
        raise MemoryLow(
            f"opening {config.device} takes some {size_text(_CONTEXT_BYTES)}, and not even those "
            "are free",
            required=_CONTEXT_BYTES,
            free=0,
        ) from None


def chosen_dtype(config: EngineConfig) -> torch.dtype:
    """Raises FieldInvalid for one that nothing computes in."""
    name = config.dtype or _DEFAULT_DTYPES[device_kind(config.device)]
    if name not in _DTYPES:
        raise FieldInvalid("dtype", f"dtype is {name!r}, allowed: {', '.join(_DTYPES)}")
    return _DTYPES[name]


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def choose_ops(config: EngineConfig, model: ModelConfig) -> Ops:
    """Kernels of ours on a GPU in half precision, plain torch for all the rest.

    Raises CheckpointUnsupported where there are no kernels for the model's sizes.
    """
    if config.device == "cpu":
        return CpuOps()
    if config.dtype == "float32":
        return CpuOps(name="plain torch")
    # Kernels need torch's CUDA build and CuPy: imported where a GPU is there.
    from ixc_cuda.kernel import compile_all
    from ixc_runtime.ops.cuda import CudaOps, unsupported_shapes

    if reason := unsupported_shapes(model):
        raise CheckpointUnsupported(f"{reason}; in float32 the GPU computes by plain torch")
    compile_all(torch.device(config.device).index or 0)
    return CudaOps(model, max_sequences=batch_limit(config), device=config.device)


def free_bytes(device: torch.device | str) -> int:
    """Of its memory: what nobody else has taken."""
    device = torch.device(device)
    if device.type == "cpu":
        return free_host_bytes()
    torch.cuda.empty_cache()  # what loading has left behind is free too
    free, _ = torch.cuda.mem_get_info(device)
    return free


def claim(num_bytes: int, device: torch.device | str) -> None:
    """Have this much of a GPU kept for this process, for its later steps and adapters.

    Whoever asks the device what is free, another engine say, is then told the truth. Raises
    torch.OutOfMemoryError.
    """
    if torch.device(device).type == "cuda" and num_bytes > _UNCLAIMED_BYTES:
        # Given back to torch at once, which keeps it for what is allocated next.
        torch.empty(num_bytes - _UNCLAIMED_BYTES, dtype=torch.uint8, device=device)
