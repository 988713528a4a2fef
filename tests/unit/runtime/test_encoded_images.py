"""Pictures on their way through the tower: whose turn it is, how many wait, how long they took."""

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


def wanted(images: EncodedImages, name: str, *, high: int) -> ImageSlots:
    """One more sequence wants it."""
    slots = ImageSlots(
        key=name.encode(), start=0, num_tokens=1 + high, tiles_wide=1, tiles_high=high
    )
    images.want(slots)
    return slots


def supply(images: EncodedImages, folder: Path, slots: ImageSlots) -> bytes:
    """Its pixels come; the key."""
    path = folder / slots.key.decode()
    path.write_bytes(bytes(3 * slots.tiles_high))
    images.supply(Pixels(key=slots.key, path=str(path), width=1, height=slots.tiles_high))
    return slots.key


def encoded(images: EncodedImages, *keys: bytes) -> list[bool]:
    return [images.has(key) for key in keys]


def test_a_picture_that_is_encoded_in_parts(tmp_path: Path) -> None:
    """Each part's work counts, others' between them does not; no moment is read beforehand."""
    ticks = Ticks()
    images = EncodedImages(Tower(), budget_bytes=1000, moment=ticks)
    for name, high in (("tall", 3), ("small", 1)):
        supply(images, tmp_path, wanted(images, name, high=high))
    while images.encode(3)[0]:
        pass

    assert ticks.num_read == 0
    assert images.seconds(b"tall") == 2.0
    assert images.seconds(b"small") == 1.0
    assert images.seconds(b"tall") == 2.0


def test_a_picture_that_is_wanted_again_keeps_its_turn(tmp_path: Path) -> None:
    """However often: whoever wanted it first would wait for all the others too."""
    images = EncodedImages(Tower(), budget_bytes=1000)
    first = supply(images, tmp_path, wanted(images, "first", high=3))
    second = supply(images, tmp_path, wanted(images, "second", high=3))
    images.encode(2)
    wanted(images, "first", high=3)
    images.encode(2)

    assert encoded(images, first, second) == [True, False]


def test_pictures_are_not_encoded_far_ahead_of_their_prompts(tmp_path: Path) -> None:
    """As many as the budget holds wait to be computed, and one more; others' pixels stay on the
    host until those are through, but for the picture that is due.
    """
    images = EncodedImages(Tower(), budget_bytes=8)  # a map is a row of four bytes
    keys = [supply(images, tmp_path, wanted(images, f"{n}", high=1)) for n in range(4)]
    assert images.encode(100) == (4, [])
    assert encoded(images, *keys) == [True, True, False, False]
    assert images.encode(100) == (0, [])
    assert images.encode(100, due=keys[3]) == (2, [])
    images.release(keys[:2])
    assert images.encode(100) == (2, [])

    assert encoded(images, *keys) == [False, True, True, True]


def test_a_picture_that_was_begun_is_encoded_to_its_end(tmp_path: Path) -> None:
    """Its tiles are on the device: to wait with them would save nothing."""
    images = EncodedImages(Tower(), budget_bytes=0)
    late = wanted(images, "late", high=1)
    begun = supply(images, tmp_path, wanted(images, "begun", high=3))
    assert images.encode(2) == (2, [])
    due = supply(images, tmp_path, late)
    assert images.encode(2, due=due) == (2, [])
    assert encoded(images, due, begun) == [True, False]
    assert images.encode(2) == (2, [])
    assert encoded(images, due, begun) == [True, True]
