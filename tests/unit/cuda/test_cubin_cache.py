"""The kernels kept on disk: found again, compiled again whenever anything about them differs."""

import json
import threading
from pathlib import Path

import pytest

from ixc_cuda import cubin_cache
from ixc_cuda.compiler import CompilationFailed
from ixc_cuda.cubin_cache import Wanted, cache_all, cached_kernel

SCALE = Wanted(source="scale.cu", name="scale<float>", architecture="sm_80")


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of kernels with one source and one header."""
    folder = tmp_path / "sources"
    (folder / "include").mkdir(parents=True)
    (folder / "include" / "factor.cuh").write_text("constexpr float factor = 2;\n")
    (folder / "scale.cu").write_text(
        '#include "factor.cuh"\n'
        "template <typename T> __global__ void scale(T* x) { x[threadIdx.x] *= T(factor); }\n"
    )
    monkeypatch.setattr(cubin_cache, "KERNELS", folder)
    return folder


def test_second_time_is_found(sources: Path, tmp_path: Path) -> None:
    """With the same report; the file is what the driver loads."""
    first = cached_kernel(SCALE, tmp_path / "cache")
    second = cached_kernel(SCALE, tmp_path / "cache")
    assert (first.was_compiled, second.was_compiled) == (True, False)
    assert (first.path, first.report) == (second.path, second.report)
    assert first.path.read_bytes().startswith(b"\x7fELF")
    assert first.report.lowered_name.encode() in first.path.read_bytes()


@pytest.mark.parametrize("changed", ["scale.cu", "include/factor.cuh"])
def test_changed_source_is_compiled_again(sources: Path, tmp_path: Path, changed: str) -> None:
    """A header counts as much as the source that includes it."""
    before = cached_kernel(SCALE, tmp_path / "cache")
    (sources / changed).write_text((sources / changed).read_text() + "// mended\n")
    after = cached_kernel(SCALE, tmp_path / "cache")
    assert after.was_compiled
    assert after.path != before.path


@pytest.mark.parametrize(
    "other",
    [
        Wanted(source="scale.cu", name="scale<double>", architecture="sm_80"),
        Wanted(source="scale.cu", name="scale<float>", architecture="sm_90"),
    ],
    ids=["instantiation", "architecture"],
)
def test_entries_of_a_source_are_apart(sources: Path, tmp_path: Path, other: Wanted) -> None:
    folder = tmp_path / "cache"
    assert cached_kernel(SCALE, folder).path != cached_kernel(other, folder).path


def test_other_compiler_compiles_again(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached_kernel(SCALE, tmp_path)
    monkeypatch.setattr(cubin_cache, "nvrtc_version", lambda: (99, 9))
    assert cached_kernel(SCALE, tmp_path).was_compiled


@pytest.mark.parametrize("content", [b"", b"\x7fELF, but not for long", None])
@pytest.mark.parametrize("suffix", [".cubin", ".json"])
def test_damaged_entry_is_compiled_again(
    sources: Path, tmp_path: Path, suffix: str, content: bytes | None
) -> None:
    """Emptied, overwritten or gone: the next start mends it."""
    path = cached_kernel(SCALE, tmp_path).path.with_suffix(suffix)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    mended = cached_kernel(SCALE, tmp_path)
    assert mended.was_compiled
    assert not cached_kernel(SCALE, tmp_path).was_compiled
    assert mended.path.read_bytes().startswith(b"\x7fELF\x02")


def test_report_of_another_program_is_compiled_again(sources: Path, tmp_path: Path) -> None:
    """An older or newer version's file under the same name is not believed."""
    path = cached_kernel(SCALE, tmp_path).path.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "blue"}))
    assert cached_kernel(SCALE, tmp_path).was_compiled


def test_two_who_compile_the_same_agree(sources: Path, tmp_path: Path) -> None:
    """Several processes start at once; nobody reads half a file, and nothing else is left."""
    gate = threading.Barrier(4)
    found = []

    def start() -> None:
        gate.wait()
        found.append(cached_kernel(SCALE, tmp_path / "cache"))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each.path for each in found}) == 1
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".cubin", ".json"]
    assert not cached_kernel(SCALE, tmp_path / "cache").was_compiled


def test_all_keeps_the_order(sources: Path, tmp_path: Path) -> None:
    """Whoever is compiled first, results stand as asked for, and progress tells each."""
    wanted = [
        Wanted(source="scale.cu", name=f"scale<{kind}>", architecture="sm_80")
        for kind in ("float", "double", "int", "short")
    ]
    told: list[Wanted] = []
    kernels = cache_all(wanted, tmp_path / "cache", lambda each, kernel: told.append(each))
    assert told == wanted
    mangled = [kernel.report.lowered_name for kernel in kernels]
    assert mangled == [f"_Z5scaleI{letter}EvPT_" for letter in "fdis"]


def test_broken_source_is_quoted(sources: Path, tmp_path: Path) -> None:
    """The compiler's own words reach whoever starts the server, and nothing is kept."""
    (sources / "scale.cu").write_text(
        "template <typename T> __global__ void scale(T* x) { y = 1; }"
    )
    with pytest.raises(CompilationFailed, match=r'scale<float> for sm_80(.|\n)*"y" is undefined'):
        cached_kernel(SCALE, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_unwritable_folder_is_named(sources: Path, tmp_path: Path) -> None:
    """A file stands where the folder should: root may write anywhere else."""
    (tmp_path / "cache").write_text("")
    with pytest.raises(OSError, match=r"cache.*XDG_CACHE_HOME"):
        cached_kernel(SCALE, tmp_path / "cache")


def test_cache_follows_the_users_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cubin_cache.cache_folder() == tmp_path / "ixc" / "kernels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cubin_cache.cache_folder() == tmp_path / "home" / ".cache" / "ixc" / "kernels"
