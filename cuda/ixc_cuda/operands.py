"""What a kernel asks of the tensors it is given, checked before it is launched.

A wrong shape, dtype or stride is a `ValueError` that shows what came and what was expected; on the
GPU it would be somebody else's memory.
"""

import math

import torch
from torch import Tensor

# The types that most kernels are made for, by their names in CUDA C++.
NARROW = {torch.bfloat16: "__nv_bfloat16", torch.float16: "__half"}

_VECTOR_BYTES = 16


def narrow_name(what: str, tensor: Tensor) -> str:
    """The C++ name of a tensor's dtype, which must be one of `NARROW`."""
    name = NARROW.get(tensor.dtype)
    if name is None:
        raise ValueError(f"{what} is {tensor.dtype}, not {' or '.join(map(str, NARROW))}")
    return name


def require(what: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """`shape` may be that of a view: only the number of elements and their order count."""
    if (
        tensor.dtype is not dtype
        or tensor.numel() != math.prod(shape)
        or not tensor.is_contiguous()
    ):
        raise ValueError(
            f"{what} is {tensor.dtype} {tuple(tensor.shape)} with strides {tensor.stride()}; "
            f"expected {dtype} {shape}, contiguous"
        )


def require_vectors(what: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """As `require`, for what is read or written 16 bytes at a time."""
    require(what, tensor, dtype, shape)
    if tensor.data_ptr() % _VECTOR_BYTES:
        raise ValueError(f"{what} does not start at a multiple of {_VECTOR_BYTES} bytes")
