"""How long pictures took, told by moments on their device that are read only when asked for."""

from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from ixc_runtime.engine_process.images import EncodedImages
from ixc_runtime.engine_process.messages import ImageSlots, Pixels


class Tower:
    """A map a tile, a row a map."""

    def cut(self, pixels: Tensor) -> Tensor:
        return torch.zeros(1 + pixels.shape[0], 3, 1, 1)

    def encode_tiles(self, tiles: Tensor) -> Tensor:
        return torch.zeros(len(tiles), 1, 1)

    def assemble(self, encoded: Tensor, tiles_wide: int, tiles_high: int) -> Tensor:
        return encoded.flatten(0, 1)


class Ticks:
    """A device's moments, a second apart."""

    def __init__(self) -> None:
        self.num_read = 0
        self._numbers = count()

    def __call__(self) -> "Tick":
        return Tick(self, next(self._numbers))


class Tick:
    def __init__(self, ticks: Ticks, number: int) -> None:
        self._ticks, self._number = ticks, number

    def seconds_since(self, earlier: "Tick") -> float:
        self._ticks.num_read += 1
        return float(self._number - earlier._number)


def test_a_picture_that_is_encoded_in_parts(tmp_path: Path) -> None:
    """Each part's work counts, others' between them does not; no moment is read beforehand."""
    ticks = Ticks()
    images = EncodedImages(Tower(), budget_bytes=1000, moment=ticks)
    for name, high in (("tall", 3), ("small", 1)):
        key = name.encode()
        slots = ImageSlots(key=key, start=0, num_tokens=1 + high, tiles_wide=1, tiles_high=high)
        assert images.want(slots)
        (tmp_path / name).write_bytes(bytes(3 * high))
        images.supply(Pixels(key=key, path=str(tmp_path / name), width=1, height=high))
    while images.has_work:
        images.encode(3)

    assert ticks.num_read == 0
    assert images.seconds(b"tall") == 2.0
    assert images.seconds(b"small") == 1.0
    assert images.seconds(b"tall") == 2.0
