"""A kernel's arguments in memory, as the driver reads them: a buffer, and each argument's address.

What an argument becomes is decided by its Python type alone, so that the work of deciding is done
once for each combination of types and a launch only fills a buffer.
"""

import ctypes
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import torch

from ixc_cuda.tensor_map import ALIGNMENT, NUM_BYTES, TensorMap

# A tensor is its pointer, None a null pointer, an int is an int32, a float a float32, a numpy
# scalar itself, a tensor map its 128 bytes.
Argument = torch.Tensor | TensorMap | np.generic | int | float | None

# numpy's names of scalars, as `struct` calls them.
_LETTERS = {
    **{"b1": "?", "f2": "e", "f4": "f", "f8": "d"},
    **{"i1": "b", "i2": "h", "i4": "i", "i8": "q"},
    **{"u1": "B", "u2": "H", "u4": "I", "u8": "Q"},
}


class Buffer:
    """Room for one launch's arguments, and the addresses of each, as the driver takes them."""

    def __init__(self, num_bytes: int, offsets: Sequence[int]) -> None:
        self.memory = ctypes.create_string_buffer(max(num_bytes, 1))
        start = ctypes.addressof(self.memory)
        self._pointers = (ctypes.c_void_p * len(offsets))(*(start + each for each in offsets))
        self.addresses = ctypes.addressof(self._pointers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where arguments of certain types stand in a buffer; buffers are used again and again."""

    packer: struct.Struct
    # What `struct` cannot pack as it is: its place, and how to get what it can.
    conversions: tuple[tuple[int, Callable[[Any], Any]], ...]
    places: tuple[tuple[int, int], ...]  # offset and bytes of each
    # A list's pop and append are atomic: two threads never fill the same buffer.
    free: list[Buffer]

    @classmethod
    def of(cls, kinds: tuple[type, ...]) -> "Layout":
        code, end = "<", 0
        places, conversions = [], []
        for place, kind in enumerate(kinds):
            letter, alignment, convert = _packing(kind)
            start = end + -end % alignment
            code += f"{start - end}x{letter}"
            end = struct.calcsize(code)
            places.append((start, end - start))
            if convert is not None:
                conversions.append((place, convert))
        return cls(
            packer=struct.Struct(code),
            conversions=tuple(conversions),
            places=tuple(places),
            free=[],
        )

    def filled(self, arguments: tuple[Argument, ...]) -> Buffer:
        try:
            buffer = self.free.pop()
        except IndexError:
            buffer = Buffer(self.packer.size, [offset for offset, _ in self.places])
        values: list[Any] = list(arguments)
        for place, convert in self.conversions:
            values[place] = convert(values[place])
        try:
            self.packer.pack_into(buffer.memory, 0, *values)
        except (struct.error, OverflowError) as error:
            raise ValueError(f"arguments {values} do not fit their types: {error}") from error
        return buffer


def _packing(kind: type) -> tuple[str, int, Callable[[Any], Any] | None]:
    """An argument type's letter for `struct`, its alignment, and what makes it packable."""
    if issubclass(kind, torch.Tensor):
        return "Q", 8, torch.Tensor.data_ptr
    if kind is type(None):
        return "Q", 8, lambda _: 0
    if kind is TensorMap:
        return f"{NUM_BYTES}s", ALIGNMENT, attrgetter("data")
    if issubclass(kind, np.generic) and (letter := _LETTERS.get(np.dtype(kind).str[1:])):
        return letter, struct.calcsize(f"<{letter}"), None
    if kind is bool:
        return "?", 1, None
    if kind is int:
        return "i", 4, None
    if kind is float:
        return "f", 4, None
    raise TypeError(f"a kernel takes no {kind.__name__} as argument")
