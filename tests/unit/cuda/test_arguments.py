"""Arguments in memory lie as a C++ compiler lays out a kernel's parameters."""

import ctypes
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ixc_cuda.arguments import Argument, Layout
from ixc_cuda.tensor_map import TensorMap

_CTYPES = {
    np.int8: ctypes.c_int8,
    np.uint8: ctypes.c_uint8,
    np.int16: ctypes.c_int16,
    np.uint32: ctypes.c_uint32,
    np.int64: ctypes.c_int64,
    np.uint64: ctypes.c_uint64,
    np.float32: ctypes.c_float,
    np.float64: ctypes.c_double,
    int: ctypes.c_int32,
    float: ctypes.c_float,
    bool: ctypes.c_bool,
}


def filled(*arguments: Argument) -> tuple[Layout, bytes]:
    layout = Layout.of(tuple(map(type, arguments)))
    return layout, layout.filled(arguments).memory.raw


@given(kinds=st.lists(st.sampled_from(sorted(_CTYPES, key=str)), min_size=1, max_size=12))
def test_layout_is_that_of_a_c_struct(kinds: list[type]) -> None:
    """Each value at its own alignment, holding what was passed."""
    values = [kind(index % 2) for index, kind in enumerate(kinds)]
    names = [f"f{index}" for index in range(len(kinds))]

    class Parameters(ctypes.Structure):
        _fields_ = [(name, _CTYPES[kind]) for name, kind in zip(names, kinds, strict=True)]

    layout, memory = filled(*values)
    fields = [getattr(Parameters, name) for name in names]
    assert layout.places == tuple((field.offset, field.size) for field in fields)
    read = Parameters.from_buffer_copy(memory.ljust(ctypes.sizeof(Parameters), b"\0"))
    assert [getattr(read, name) for name in names] == values


def test_tensor_is_its_pointer_and_none_is_null() -> None:
    tensor = torch.arange(6)[2:]
    parameter = torch.nn.Parameter(torch.ones(3))
    _, memory = filled(tensor, None, parameter)
    assert np.frombuffer(memory, np.uint64).tolist() == [
        tensor.data_ptr(),
        0,
        parameter.data_ptr(),
    ]


def test_tensor_map_lies_at_a_multiple_of_64() -> None:
    layout, memory = filled(7, TensorMap(bytes(range(128))), 8)
    assert layout.places == ((0, 4), (64, 128), (192, 4))
    assert memory[64:192] == bytes(range(128))


@pytest.mark.parametrize(
    "value", [1 << 31, -(1 << 31) - 1, 1e39], ids=["above", "below", "too large"]
)
def test_value_out_of_range_is_refused(value: float) -> None:
    """A plain int is 32 bits wide and a float single: wider ones are passed as numpy scalars."""
    with pytest.raises(ValueError, match="do not fit"):
        filled(value)


@pytest.mark.parametrize("value", ["text", [1], 1j, np.complex64(1), torch.float32])
def test_what_no_kernel_takes_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        Layout.of((type(value),))


def test_addresses_point_at_the_values() -> None:
    layout = Layout.of((int, float))
    buffer = layout.filled((5, 2.5))
    pointers = (ctypes.c_void_p * 2).from_address(buffer.addresses)
    assert ctypes.c_int32.from_address(pointers[0] or 0).value == 5
    assert ctypes.c_float.from_address(pointers[1] or 0).value == 2.5


def test_buffer_in_use_is_not_handed_out_again() -> None:
    """Two threads that launch the same kernel have a buffer each; afterwards both are reused."""
    layout = Layout.of((int,))
    mine = layout.filled((1,))
    theirs = []
    thread = threading.Thread(target=lambda: theirs.append(layout.filled((2,))))
    thread.start()
    thread.join()
    assert (mine.memory.raw, theirs[0].memory.raw) == (b"\1\0\0\0", b"\2\0\0\0")
    layout.free.extend((mine, *theirs))
    assert {id(layout.filled((3,))), id(layout.filled((4,)))} == {id(mine), id(theirs[0])}
