"""Linear layers of few rows against float64, with NaN around everything that is written."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import silu

from ixc_cuda.few_rows import few_rows_linear
from ixc_runtime.ops import Norm
from ixc_runtime.ops.cpu import CpuOps

pytestmark = pytest.mark.gpu

EPS = 1e-5
GUARD = 1024

# Of an element, and of the whole result's root mean square: half a unit in the last place is 0.2 %
# in bf16, and a normalised value may fall to the other side of a tie.
RELATIVE, OF_RMS = 0.006, 0.012


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    rows: int
    n: int
    k: int
    norm: bool = False
    add: bool = False
    swiglu: bool = False
    dtype: torch.dtype = torch.bfloat16
    seed: int = 0


def result_and_reference(problem: Problem) -> tuple[Tensor, Tensor]:
    generator = torch.Generator("cuda").manual_seed(problem.seed)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        drawn = torch.randn(shape, generator=generator, device="cuda", dtype=torch.float32)
        return (drawn * scale).to(problem.dtype)

    rows, n, k = problem.rows, problem.n, problem.k
    x, weight = normal(rows, k, scale=1.5), normal(n, k, scale=k**-0.5)
    norm = normal(k).abs() + 0.5 if problem.norm else None
    outputs = n // 2 if problem.swiglu else n
    around = torch.full((rows * outputs + 2 * GUARD,), torch.nan, device="cuda").to(problem.dtype)
    y = around[GUARD:-GUARD].view(rows, outputs)
    residual = normal(rows, outputs)
    if problem.add:
        y.copy_(residual)
    torch.cuda.synchronize()  # weights are read before the kernel in front has ended

    few_rows_linear(
        x,
        weight,
        norm=norm,
        eps=EPS,
        swiglu=problem.swiglu,
        add_to=y if problem.add else None,
        out=None if problem.add else y,
    )
    assert around[:GUARD].isnan().all() and around[-GUARD:].isnan().all()

    read = x if norm is None else CpuOps().rms_norm(x, Norm(weight=norm, eps=EPS))
    reference = read.double() @ weight.double().T
    if problem.swiglu:
        gate, up = reference.chunk(2, -1)
        reference = silu(gate) * up
    return y, reference + residual.double() if problem.add else reference


def assert_equal(problem: Problem) -> None:
    y, reference = result_and_reference(problem)
    # Gate and up are rounded, then silu, then the product.
    factor = 3 if problem.swiglu else 1
    allowed = RELATIVE * reference.abs() + OF_RMS * reference.square().mean().sqrt()
    wrong = ~((y.double() - reference).abs() <= factor * allowed)
    assert not wrong.any(), f"first wrong {wrong.nonzero()[0].tolist()}, in all {int(wrong.sum())}"


@pytest.mark.parametrize("rows", range(1, 17))
@pytest.mark.parametrize(("norm", "add", "swiglu"), [(1, 0, 0), (0, 1, 0), (1, 0, 1), (1, 1, 0)])
def test_every_number_of_rows(rows: int, norm: int, add: int, swiglu: int) -> None:
    """With everything that a decoder layer asks for around the product."""
    assert_equal(
        Problem(rows=rows, n=1000, k=4096, norm=bool(norm), add=bool(add), swiglu=bool(swiglu))
    )


@pytest.mark.parametrize("rows", [1, 8, 16])
@pytest.mark.parametrize(
    ("n", "k"),
    # The 7B model's, the demo's, and what fits no tile, no window, no chunk, no slice.
    [
        *[(6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (92544, 4096)],
        *[(960, 576), (576, 576), (3072, 576), (576, 1536), (49152, 576)],
        *[
            (1, 8),
            (2, 4104),
            (17, 24),
            (34, 520),
            (130, 1000),
            (48, 8200),
            (15, 14336),
            (16, 16384),
            (24, 20000),
        ],
    ],
)
def test_every_shape(rows: int, n: int, k: int) -> None:
    """Slices of k meet in clusters; the last tile, window and chunk may be part empty."""
    assert_equal(Problem(rows=rows, n=n, k=k, norm=True))
    assert_equal(Problem(rows=rows, n=n, k=k, add=True, dtype=torch.float16))
    if n % 2 == 0:
        assert_equal(Problem(rows=rows, n=n, k=k, swiglu=True))


@given(
    rows=st.integers(1, 16),
    n=st.integers(1, 300),
    eighths=st.integers(1, 1200),
    norm=st.booleans(),
    end=st.sampled_from(["plain", "add", "swiglu"]),
    dtype=st.sampled_from([torch.bfloat16, torch.float16]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=200, deadline=None)
def test_drawn_shapes(
    rows: int, n: int, eighths: int, norm: bool, end: str, dtype: torch.dtype, seed: int
) -> None:
    assert_equal(
        Problem(
            rows=rows,
            n=2 * n if end == "swiglu" else n,
            k=8 * eighths,
            norm=norm,
            add=end == "add",
            swiglu=end == "swiglu",
            dtype=dtype,
            seed=seed,
        )
    )


@pytest.mark.parametrize("rows", [1, 16])
def test_rows_do_not_depend_on_each_other_or_on_timing(rows: int) -> None:
    """The same bits each time, and for a row alone: sums are always taken in the same order."""
    problem = Problem(rows=rows, n=4096, k=14336, norm=True)
    first, _ = result_and_reference(problem)
    for _ in range(5):
        again, _ = result_and_reference(problem)
        assert torch.equal(first, again)


def test_overlapping_launches_wait_for_each_other() -> None:
    """A chain of launches in a graph gives the bits of the same launches one by one."""
    generator = torch.Generator("cuda").manual_seed(0)

    def weight(*shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=generator, device="cuda") * shape[-1] ** -0.5
        return drawn.to(torch.bfloat16)

    layers = [(weight(4096, 1024), weight(1024, 2048), weight(1024)) for _ in range(6)]
    start = weight(3, 1024)

    def chain(x: Tensor, pause: bool) -> None:
        x.copy_(start)
        for up, down, norm in layers:
            inner = few_rows_linear(x, up, norm=norm, eps=EPS, swiglu=True)
            if pause:
                torch.cuda.synchronize()
            few_rows_linear(inner, down, add_to=x)
            if pause:
                torch.cuda.synchronize()

    expected, x = torch.empty_like(start), torch.empty_like(start)
    torch.cuda.synchronize()
    chain(expected, pause=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        chain(x, pause=False)
    for _ in range(50):
        x.fill_(torch.nan)
        graph.replay()
        assert torch.equal(x, expected)


def test_no_rows_are_no_work() -> None:
    empty = torch.empty(0, 64, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(32, 64, device="cuda", dtype=torch.bfloat16)
    assert few_rows_linear(empty, weight).shape == (0, 32)


def test_what_does_not_fit_is_refused() -> None:
    """By name and limit, before anything is launched."""
    x = torch.randn(17, 64, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(32, 64, device="cuda", dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="at most 16 rows"):
        few_rows_linear(x, weight)
    with pytest.raises(ValueError, match=r"weight is torch\.bfloat16 \(32, 56\)"):
        few_rows_linear(x[:4], weight[:, :56].contiguous())
    with pytest.raises(ValueError, match=r"x is torch\.float32"):
        few_rows_linear(x[:4].float(), weight.float())
