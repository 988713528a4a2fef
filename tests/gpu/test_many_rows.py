"""Linear layers of many rows against float64, with NaN around everything that is written."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import silu

from ixc_cuda.device import device_info
from ixc_cuda.many_rows import HOPPER, many_rows_linear
from ixc_cuda.rms_norm import rms_norm

pytestmark = pytest.mark.gpu

GUARD = 1024

# Of an element, and of the whole result's root mean square: half a unit in the last place is 0.2 %
# in bf16.
RELATIVE, OF_RMS = 0.006, 0.006


@pytest.fixture(autouse=True, scope="module")
def _only_hopper() -> None:
    if device_info(0).capability != HOPPER:
        pytest.skip("many_rows is compiled for compute capability 9.0 alone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    rows: int
    outputs: int
    k: int
    add: bool = False
    swiglu: bool = False
    dtype: torch.dtype = torch.bfloat16
    seed: int = 0


def result_and_reference(problem: Problem) -> tuple[Tensor, Tensor]:
    generator = torch.Generator("cuda").manual_seed(problem.seed)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        drawn = torch.randn(shape, generator=generator, device="cuda", dtype=torch.float32)
        return (drawn * scale).to(problem.dtype)

    rows, outputs, k = problem.rows, problem.outputs, problem.k
    n = 2 * outputs if problem.swiglu else outputs
    x, weight = normal(rows, k, scale=1.5), normal(n, k, scale=k**-0.5)
    around = torch.full((rows * outputs + 2 * GUARD,), torch.nan, device="cuda").to(problem.dtype)
    y = around[GUARD:-GUARD].view(rows, outputs)
    residual = normal(rows, outputs)
    if problem.add:
        y.copy_(residual)
    torch.cuda.synchronize()  # weights are read before the kernel in front has ended

    many_rows_linear(
        x,
        weight,
        swiglu=problem.swiglu,
        add_to=y if problem.add else None,
        out=None if problem.add else y,
    )
    assert around[:GUARD].isnan().all() and around[-GUARD:].isnan().all()

    reference = x.double() @ weight.double().T
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


@pytest.mark.parametrize("rows", range(1, 129))
@pytest.mark.parametrize("end", ["plain", "add", "swiglu"])
def test_every_number_of_rows(rows: int, end: str) -> None:
    """With everything that a decoder layer asks for behind the product."""
    assert_equal(Problem(rows=rows, outputs=1000, k=1096, add=end == "add", swiglu=end == "swiglu"))


@pytest.mark.parametrize("rows", [9, 17, 32, 64, 65, 128])
@pytest.mark.parametrize(
    ("outputs", "k"),
    # The 7B model's, the demo's, and what fits no tile, no box, no slice.
    [
        *[(6144, 4096), (4096, 4096), (14336, 4096), (4096, 14336), (92544, 4096)],
        *[(960, 576), (576, 576), (1536, 576), (576, 1536), (49152, 576)],
        *[(8, 8), (8, 4104), (16, 24), (128, 520), (136, 1000), (48, 8200), (12680, 72)],
    ],
)
def test_every_shape(rows: int, outputs: int, k: int) -> None:
    """Slices of k meet in clusters; the last tile and box may be part empty."""
    assert_equal(Problem(rows=rows, outputs=outputs, k=k))
    assert_equal(Problem(rows=rows, outputs=outputs, k=k, add=True, dtype=torch.float16))
    if outputs < 50_000:
        assert_equal(Problem(rows=rows, outputs=outputs, k=k, swiglu=True))


@given(
    rows=st.integers(1, 128),
    output_eighths=st.integers(1, 1000),
    eighths=st.integers(1, 600),
    end=st.sampled_from(["plain", "add", "swiglu"]),
    dtype=st.sampled_from([torch.bfloat16, torch.float16]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=200, deadline=None)
def test_drawn_shapes(
    rows: int, output_eighths: int, eighths: int, end: str, dtype: torch.dtype, seed: int
) -> None:
    assert_equal(
        Problem(
            rows=rows,
            outputs=8 * output_eighths,
            k=8 * eighths,
            add=end == "add",
            swiglu=end == "swiglu",
            dtype=dtype,
            seed=seed,
        )
    )


@pytest.mark.parametrize("rows", [17, 64, 128])
@pytest.mark.parametrize(("outputs", "k"), [(6144, 4096), (4096, 14336), (92544, 4096)])
def test_results_do_not_depend_on_timing(rows: int, outputs: int, k: int) -> None:
    """The same bits each time: sums are always taken in the same order."""
    problem = Problem(rows=rows, outputs=outputs, k=k)
    first, _ = result_and_reference(problem)
    for _ in range(5):
        again, _ = result_and_reference(problem)
        assert torch.equal(first, again)


@pytest.mark.parametrize("rows", [17, 64, 128])
def test_overlapping_launches_wait_for_each_other(rows: int) -> None:
    """A chain of launches in a graph gives the bits of the same launches one by one."""
    generator = torch.Generator("cuda").manual_seed(0)

    def weight(*shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=generator, device="cuda") * shape[-1] ** -0.5
        return drawn.to(torch.bfloat16)

    layers = [(weight(8192, 1024), weight(1024, 4096), weight(1024)) for _ in range(6)]
    start = weight(rows, 1024)

    def chain(x: Tensor, pause: bool) -> None:
        def launched() -> None:
            if pause:
                torch.cuda.synchronize()

        x.copy_(start)
        for up, down, norm in layers:
            launched()
            normed = rms_norm(x, norm, 1e-5)
            launched()
            inner = many_rows_linear(normed, up, swiglu=True)
            launched()
            many_rows_linear(inner, down, add_to=x)
            launched()

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
    assert many_rows_linear(empty, weight).shape == (0, 32)


def test_what_does_not_fit_is_refused() -> None:
    """By name and limit, before anything is launched."""
    x = torch.randn(129, 64, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(32, 64, device="cuda", dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="at most 128 rows"):
        many_rows_linear(x, weight)
    with pytest.raises(ValueError, match="multiples of 8"):
        many_rows_linear(x[:32], weight[:30].contiguous())
    with pytest.raises(ValueError, match=r"weight is torch\.bfloat16 \(32, 56\)"):
        many_rows_linear(x[:32], weight[:, :56].contiguous())
    with pytest.raises(ValueError, match=r"x is torch\.float32"):
        many_rows_linear(x[:32].float(), weight.float())
