"""Every kernel that may be launched, compiled for every architecture it names, without a GPU."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ixc_cuda.catalogue import all_instantiations
from ixc_cuda.compiler import KERNELS, source_files
from ixc_cuda.cubin_cache import CachedKernel, Wanted, cache_all

WANTED = tuple(
    Wanted(source=each.source, name=each.name, architecture=architecture)
    for each in all_instantiations()
    for architecture in each.architectures
)
HOPPER = tuple(each for each in WANTED if each.architecture == "sm_90a")
SOURCES = tuple(sorted(KERNELS.rglob("*.cu*")))

# CUDA's own accurate sine and cosine keep the digits of 2/pi in an array, for very large angles.
STACK_BYTES = {"step_inputs.cu": 32}

each_wanted = pytest.mark.parametrize(
    "wanted", WANTED, ids=lambda each: f"{each.source}:{each.name}:{each.architecture}"
)


@pytest.fixture(scope="module")
def compiled() -> Mapping[Wanted, CachedKernel]:
    """All of them at once, in the user's cache: an entry's name says all that it is made of."""
    return dict(zip(WANTED, cache_all(WANTED), strict=True))


@each_wanted
def test_everything_stays_in_registers(
    wanted: Wanted, compiled: Mapping[Wanted, CachedKernel]
) -> None:
    """No register is spilled, and no array of ours lives in local memory."""
    report = compiled[wanted].report
    assert report.spilled_bytes == 0
    assert report.stack_bytes == STACK_BYTES.get(wanted.source, 0)


@each_wanted
def test_compilers_have_nothing_to_say(
    wanted: Wanted, compiled: Mapping[Wanted, CachedKernel]
) -> None:
    """Not even that wgmma is serialised or `setmaxnreg` ignored, which cost half the speed."""
    assert compiled[wanted].report.warnings == ()


@pytest.mark.parametrize("wanted", HOPPER, ids=lambda each: f"{each.source}:{each.name}")
def test_what_asks_for_sm_90a_uses_it(
    wanted: Wanted, compiled: Mapping[Wanted, CachedKernel]
) -> None:
    """The only reason to compile for it are warpgroup products, HGMMA in machine code."""
    assert "HGMMA" in machine_code(compiled[wanted].path)


def test_every_source_has_a_launcher() -> None:
    """A kernel that nobody lists is not compiled here, and nobody would notice when it breaks."""
    on_disk = {path.name for path in KERNELS.glob("*.cu")}
    assert on_disk == {each.source for each in all_instantiations()}


def test_every_header_is_included() -> None:
    used = {file for path in KERNELS.glob("*.cu") for file in source_files(path)}
    assert set(KERNELS.glob("include/*.cuh")) <= used


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_left_from_debugging(path: Path) -> None:
    """`printf` and `assert` cost registers and stack; these two headers are not installed."""
    code = re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert re.findall(r"\b(?:printf|assert|__trap|clock64)\s*\(", code) == []
    assert re.findall(r"#\s*if 0|<mma\.h>|<cuda\.h>|\bTODO\b", code) == []


def test_no_kernel_is_written_in_python() -> None:
    """Sources are files, so that editors, reviewers and this test see them."""
    modules = Path(KERNELS.parent).glob("*.py")
    assert [each.name for each in modules if "__global__" in each.read_text(encoding="utf-8")] == []


def test_launchers_import_without_cupy() -> None:
    """They come with the backend; what needs a GPU is loaded by the first kernel."""
    script = (
        "import sys; from ixc_cuda.catalogue import all_instantiations; all_instantiations();"
        "print('cupy' in sys.modules)"
    )
    environment = {"PYTHONPATH": str(KERNELS.parent.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


def machine_code(cubin: Path) -> str:
    """The disassembly; nvdisasm comes as a wheel whose commands are not on the path."""
    spec = importlib.util.find_spec("nvidia")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    paths = [Path(folder, "cu13", "bin", "nvdisasm") for folder in folders]
    found = next((str(path) for path in paths if path.is_file()), shutil.which("nvdisasm"))
    assert found, "nvdisasm is missing: install the dev group"
    run = subprocess.run([found, "-c", cubin], capture_output=True, text=True, check=True)
    return run.stdout
