"""Which GPU this is, whether we can run on it, and if not, what was found and what is needed.

`check_device` is called before a model is loaded, so that a machine that does not fit is refused
with a sentence rather than by the first kernel.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib import metadata

CUDA_MAJOR = 13  # of the driver, of CuPy and of torch's build
_DRIVER = f"one for CUDA {CUDA_MAJOR} (580 or later)"
_TORCH = f"a build for CUDA {CUDA_MAJOR}, as from https://download.pytorch.org/whl/cu{CUDA_MAJOR}0"

# Machine code of one architecture runs on a capability of the same major and no lower minor;
# the "a" of sm_90a (wgmma, setmaxnreg) runs on 9.0 alone. The best comes first.
_RUNS_ON = {8: ("sm_80",), 9: ("sm_90a", "sm_90")}


class DeviceRefused(RuntimeError):
    """This machine, its driver or its packages cannot run our kernels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """What launchers and the memory plan need to know of a GPU."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    shared_bytes: int  # the most that one block may have
    l2_bytes: int
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """The versions that must fit each other; None is absent. CUDA's are 1000 major + 10 minor."""

    torch: str
    torch_cuda: str | None
    driver: int | None
    cupy: str | None
    cupy_cuda: int | None
    bindings: str | None


def check_device(index: int = 0) -> DeviceInfo:
    """The GPU of that index, or `DeviceRefused`."""
    if reason := refusal(installed()):
        raise DeviceRefused(reason)
    import torch

    count = torch.cuda.device_count()
    if not 0 <= index < count:
        raise DeviceRefused(
            f"there is no GPU {index}: the driver shows {count} (CUDA_VISIBLE_DEVICES hides some)"
        )
    info = device_info(index)
    if reason := capability_refusal(info.name, info.capability):
        raise DeviceRefused(reason)
    return info


@cache
def device_info(index: int) -> DeviceInfo:
    import cupy
    import torch

    properties = torch.cuda.get_device_properties(index)
    return DeviceInfo(
        name=properties.name,
        capability=(properties.major, properties.minor),
        multiprocessors=properties.multi_processor_count,
        shared_bytes=cupy.cuda.Device(index).attributes["MaxSharedMemoryPerBlockOptin"],
        l2_bytes=properties.L2_cache_size,
        memory_bytes=properties.total_memory,
    )


def architecture_for(capability: tuple[int, int], compiled_for: Collection[str]) -> str | None:
    """The best of the architectures a kernel is compiled for that this capability runs."""
    runnable = (each for each in _RUNS_ON.get(capability[0], ()) if each in compiled_for)
    return next(runnable, None)


def capability_refusal(name: str, capability: tuple[int, int]) -> str | None:
    """Why a GPU of this compute capability is refused; None if it is not."""
    if capability[0] in _RUNS_ON:
        return None
    majors = " and ".join(f"{major}.x" for major in _RUNS_ON)
    major, minor = capability
    return (
        f"{name} has compute capability {major}.{minor}, the kernels are compiled for {majors}: "
        "take another GPU, or the CPU"
    )


def refusal(found: Installed) -> str | None:
    """Why kernels cannot run with what is installed, and what to do; None if they can.

    The driver comes first: who has no GPU need install nothing else.
    """
    if found.driver is None:
        return f"no NVIDIA driver was found: install {_DRIVER}, or take the CPU"
    if found.driver < CUDA_MAJOR * 1000:
        return f"the NVIDIA driver is for CUDA {_dotted(found.driver)}: update it to {_DRIVER}"
    if found.torch_cuda is None:
        return f"torch {found.torch} is a build without CUDA: install {_TORCH}"
    if _major(found.torch_cuda) != CUDA_MAJOR:
        return f"torch {found.torch} is built for CUDA {found.torch_cuda}: install {_TORCH}"
    if found.cupy is None or found.cupy_cuda is None:
        return f"CuPy is not installed: install cupy-cuda{CUDA_MAJOR}x, or all of 'ixc[cuda]'"
    if found.cupy_cuda // 1000 != CUDA_MAJOR:
        return (
            f"CuPy {found.cupy} is built for CUDA {_dotted(found.cupy_cuda)}: "
            f"put cupy-cuda{CUDA_MAJOR}x in its place"
        )
    if found.bindings is None:
        return "cuda-bindings is not installed: install it, or all of 'ixc[cuda]'"
    if _major(found.bindings) != CUDA_MAJOR:
        return (
            f"cuda-bindings {found.bindings} is for another CUDA: "
            f"install cuda-bindings {CUDA_MAJOR}, or all of 'ixc[cuda]'"
        )
    return None


def installed() -> Installed:
    """Look at this process's packages and the driver; starts nothing on the GPU."""
    import torch

    cupy, cupy_cuda = _cupy()
    return Installed(
        torch=torch.__version__,
        torch_cuda=torch.version.cuda,
        driver=_driver(),
        cupy=cupy,
        cupy_cuda=cupy_cuda,
        bindings=_bindings(),
    )


def _driver() -> int | None:
    import ctypes

    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    return version.value if library.cuDriverGetVersion(ctypes.byref(version)) == 0 else None


def _cupy() -> tuple[str | None, int | None]:
    try:
        import cupy
    except ImportError:
        return None, None
    return cupy.__version__, cupy.cuda.driver.get_build_version()


def _bindings() -> str | None:
    try:
        return metadata.version("cuda-bindings")
    except metadata.PackageNotFoundError:
        return None


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"
