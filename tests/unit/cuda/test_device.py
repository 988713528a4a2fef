"""Which GPU runs what, and the sentences for machines that do not fit."""

import dataclasses
import re
from typing import Any

import pytest

from ixc_cuda import device
from ixc_cuda.device import Installed, architecture_for, capability_refusal, refusal

FITS = Installed(
    torch="2.13.0+cu130",
    torch_cuda="13.0",
    driver=13000,
    cupy="14.2.0",
    cupy_cuda=13020,
    bindings="13.3.1",
)


def test_machine_that_fits() -> None:
    assert refusal(FITS) is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"torch": "2.13.0+cpu", "torch_cuda": None},
            r"2\.13\.0\+cpu .* without CUDA: install a build for CUDA 13.*/whl/cu130",
        ),
        ({"torch_cuda": "12.8"}, r"built for CUDA 12\.8: install a build for CUDA 13"),
        (
            {"driver": None},
            r"no NVIDIA driver.*: install one for CUDA 13 \(580 or later\), or take the CPU",
        ),
        (
            {"driver": 12080},
            r"driver is for CUDA 12\.8: update it to one for CUDA 13 \(580 or later\)",
        ),
        ({"cupy": None, "cupy_cuda": None}, r"CuPy is not installed.*cupy-cuda13x"),
        ({"cupy_cuda": 12090}, r"CuPy 14\.2\.0 is built for CUDA 12\.9: .*cupy-cuda13x"),
        ({"bindings": None}, r"cuda-bindings is not installed: install it"),
        ({"bindings": "12.9.1"}, r"cuda-bindings 12\.9\.1 .* install cuda-bindings 13"),
        ({"driver": None, "torch_cuda": None, "cupy": None}, r"no NVIDIA driver"),
    ],
)
def test_refusal_says_what_was_found_and_what_is_needed(
    change: dict[str, Any], sentence: str
) -> None:
    reason = refusal(dataclasses.replace(FITS, **change))
    assert reason is not None
    assert "\n" not in reason
    assert re.search(sentence, reason), reason


@pytest.mark.parametrize("capability", [(7, 0), (7, 5), (10, 0), (12, 0)])
def test_other_generations_are_refused(capability: tuple[int, int]) -> None:
    reason = capability_refusal("Some GPU", capability)
    assert reason == (
        f"Some GPU has compute capability {capability[0]}.{capability[1]}, "
        "the kernels are compiled for 8.x and 9.x: take another GPU, or the CPU"
    )


@pytest.mark.parametrize(
    ("capability", "compiled_for", "expected"),
    [
        ((9, 0), ("sm_80", "sm_90", "sm_90a"), "sm_90a"),
        ((9, 0), ("sm_80", "sm_90"), "sm_90"),
        ((9, 0), ("sm_80",), None),  # another major's machine code
        ((8, 0), ("sm_80", "sm_90", "sm_90a"), "sm_80"),
        ((8, 6), ("sm_80", "sm_90"), "sm_80"),
        ((8, 9), ("sm_80",), "sm_80"),
        ((8, 0), ("sm_90", "sm_90a"), None),
        ((12, 0), ("sm_80", "sm_90", "sm_90a"), None),
    ],
)
def test_best_architecture_that_runs(
    capability: tuple[int, int], compiled_for: tuple[str, ...], expected: str | None
) -> None:
    """A GPU runs machine code of its own major only, and Hopper prefers its own instructions."""
    assert architecture_for(capability, compiled_for) == expected


def test_this_machine_is_looked_at() -> None:
    """Looking works anywhere, with a GPU or without."""
    found = device.installed()
    assert found.torch.startswith("2.")
    assert found.bindings is not None
