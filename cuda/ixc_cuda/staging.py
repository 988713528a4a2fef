"""Small arrays on their way from the host to one place on the device, nobody waiting for the copy.

Several buffers take turns, since the copies of a step or two before may still be under way.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BUFFERS = 4  # a step or two ahead, and some


class Staging:
    """`begin` gives memory to fill, `copy` sends it to `target` on the current stream."""

    def __init__(self, target: Tensor) -> None:
        """`target` is uint8, of one dimension."""
        self._target = target
        self._buffers = [_Buffer(target) for _ in range(_BUFFERS)]
        self._current = -1

    def begin(self) -> NDArray[np.uint8]:
        """What was in it before is anything."""
        self._current = (self._current + 1) % len(self._buffers)
        buffer = self._buffers[self._current]
        buffer.wait()
        return buffer.memory

    def copy(self, num_bytes: int | None = None) -> None:
        """The first bytes of what `begin` gave, or all."""
        self._buffers[self._current].copy_to(self._target[:num_bytes])


class _Buffer:
    def __init__(self, target: Tensor) -> None:
        on_gpu = target.device.type == "cuda"
        self._host = torch.zeros(len(target), dtype=torch.uint8, pin_memory=on_gpu)
        self.memory: NDArray[np.uint8] = self._host.numpy()
        self._copied: torch.cuda.Event | None = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        if self._copied is not None:
            self._copied.synchronize()

    def copy_to(self, target: Tensor) -> None:
        target.copy_(self._host[: len(target)], non_blocking=True)
        if self._copied is not None:
            self._copied.record()
