"""How exact a GPU's products of float32 matrices are while levels are searched.

Its matrix units round the factors to ten bits and are several times as fast. What the search
compares, and what the passages become on their way, needs no more; grams of rounded rows are grams
still. Products elsewhere, comparisons of models above all, stay exact.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def coarse_products(device: torch.device | str) -> Iterator[None]:
    """On a GPU, of this process, for as long as the block lasts; a CPU has nothing to gain."""
    if torch.device(device).type != "cuda":
        yield
        return
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        yield
    finally:
        matmul.fp32_precision = before
