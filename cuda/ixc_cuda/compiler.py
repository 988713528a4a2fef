"""NVRTC: one kernel of one source file, instantiated for one architecture, as machine code.

Needs NVRTC and the CUDA runtime's headers, but neither a driver nor a GPU: CI compiles every kernel
this way. Knows nothing of launching; `cubin_cache` remembers what is compiled here.
"""

import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

KERNELS = Path(__file__).parent / "kernels"

# No --use_fast_math: a kernel that wants an approximation says so by its intrinsic.
# ptxas reports registers, spills and shared memory into the program's log, but not where the
# driver's own cache answers in its place.
OPTIONS = ("-std=c++17", "--ptxas-options=-v", "--no-cache")

# That wgmma is serialised is called a piece of information.
_WARNING = re.compile(r"warning|performance loss", re.IGNORECASE)

_QUOTED_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


class CompilationFailed(RuntimeError):
    """NVRTC rejected a source, or NVRTC or its headers are not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What ptxas says about a kernel."""

    lowered_name: str  # the mangled symbol, by which the driver finds the kernel
    registers: int  # of one thread
    spilled_bytes: int  # of one thread, stores and loads together
    stack_bytes: int  # of one thread: arrays that did not become registers
    shared_bytes: int  # of one block, static
    warnings: tuple[str, ...]


def compile_kernel(source: Path, name: str, architecture: str) -> tuple[bytes, Report]:
    """The cubin of the instantiation `name` of the file `source` for `architecture` (as sm_90a)."""
    includes = (_headers_of(source), cuda_headers())
    options = (*OPTIONS, f"-arch={architecture}", *(f"-I{folder}" for folder in includes))
    program = _Program(source)
    try:
        succeeded, log = program.compile(name, options)
        if not succeeded:
            raise CompilationFailed(f"{source.name}: {name} for {architecture}:\n{log}")
        return program.cubin(), _read_report(log, program.lowered_name(name))
    finally:
        program.destroy()


def source_files(source: Path) -> tuple[Path, ...]:
    """The source and every file of ours that it includes, directly or not."""
    found = [source]
    for path in found:  # grows while we walk
        for included in _QUOTED_INCLUDE.findall(path.read_text(encoding="utf-8")):
            file = _headers_of(source) / included
            if file not in found and file.is_file():
                found.append(file)
    return tuple(found)


def _headers_of(source: Path) -> Path:
    return source.parent / "include"


@cache
def cuda_headers() -> Path:
    """The folder of cuda_bf16.h: NVIDIA's wheels, CUDA_PATH, CUDA_HOME or /usr/local/cuda."""
    folders = tuple(_header_folders())
    for folder in folders:
        if (folder / "cuda_bf16.h").is_file():
            return folder
    raise CompilationFailed(
        "the CUDA headers (cuda_bf16.h) are in none of "
        f"{', '.join(map(str, folders))}: install 'ixc[cuda]', which brings them"
    )


def _header_folders() -> Iterator[Path]:
    wheels = importlib.util.find_spec("nvidia")
    for folder in (wheels and wheels.submodule_search_locations) or ():
        yield Path(folder) / "cu13" / "include"
    for variable in ("CUDA_PATH", "CUDA_HOME"):
        if named := os.environ.get(variable):
            yield Path(named) / "include"
    yield Path("/usr/local/cuda/include")


@cache
def nvrtc_version() -> tuple[int, int]:
    result, major, minor = _nvrtc().nvrtcVersion()
    _check(result, "nvrtcVersion")
    return major, minor


class _Program:
    """One `nvrtcProgram`. The calls release the interpreter's lock, so threads compile at once."""

    def __init__(self, source: Path) -> None:
        self._nvrtc = _nvrtc()
        text = source.read_bytes()
        result, self._program = self._nvrtc.nvrtcCreateProgram(
            text, source.name.encode(), 0, [], []
        )
        _check(result, "nvrtcCreateProgram")

    def compile(self, name: str, options: tuple[str, ...]) -> tuple[bool, str]:
        (result,) = self._nvrtc.nvrtcAddNameExpression(self._program, name.encode())
        _check(result, f"nvrtcAddNameExpression({name})")
        encoded = [option.encode() for option in options]
        (result,) = self._nvrtc.nvrtcCompileProgram(self._program, len(encoded), encoded)
        return result == self._nvrtc.nvrtcResult.NVRTC_SUCCESS, self._log()

    def lowered_name(self, name: str) -> str:
        result, lowered = self._nvrtc.nvrtcGetLoweredName(self._program, name.encode())
        _check(result, f"nvrtcGetLoweredName({name})")
        return str(lowered, "ascii")

    def cubin(self) -> bytes:
        result, size = self._nvrtc.nvrtcGetCUBINSize(self._program)
        _check(result, "nvrtcGetCUBINSize")
        # The binding writes into the bytes that it is given.
        cubin: bytes = b" " * size
        (result,) = self._nvrtc.nvrtcGetCUBIN(self._program, cubin)
        _check(result, "nvrtcGetCUBIN")
        return cubin

    def destroy(self) -> None:
        self._nvrtc.nvrtcDestroyProgram(self._program)

    def _log(self) -> str:
        result, size = self._nvrtc.nvrtcGetProgramLogSize(self._program)
        _check(result, "nvrtcGetProgramLogSize")
        log: bytes = b" " * size
        (result,) = self._nvrtc.nvrtcGetProgramLog(self._program, log)
        _check(result, "nvrtcGetProgramLog")
        return log.rstrip(b"\0 ").decode(errors="replace")


def _read_report(log: str, lowered_name: str) -> Report:
    """Sum up what ptxas reports, of the kernel and of whatever functions it did not inline."""
    used = next(_lines_about(log, lowered_name), "")
    registers = re.search(r"Used (\d+) registers", used)
    if registers is None:
        raise CompilationFailed(f"ptxas did not report on {lowered_name}:\n{log}")
    shared = re.search(r"(\d+) bytes smem", used)
    return Report(
        lowered_name=lowered_name,
        registers=int(registers[1]),
        shared_bytes=int(shared[1]) if shared else 0,
        stack_bytes=sum(map(int, re.findall(r"(\d+) bytes stack frame", log))),
        spilled_bytes=sum(map(int, re.findall(r"(\d+) bytes spill (?:stores|loads)", log))),
        warnings=tuple(line for line in log.splitlines() if _WARNING.search(line)),
    )


def _lines_about(log: str, lowered_name: str) -> Iterator[str]:
    """The lines "Used … registers" of one entry function; a source may hold several."""
    entry = ""
    for line in log.splitlines():
        if found := re.search(r"Compiling entry function '([^']+)'", line):
            entry = found[1]
        elif entry == lowered_name and " registers" in line:
            yield line


def _nvrtc() -> Any:
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise CompilationFailed(
            "the Python package cuda-bindings is not installed: install 'ixc[cuda]'"
        ) from error
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError as error:
        raise CompilationFailed(
            f"NVRTC, the CUDA compiler's library, was not found: install 'ixc[cuda]' ({error})"
        ) from error
    return nvrtc


def _check(result: Any, call: str) -> None:
    if int(result) != 0:
        raise CompilationFailed(f"{call} failed with {result.name}")
