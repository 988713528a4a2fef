"""Loading and launching: arguments, shared memory, streams, threads, graphs, tensor maps."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ixc_cuda import cubin_cache, kernel
from ixc_cuda.catalogue import Instantiation
from ixc_cuda.device import check_device, device_info
from ixc_cuda.kernel import Kernel, LaunchFailed, TensorMap, load_kernel, tensor_map

Load = Callable[[str], Kernel]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads kernels of this folder's own source, as if a launcher listed them."""
    source = "launching.cu"

    def find(source: str, name: str) -> Instantiation:
        return Instantiation(source=source, name=name, architectures=("sm_90",))

    monkeypatch.setattr(cubin_cache, "KERNELS", Path(__file__).parent / "kernels")
    monkeypatch.setattr(kernel, "find", find)
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("tensor maps and overlap are Hopper's")
    return lambda name: load_kernel(source, name)


def test_device_is_described() -> None:
    info = check_device(0)
    assert info.multiprocessors > 0
    assert info.shared_bytes > 48 << 10
    assert info.l2_bytes > 1 << 20
    assert info.memory_bytes > 1 << 30


def test_every_kind_of_argument_arrives(load: Load) -> None:
    seen = torch.full((12,), -1, dtype=torch.int64, device="cuda")
    words = np.arange(100, 116, dtype=np.uint64)
    arguments = (
        *(seen, None, -7, np.int64(-(1 << 40)), 1.5, np.float64(2.5), np.uint8(200)),
        *(np.uint64((1 << 63) + 5), True, TensorMap(words.tobytes()), np.int16(-9)),
    )
    load("arguments<42>").launch((1, 1, 1), 1, arguments)
    high = (1 << 63) + 5 - (1 << 64)
    assert seen.tolist() == [1, -7, -(1 << 40), 3, 5, 200, high, 1, 115, 0, -9, 42]


@pytest.mark.parametrize("count", [1, 12_000, 58_000])
def test_shared_memory_beyond_the_usual(load: Load, count: int) -> None:
    """48 KB come without asking, 227 KB after it; the launcher need not know."""
    out = torch.empty(count, device="cuda")
    load("through_shared_memory").launch((1, 1, 1), 128, (out, count), shared_bytes=4 * count)
    assert torch.equal(out.cpu(), torch.arange(count - 1, -1, -1).float())


def test_too_much_shared_memory_is_told_with_the_limit(load: Load) -> None:
    reverse = load("through_shared_memory")
    limit = device_info(0).shared_bytes
    with pytest.raises(LaunchFailed, match=f"through_shared_memory .* {limit + 4} .* most {limit}"):
        reverse.launch((1, 1, 1), 32, (None, 0), shared_bytes=limit + 4)


@pytest.mark.parametrize(("grid", "block"), [((1, 1, 1), 2048), ((0, 1, 1), 32)])
def test_impossible_launch_names_kernel_grid_and_block(
    load: Load, grid: tuple[int, int, int], block: int
) -> None:
    with pytest.raises(LaunchFailed) as failed:
        load("increment").launch(grid, block, (None, None, 0))
    assert "increment: " in str(failed.value)
    assert f"of grid {grid}, block {block}, 0 bytes" in str(failed.value)


@pytest.mark.parametrize("arguments", [(), (None,), (None, None, 0, 0), (None, None, True)])
def test_arguments_that_the_kernel_does_not_take(load: Load, arguments: tuple[object, ...]) -> None:
    """Too few, too many, or one of another size: told before memory is misread."""
    with pytest.raises(LaunchFailed, match="increment takes parameters of"):
        load("increment").launch((1, 1, 1), 32, arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("overlap", [False, True])
def test_chain_in_a_graph(load: Load, overlap: bool) -> None:
    """Captured on torch's stream; each kernel sees all of what the one in front wrote."""
    increment, count, length = load("increment"), 1 << 20, 100
    buffers = [torch.zeros(count, device="cuda") for _ in range(2)]

    def chain() -> None:
        for step in range(length):
            arguments = (buffers[(step + 1) % 2], buffers[step % 2], count)
            increment.launch((count // 256, 1, 1), 256, arguments, overlap=overlap)

    chain()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        chain()
    for replays in range(3):
        assert buffers[0].unique().tolist() == [length * (replays + 1)]
        graph.replay()


def test_launch_goes_to_the_current_stream(load: Load) -> None:
    """Behind what that stream still has to do, and in front of what it is given next."""
    increment, side = load("increment"), torch.cuda.Stream()
    first, second = (torch.zeros(256, device="cuda") for _ in range(2))
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(10_000_000)
        first.fill_(41)
        increment.launch((1, 1, 1), 256, (second, first, 256))
        seen = second.clone()
    side.synchronize()
    assert seen.unique().tolist() == [42]


def test_fresh_thread_launches(load: Load) -> None:
    """A thread that has not touched the GPU yet has no context of its own."""
    increment = load("increment")
    first, second = (torch.zeros(256, device="cuda") for _ in range(2))
    torch.cuda.synchronize()
    thread = threading.Thread(target=increment.launch, args=((1, 1, 1), 256, (second, first, 256)))
    thread.start()
    thread.join()
    torch.cuda.synchronize()
    assert second.unique().tolist() == [1]


def test_threads_do_not_mix_their_arguments(load: Load) -> None:
    """Eight threads launch the same kernel on their own streams as fast as they can."""
    increment, wrong = load("increment"), []

    def launch(value: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            first = torch.full((256,), float(value), device="cuda")
            for _ in range(200):
                second = torch.zeros(256, device="cuda")
                increment.launch((1, 1, 1), 256, (second, first, 256))
                if second.unique().tolist() != [value + 1]:
                    wrong.append(value)

    threads = [threading.Thread(target=launch, args=(value,)) for value in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("swizzle", "rows", "columns"),
    [(0, 8, 64), (0, 200, 128), (32, 8, 16), (64, 16, 32), (128, 32, 64), (128, 256, 64)],
)
def test_tensor_map_copies_a_box(load: Load, swizzle: int, rows: int, columns: int) -> None:
    """By value to the kernel; zeros beyond the matrix; 16-byte units permuted as documented."""
    words = torch.arange(256 * 512, dtype=torch.int32).to(torch.int16).view(256, 512)
    matrix = words.view(torch.bfloat16).cuda()
    described = tensor_map(matrix, (rows, columns), swizzle=swizzle)  # type: ignore[arg-type]
    out = torch.full((rows * columns,), -1, dtype=torch.int16, device="cuda")
    row, column, count = 3, 64, rows * columns
    load("copy_box").launch(
        *((1, 1, 1), 64, (out, described, row, column, count)), shared_bytes=2 * count
    )
    expected = torch.zeros(rows, columns, dtype=torch.int16)
    part = words[row : row + rows, column : column + columns]
    expected[: part.shape[0]] = part
    units = expected.view(-1, 8)
    # Unit u of a line of 128 bytes lies at u xor the line's number, in as many bits as a span has.
    places = torch.arange(units.shape[0])
    permuted = places ^ (places // 8) % (swizzle // 16 or 1)
    assert torch.equal(out.cpu().view(-1, 8)[permuted], units)


def test_map_that_the_driver_refuses_shows_what_it_was_asked_for() -> None:
    matrix = torch.zeros(64, 64, dtype=torch.bfloat16, device="cuda")
    with pytest.raises(ValueError, match=r"driver refuses .*\(64, 64\).*interleave 16"):
        tensor_map(matrix, (8, 64), interleave=16)
