"""The tower on a GPU: one CUDA graph for each number of tiles, captured when first needed.

Every tile has the same size, so the number of tiles is all that a shape depends on.
"""

import torch
from torch import Tensor

from ixc_runtime.engine_process.batch_places import pinned
from ixc_runtime.model.vision import Vision


class GraphedTower:
    """A model's `Vision`, whose middle step is replayed rather than launched piece by piece."""

    def __init__(self, vision: Vision) -> None:
        self._vision = vision
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def cut(self, pixels: Tensor) -> Tensor:
        return self._vision.cut(pinned(pixels))

    @torch.inference_mode()
    def encode_tiles(self, tiles: Tensor) -> Tensor:
        graph, given, maps = self._graph(tiles)
        given.copy_(tiles)
        graph.replay()
        return maps.clone()  # the next replay writes over them

    def assemble(self, encoded: Tensor, tiles_wide: int, tiles_high: int) -> Tensor:
        return self._vision.assemble(encoded, tiles_wide, tiles_high)

    def _graph(self, tiles: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        count = len(tiles)
        if count not in self._graphs:
            given = tiles.clone()
            # Once outside: libraries are set up before anything is captured.
            self._vision.encode_tiles(given)
            graph = torch.cuda.CUDAGraph()
            # An adapter may be on its way to the device in a thread beside.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                maps = self._vision.encode_tiles(given)
            self._graphs[count] = graph, given, maps
        return self._graphs[count]
