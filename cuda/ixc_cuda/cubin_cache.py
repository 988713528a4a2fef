"""Compiled kernels on disk, in the user's cache folder, so that only the first start compiles.

An entry is two files, named by a hash of everything that decides the machine code: the cubin, and
beside it what ptxas reported together with the cubin's digest. Both are written under another name
and moved into place, the report last; an entry that does not agree with itself is compiled again.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from ixc_cuda.compiler import (
    KERNELS,
    OPTIONS,
    Report,
    compile_kernel,
    nvrtc_version,
    source_files,
)

_FORMAT = 1  # of the entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One instantiation for one architecture."""

    source: str
    name: str
    architecture: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedKernel:
    """A cubin in a file, and what ptxas said about it."""

    path: Path
    report: Report
    was_compiled: bool  # now, rather than found


Progress = Callable[[Wanted, CachedKernel], None]


def cache_folder() -> Path:
    configured = os.environ.get("XDG_CACHE_HOME")
    return (Path(configured) if configured else Path.home() / ".cache") / "ixc" / "kernels"


def cached_kernel(wanted: Wanted, folder: Path | None = None) -> CachedKernel:
    """The machine code of `wanted`, from the cache or else compiled into it."""
    folder = cache_folder() if folder is None else folder
    key = _key(wanted)
    if found := _read(folder, key):
        return found
    cubin, report = compile_kernel(KERNELS / wanted.source, wanted.name, wanted.architecture)
    return _write(folder, key, cubin, report)


def cache_all(
    wanted: Iterable[Wanted],
    folder: Path | None = None,
    progress: Progress = lambda wanted, kernel: None,
) -> tuple[CachedKernel, ...]:
    """All of `wanted`, on every core: at start-up, so that no request waits for a compiler."""
    kernels = []
    entries = tuple(wanted)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "kernel-compiler") as pool:
        results = pool.map(lambda entry: cached_kernel(entry, folder), entries)
        for entry, kernel in zip(entries, results, strict=True):
            progress(entry, kernel)
            kernels.append(kernel)
    return tuple(kernels)


def _key(wanted: Wanted) -> str:
    digest = hashlib.sha256()
    major, minor = nvrtc_version()
    settings = (_FORMAT, wanted.name, wanted.architecture, *OPTIONS, f"NVRTC {major}.{minor}")
    digest.update(json.dumps(settings).encode())
    for path in source_files(KERNELS / wanted.source):
        text = path.read_bytes()
        digest.update(f"\n{path.name} {len(text)}\n".encode())
        digest.update(text)
    return digest.hexdigest()


def _read(folder: Path, key: str) -> CachedKernel | None:
    cubin_path, report_path = _paths(folder, key)
    try:
        fields = json.loads(report_path.read_bytes())
        if fields.pop("sha256") != hashlib.sha256(cubin_path.read_bytes()).hexdigest():
            return None
        fields["warnings"] = tuple(fields["warnings"])
        return CachedKernel(path=cubin_path, report=Report(**fields), was_compiled=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Absent, cut short, or of another program: as good as absent.
        return None


def _write(folder: Path, key: str, cubin: bytes, report: Report) -> CachedKernel:
    cubin_path, report_path = _paths(folder, key)
    fields = asdict(report) | {"sha256": hashlib.sha256(cubin).hexdigest()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(cubin_path, cubin)
        _replace(report_path, json.dumps(fields).encode())
    except OSError as error:
        raise OSError(
            f"cannot keep compiled kernels in {folder} ({error}): name a writable folder by "
            "XDG_CACHE_HOME"
        ) from error
    return CachedKernel(path=cubin_path, report=report, was_compiled=True)


def _replace(path: Path, content: bytes) -> None:
    """Write a whole file or none; whoever writes the same entry writes the same bytes."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".writing-", delete=False) as file:
        staged = Path(file.name)
        try:
            file.write(content)
            file.close()
            staged.replace(path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise


def _paths(folder: Path, key: str) -> tuple[Path, Path]:
    return folder / f"{key}.cubin", folder / f"{key}.json"
