"""Tensor maps: what the bulk copy engine (TMA) of Hopper has to know of a tensor in memory.

A map describes a tensor and the box of it that one instruction copies to shared memory. It goes to
a kernel by value, as `const __grid_constant__`, and stays true as long as the tensor's memory does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

NUM_BYTES = 128
ALIGNMENT = 64
MOST_DIMENSIONS = 5
LARGEST_BOX = 256  # elements along one dimension

Swizzle = Literal[0, 32, 64, 128]
Interleave = Literal[0, 16, 32]
Promotion = Literal[0, 64, 128, 256]


@dataclass(frozen=True, slots=True)
class TensorMap:
    """The descriptor's 128 bytes, as a kernel gets them."""

    data: bytes


def tensor_map(
    tensor: "torch.Tensor",
    box: Sequence[int],
    *,
    swizzle: Swizzle = 0,
    interleave: Interleave = 0,
    promotion: Promotion = 128,
    step: Sequence[int] | None = None,
    outside_is_nan: bool = False,
) -> TensorMap:
    """Describe `tensor`, of which one copy moves `box`; dimensions as torch's, slowest first.

    swizzle: bytes of the span over which 16-byte units are permuted in shared memory.
    interleave: bytes of the channel slices of an interleaved layout.
    promotion: bytes that the L2 fetches for each miss.
    step: elements from one to the next along each dimension of the box; all ones by default.
    outside_is_nan: fill what lies outside the tensor with NaNs rather than zeros.
    """
    check_map(tensor, box, swizzle=swizzle, interleave=interleave)
    from cuda.bindings import driver

    rank = tensor.dim()
    small, large = driver.cuuint32_t, driver.cuuint64_t
    swizzles = driver.CUtensorMapSwizzle
    interleaves = driver.CUtensorMapInterleave
    promotions = driver.CUtensorMapL2promotion
    fills = driver.CUtensorMapFloatOOBfill
    result, made = driver.cuTensorMapEncodeTiled(
        _data_type(tensor.dtype),
        rank,
        tensor.data_ptr(),
        # The driver counts dimensions from the fastest, whose stride it takes for granted.
        [large(size) for size in reversed(tensor.shape)],
        [large(stride * tensor.element_size()) for stride in reversed(tensor.stride()[:-1])],
        [small(size) for size in reversed(box)],
        [small(each) for each in reversed(step or (1,) * rank)],
        getattr(interleaves, f"CU_TENSOR_MAP_INTERLEAVE_{_named(interleave)}"),
        getattr(swizzles, f"CU_TENSOR_MAP_SWIZZLE_{_named(swizzle)}"),
        getattr(promotions, f"CU_TENSOR_MAP_L2_PROMOTION_{_named(promotion, 'L2_')}"),
        fills.CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA
        if outside_is_nan
        else fills.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    )
    if result != driver.CUresult.CUDA_SUCCESS:
        raise ValueError(
            f"the driver refuses a tensor map ({result.name}) of shape {tuple(tensor.shape)}, "
            f"strides {tensor.stride()}, {tensor.dtype}, box {tuple(box)}, swizzle {swizzle}, "
            f"interleave {interleave}"
        )
    import ctypes

    return TensorMap(ctypes.string_at(made.getPtr(), NUM_BYTES))


def check_map(
    tensor: "torch.Tensor", box: Sequence[int], *, swizzle: Swizzle = 0, interleave: Interleave = 0
) -> None:
    """The copy engine's own rules, each with its number: the driver names none of them."""
    size = tensor.element_size()
    if not 1 <= tensor.dim() <= MOST_DIMENSIONS or len(box) != tensor.dim():
        raise ValueError(
            f"box {tuple(box)} of a tensor of shape {tuple(tensor.shape)}: as many dimensions are "
            f"needed in both, from 1 to {MOST_DIMENSIONS}"
        )
    if tensor.stride(-1) != 1:
        raise ValueError(f"the last dimension has stride {tensor.stride(-1)}; 1 is needed")
    alignment = 32 if interleave == 32 else 16
    if tensor.data_ptr() % alignment:
        raise ValueError(f"the tensor starts at {tensor.data_ptr():#x}, no multiple of {alignment}")
    for stride in tensor.stride()[:-1]:
        if stride * size % alignment:
            raise ValueError(f"a stride of {stride * size} bytes is no multiple of {alignment}")
    if not all(1 <= side <= LARGEST_BOX for side in box):
        raise ValueError(f"box {tuple(box)}: sides must be 1 to {LARGEST_BOX}")
    inner = box[-1] * size
    if not interleave and inner % 16:
        raise ValueError(f"the box's rows have {inner} bytes, no multiple of 16")
    if swizzle and not interleave and inner > swizzle:
        raise ValueError(f"the box's rows have {inner} bytes; swizzle {swizzle} allows {swizzle}")


def _named(num_bytes: int, prefix: str = "") -> str:
    return f"{prefix}{num_bytes}B" if num_bytes else "NONE"


def _data_type(dtype: "torch.dtype") -> object:
    import torch
    from cuda.bindings import driver

    types = driver.CUtensorMapDataType
    known = {
        torch.bfloat16: types.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        torch.float16: types.CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        torch.float32: types.CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        torch.uint8: types.CU_TENSOR_MAP_DATA_TYPE_UINT8,
        torch.int8: types.CU_TENSOR_MAP_DATA_TYPE_UINT8,
        torch.int32: types.CU_TENSOR_MAP_DATA_TYPE_INT32,
    }
    if dtype not in known:
        raise ValueError(f"no tensor map of {dtype}; known are {[*map(str, known)]}")
    return known[dtype]
