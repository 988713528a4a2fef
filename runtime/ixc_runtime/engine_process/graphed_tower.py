"""The tower on a GPU as CUDA graphs, captured when it is made: one for each of a ladder of tiles.

Every tile has the same size, so their number is all that a shape depends on; tiles of nobody pad a
call to the next number. All graphs share what they read, what they write and their memory.
"""

import logging
from functools import partial

import torch
from torch import Tensor

from ixc_runtime.engine_process.batch_places import pinned
from ixc_runtime.engine_process.graph_capture import Capturing
from ixc_runtime.model.vision import Vision

_log = logging.getLogger(__name__)


def tile_counts(most_tiles: int) -> tuple[int, ...]:
    """1 to 8, then steps of about a quarter."""
    counts = []
    count = 1
    while count < most_tiles:
        counts.append(count)
        count += max(1, count // 4)
    return (*counts, most_tiles)


class GraphedTower:
    """A model's `Vision`, whose middle step is replayed rather than launched piece by piece.

    `num_bytes` is what the graphs have taken of the device's memory.
    """

    def __init__(self, vision: Vision, *, most_tiles: int) -> None:
        """`most_tiles` are encoded in one call."""
        self._vision = vision
        self._counts = tile_counts(most_tiles)
        device, shape = vision.device, vision.shape
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved(device)
        # In the tower's own dtype: it would round the tiles itself otherwise.
        self._tiles = torch.zeros(
            most_tiles, 3, shape.tile_size, shape.tile_size, dtype=vision.dtype, device=device
        )
        self._maps = torch.empty(
            most_tiles, shape.grid**2, vision.channels, dtype=vision.dtype, device=device
        )
        self._graphs = self._capture_all(device)
        self.num_bytes = torch.cuda.memory_reserved(device) - before
        _log.info(
            "the tower's graphs, for up to %d tiles, take %.0f MiB of %s",
            most_tiles,
            self.num_bytes / 2**20,
            device,
        )

    def cut(self, pixels: Tensor) -> Tensor:
        return self._vision.cut(pinned(pixels))

    @torch.inference_mode()
    def encode_tiles(self, tiles: Tensor) -> Tensor:
        number = len(tiles)
        self._tiles[:number].copy_(tiles)
        self._graphs[next(count for count in self._counts if count >= number)].replay()
        return self._maps[:number].clone()  # the next replay writes over them

    def assemble(self, encoded: Tensor, tiles_wide: int, tiles_high: int) -> Tensor:
        return self._vision.assemble(encoded, tiles_wide, tiles_high)

    @torch.inference_mode()
    def _capture_all(self, device: torch.device) -> dict[int, torch.cuda.CUDAGraph]:
        """The largest first: the smaller reuse its memory."""
        capturing = Capturing(device)
        with capturing.session():
            return {
                count: capturing.capture(f"the tower for {count} tiles", partial(self._run, count))
                for count in reversed(self._counts)
            }

    def _run(self, count: int) -> None:
        self._maps[:count].copy_(self._vision.encode_tiles(self._tiles[:count]))
