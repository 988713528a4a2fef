"""What the compiler says of a kernel, and what it is told."""

from pathlib import Path

import pytest

from ixc_cuda import compiler
from ixc_cuda.compiler import CompilationFailed, compile_kernel, source_files

SOURCE = """
#include <cuda_bf16.h>
template <typename T, int N> __global__ void gather(T* out, const T* in, const int* order) {
    __shared__ T room[64];
    T values[N];
    for (int i = 0; i < N; ++i) values[i] = in[i * 64 + threadIdx.x];
    room[threadIdx.x] = values[order[threadIdx.x] % N];
    __syncthreads();
    out[threadIdx.x] = room[order[threadIdx.x]];
}
__global__ void other(float* x) { x[0] = 1; }
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "gather.cu"
    path.write_text(SOURCE)
    return path


def test_report_is_of_the_kernel_asked_for(source: Path) -> None:
    """The file's other kernel is compiled too and uses fewer registers and no shared memory."""
    cubin, gather = compile_kernel(source, "gather<__nv_bfloat16, 4>", "sm_90")
    _, other = compile_kernel(source, "other", "sm_90")
    assert gather.lowered_name.startswith("_Z6gatherI13__nv_bfloat16Li4E")
    assert gather.shared_bytes == 128
    assert other.shared_bytes == 0
    assert gather.registers > other.registers > 0
    assert cubin.startswith(b"\x7fELF")


def test_array_indexed_at_run_time_shows_as_stack(tmp_path: Path) -> None:
    path = tmp_path / "scattered.cu"
    path.write_text(
        "__global__ void scattered(float* x, const int* order) {\n"
        "  float v[32] = {};\n"
        "  for (int i = 0; i < 64; ++i) v[order[i]] += x[i];\n"
        "  for (int i = 0; i < 64; ++i) x[i] = v[order[i + 64]];\n"
        "}\n"
    )
    _, report = compile_kernel(path, "scattered", "sm_80")
    assert report.stack_bytes == 128


def test_spilled_registers_are_counted(tmp_path: Path) -> None:
    """A launch bound that leaves too few registers shows in bytes."""
    path = tmp_path / "tight.cu"
    path.write_text(
        "__global__ void __launch_bounds__(1024, 2) tight(float* x) {\n"
        "  float v[64];\n"
        "  #pragma unroll\n"
        "  for (int i = 0; i < 64; ++i) v[i] = x[i * 1024 + threadIdx.x];\n"
        "  __syncthreads();\n"
        "  #pragma unroll\n"
        "  for (int i = 0; i < 64; ++i) x[i * 1024 + threadIdx.x] = v[i] * v[63 - i];\n"
        "}\n"
    )
    _, report = compile_kernel(path, "tight", "sm_80")
    assert report.registers <= 32
    assert report.spilled_bytes > 0


def test_warnings_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "idle.cu"
    path.write_text("__global__ void idle(float* x) { int unused; x[0] = 1; }")
    _, report = compile_kernel(path, "idle", "sm_80")
    assert "unused" in "".join(report.warnings)


@pytest.mark.parametrize("name", ["gather<nothing, 4>", "absent"])
def test_unknown_kernel_is_named(source: Path, name: str) -> None:
    with pytest.raises(CompilationFailed, match=f"gather.cu: {name} for sm_80"):
        compile_kernel(source, name, "sm_80")


def test_unknown_architecture_is_named(source: Path) -> None:
    with pytest.raises(CompilationFailed, match="sm_10"):
        compile_kernel(source, "other", "sm_10")


def test_includes_are_followed(tmp_path: Path) -> None:
    """Through headers, each once, round trips included; NVIDIA's own are not ours to list."""
    include = tmp_path / "include"
    include.mkdir()
    (tmp_path / "a.cu").write_text(
        '#include "b.cuh"\n#include <cuda_bf16.h>\n  # include "c.cuh"\n'
    )
    (include / "b.cuh").write_text('#include "c.cuh"\n')
    (include / "c.cuh").write_text('#pragma once\n#include "b.cuh"\n// #include "d.cuh"\n')
    assert [path.name for path in source_files(tmp_path / "a.cu")] == ["a.cu", "b.cuh", "c.cuh"]


def test_missing_headers_say_where_they_were_sought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "_header_folders", lambda: [tmp_path / "one", tmp_path / "two"])
    with pytest.raises(CompilationFailed, match=r"one, .*two: install 'ixc\[cuda\]'"):
        compiler.cuda_headers.__wrapped__()


def test_headers_of_a_toolkit_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the wheels are absent, CUDA_PATH names a toolkit."""
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "cuda_bf16.h").write_text("")
    monkeypatch.setenv("CUDA_PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert compiler.cuda_headers.__wrapped__() == tmp_path / "include"
