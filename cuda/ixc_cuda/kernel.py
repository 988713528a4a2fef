"""Kernels as Python sees them: loaded once for a GPU, launched on torch's current stream.

CuPy loads the machine code. The launch itself is the driver's `cuLaunchKernelEx`, because only that
can say that a kernel may start before the one in front of it has ended (programmatic dependent
launch). Shapes and dtypes are the launchers' matter; a wrong pointer is not caught here.
"""

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import torch

from ixc_cuda.arguments import Argument, Layout
from ixc_cuda.catalogue import all_instantiations, find
from ixc_cuda.compiler import Report
from ixc_cuda.cubin_cache import Progress, Wanted, cache_all, cached_kernel
from ixc_cuda.device import DeviceInfo, DeviceRefused, architecture_for, device_info
from ixc_cuda.tensor_map import TensorMap, tensor_map

__all__ = ["Kernel", "LaunchFailed", "TensorMap", "compile_all", "load_kernel", "tensor_map"]

Grid = tuple[int, int, int]

# A block has this much dynamic shared memory without asking; for more the kernel is set up first.
_SHARED_BYTES_UNASKED = 48 << 10

# Launch configurations kept for the next launch like it; making one takes longer than launching.
_MOST_CONFIGS = 1024

_loaded: dict[tuple[str, str, int], "Kernel"] = {}
_loading = threading.Lock()


class LaunchFailed(RuntimeError):
    """The driver refused to launch a kernel."""


def compile_all(device: int, progress: Progress = lambda wanted, kernel: None) -> None:
    """Compile whatever runs on this GPU and is not cached: before the first request, not in it."""
    capability = device_info(device).capability
    wanted = [
        Wanted(source=each.source, name=each.name, architecture=architecture)
        for each in all_instantiations()
        if (architecture := architecture_for(capability, each.architectures))
    ]
    cache_all(wanted, progress=progress)


def load_kernel(source: str, name: str) -> "Kernel":
    """The kernel `name` of kernels/`source` on torch's current device; at once if used before."""
    device = torch.cuda.current_device()
    key = (source, name, device)
    if (kernel := _loaded.get(key)) is None:
        with _loading:
            if (kernel := _loaded.get(key)) is None:
                kernel = _loaded[key] = _load(source, name, device)
    return kernel


def _load(source: str, name: str, device: int) -> "Kernel":
    import cupy

    info = device_info(device)
    compiled_for = find(source, name).architectures
    architecture = architecture_for(info.capability, compiled_for)
    if architecture is None:
        major, minor = info.capability
        raise DeviceRefused(
            f"{name} of {source} is compiled for {', '.join(compiled_for)}; "
            f"{info.name} has compute capability {major}.{minor}"
        )
    cached = cached_kernel(Wanted(source=source, name=name, architecture=architecture))
    with cupy.cuda.Device(device):
        module = cupy.RawModule(path=str(cached.path))
        function = module.get_function(cached.report.lowered_name)
        return Kernel(name=name, function=function, device=device, info=info, report=cached.report)


