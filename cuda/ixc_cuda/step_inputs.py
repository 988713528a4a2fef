"""What a decode step needs to know of its sequences, looked up by their places on the device.

    inputs        (3, rows) int64: place, context with the new token, the token; one below 0 is the
                  place's last one, a context of 0 nobody's row
    page_tables   (places, pages) int32
    last_ids      (places,) int64
    frequencies   (places, half) float32

One small kernel instead of a dozen: in a decode step of one sequence each launch counts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ixc_cuda.catalogue import Instantiation
from ixc_cuda.kernel import load_kernel

_SOURCE, _NAME = "step_inputs.cu", "step_inputs"
_THREADS = 128

INSTANTIATIONS = (Instantiation(source=_SOURCE, name=_NAME, architectures=("sm_80", "sm_90")),)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInputs:
    """Nobody's rows have a slot of -1 and a context of 0."""

    token_ids: Tensor  # (rows,) int64
    context_lengths: Tensor  # (rows,) int32
    slots: Tensor  # (rows,) int64: where the new token's key and value go
    page_tables: Tensor  # (rows, pages) int32; behind a row's own pages anything
    cos: Tensor  # (rows, half) float32
    sin: Tensor


def step_inputs(
    inputs: Tensor, page_tables: Tensor, frequencies: Tensor, last_ids: Tensor, *, page_size: int
) -> StepInputs:
    """`inputs` may be the first columns of a wider array."""
    rows, (places, pages), half = inputs.shape[1], page_tables.shape, frequencies.shape[1]
    for name, tensor, dtype, shape in (
        ("inputs", inputs, torch.int64, (3, rows)),
        ("page_tables", page_tables, torch.int32, (places, pages)),
        ("frequencies", frequencies, torch.float32, (places, half)),
        ("last_ids", last_ids, torch.int64, (places,)),
    ):
        if tensor.dtype != dtype or tuple(tensor.shape) != shape or tensor.stride(-1) != 1:
            raise ValueError(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)} with strides {tensor.stride()}; "
                f"expected {dtype} {shape}"
            )

    def empty(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=inputs.device)

    made = StepInputs(
        token_ids=empty(rows, dtype=torch.int64),
        context_lengths=empty(rows, dtype=torch.int32),
        slots=empty(rows, dtype=torch.int64),
        page_tables=empty(rows, pages, dtype=torch.int32),
        cos=empty(rows, half, dtype=torch.float32),
        sin=empty(rows, half, dtype=torch.float32),
    )
    if rows == 0:
        return made
    load_kernel(_SOURCE, _NAME).launch(
        (rows, 1, 1),
        _THREADS,
        (
            *(inputs, page_tables, frequencies, last_ids),
            *(made.token_ids, made.context_lengths, made.slots, made.page_tables),
            *(made.cos, made.sin),
            *(inputs.stride(0), pages, page_size, half),
        ),
        overlap=True,
    )
    return made