class Kernel:
    """A loaded kernel. Launching it is safe from several threads and inside graph capture."""

    def __init__(
        self, *, name: str, function: Any, device: int, info: DeviceInfo, report: Report
    ) -> None:
        from cuda.bindings import driver

        self.name = name
        self.registers = report.registers
        self.spilled_bytes = report.spilled_bytes
        self.static_shared_bytes = report.shared_bytes
        self._device = device
        self._info = info
        self._driver = driver
        self._module_function = function  # keeps the module loaded
        self._function = driver.CUfunction(function.kernel.ptr)
        self._context = driver.cuCtxGetCurrent()[1]
        self._parameter_bytes = tuple(_parameter_bytes(self._function))
        self._layouts: dict[tuple[type, ...], Layout] = {}
        self._configs: dict[tuple[Grid, int, int, bool, int], Any] = {}
        self._allowed_shared_bytes = _SHARED_BYTES_UNASKED

    def launch(
        self,
        grid: Grid,
        block: int,
        arguments: tuple[Argument, ...],
        *,
        shared_bytes: int = 0,
        overlap: bool = False,
    ) -> None:
        """Launch on torch's current stream.

        overlap: it may start before the kernel in front of it in the stream has ended, and must
        therefore wait by `griddepcontrol.wait` before it reads what that one writes.
        """
        if shared_bytes > self._allowed_shared_bytes:
            self._allow_shared_bytes(shared_bytes)
        kinds = tuple(map(type, arguments))
        layout = self._layouts.get(kinds)
        if layout is None:
            layout = self._layouts[kinds] = self._lay_out(kinds)
        # Not `torch.cuda.current_stream`, which builds an object: as long as half a launch.
        stream = torch._C._cuda_getCurrentRawStream(self._device)
        key = (grid, block, shared_bytes, overlap, stream)
        config = self._configs.get(key)
        if config is None:
            config = self._configure(*key)
        buffer = layout.filled(arguments)
        (result,) = self._driver.cuLaunchKernelEx(config, self._function, buffer.addresses, 0)
        if result and result == self._driver.CUresult.CUDA_ERROR_INVALID_CONTEXT:
            # The first thing this thread does on a GPU: torch makes the context current as we do.
            self._driver.cuCtxSetCurrent(self._context)
            (result,) = self._driver.cuLaunchKernelEx(config, self._function, buffer.addresses, 0)
        layout.free.append(buffer)
        if result:
            raise LaunchFailed(
                f"{self.name}: the driver refuses the launch ({result.name}) of grid {grid}, block "
                f"{block}, {shared_bytes} bytes of dynamic shared memory; the kernel needs "
                f"{self.registers} registers a thread and {self.static_shared_bytes} bytes of its "
                f"own, on {self._info.name}"
            )

    def _lay_out(self, kinds: tuple[type, ...]) -> Layout:
        """Hold arguments of these types against the kernel's own parameters, once."""
        layout = Layout.of(kinds)
        sizes = tuple(size for _, size in layout.places)
        if sizes != self._parameter_bytes:
            raise LaunchFailed(
                f"{self.name} takes parameters of {self._parameter_bytes} bytes; "
                f"{[kind.__name__ for kind in kinds]} have {sizes}"
            )
        return layout

    def _configure(
        self, grid: Grid, block: int, shared_bytes: int, overlap: bool, stream: int
    ) -> Any:
        if len(self._configs) >= _MOST_CONFIGS:
            self._configs.clear()
        config = self._driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = grid
        config.blockDimX, config.blockDimY, config.blockDimZ = block, 1, 1
        config.sharedMemBytes = shared_bytes
        config.hStream = stream
        # Before 9.0 there is no such overlap, and `griddepcontrol` compiles to nothing.
        if overlap and self._info.capability >= (9, 0):
            config.attrs = [_overlapping()]
            config.numAttrs = 1
        self._configs[grid, block, shared_bytes, overlap, stream] = config
        return config

    def _allow_shared_bytes(self, shared_bytes: int) -> None:
        attribute = self._driver.CUfunction_attribute
        (result,) = self._driver.cuFuncSetAttribute(
            self._function,
            attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
            shared_bytes,
        )
        if result:
            raise LaunchFailed(
                f"{self.name} cannot have {shared_bytes} bytes of dynamic shared memory beside "
                f"{self.static_shared_bytes} static ones; a block of {self._info.name} has at "
                f"most {self._info.shared_bytes} ({result.name})"
            )
        self._allowed_shared_bytes = shared_bytes


def _parameter_bytes(function: Any) -> Iterator[int]:
    """What each parameter takes, as the compiler laid them out."""
    from cuda.bindings import driver

    for index in itertools.count():
        result, _, size = driver.cuFuncGetParamInfo(function, index)
        if result:
            return
        yield int(size)


def _overlapping() -> Any:
    from cuda.bindings import driver

    attribute = driver.CUlaunchAttribute()
    kinds = driver.CUlaunchAttributeID
    attribute.id = kinds.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    attribute.value.programmaticStreamSerializationAllowed = 1
    return attribute
