"""Encoded pictures: which are here, which are being encoded, whose pixels are still wanted.

Knows the tower's three steps (cut, encode tiles, assemble), nothing of sequences' tokens. Each
picture is encoded once however many sequences want it, a few tiles a step, so that decoding
neighbours wait for a bounded time.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ixc_runtime.engine_process.messages import ImageSlots, Pixels
from ixc_runtime.engine_process.moments import HostMoment, Moment
from ixc_runtime.errors import EngineFault


class Tower(Protocol):
    """What is needed of a model's image side."""

    def cut(self, pixels: Tensor) -> Tensor:
        """(height, width, 3) uint8 -> (1 + tiles, 3, side, side), the global view first."""

    def encode_tiles(self, tiles: Tensor) -> Tensor:
        """(n, 3, side, side) -> one feature map a tile."""

    def assemble(self, encoded: Tensor, tiles_wide: int, tiles_high: int) -> Tensor:
        """All maps of one picture -> (tokens, hidden)."""


@dataclass(slots=True, kw_only=True)
class _Picture:
    """`wanted_by` counts live sequences. `features` is the last of pixels → tiles → features.

    Pixels wait on the host: as tiles they take four times the room, and on the device.
    """

    slots: ImageSlots
    wanted_by: int = 0
    pixels: Tensor | None = None  # (height, width, 3) uint8
    tiles: Tensor | None = None
    encoded: list[Tensor] = field(default_factory=list)
    features: Tensor | None = None
    seconds: float = 0.0
    spans: list[tuple[Moment, Moment]] = field(default_factory=list)  # not yet in `seconds`

    @property
    def has_arrived(self) -> bool:
        return not (self.pixels is None and self.tiles is None and self.features is None)

    @property
    def is_to_encode(self) -> bool:
        return self.has_arrived and self.features is None

    @property
    def num_encoded(self) -> int:
        return sum(len(part) for part in self.encoded)


class EncodedImages:
    """Features by image key. `budget_bytes` bounds those that no live sequence wants, and those
    that are encoded before their prompt's turn.

    `moment` tells when the tower's device comes to the point that it is asked at.
    """

    def __init__(
        self,
        tower: Tower | None,
        *,
        budget_bytes: int,
        moment: Callable[[], Moment] = HostMoment,
    ) -> None:
        self._tower = tower
        self._moment = moment
        self._budget_bytes = budget_bytes
        self._pictures: OrderedDict[bytes, _Picture] = OrderedDict()

    def has(self, key: bytes) -> bool:
        picture = self._pictures.get(key)
        return picture is not None and picture.features is not None

    def features(self, key: bytes) -> Tensor:
        features = self._pictures[key].features
        assert features is not None, "a chunk was planned before its image was encoded"
        return features

    def seconds(self, key: bytes) -> float:
        """Time spent encoding this picture; known when a step behind that has come back."""
        picture = self._pictures[key]
        while picture.spans:
            since, until = picture.spans.pop()
            picture.seconds += until.seconds_since(since)
        return picture.seconds

    def want(self, slots: ImageSlots) -> bool:
        """One more sequence wants this picture. True when its pixels have to be fetched."""
        known = self._pictures.get(slots.key)
        picture = known or self._pictures.setdefault(slots.key, _Picture(slots=slots))
        picture.wanted_by += 1
        if picture.features is not None:  # else it keeps its turn
            self._pictures.move_to_end(slots.key)
        return known is None

    def release(self, keys: Iterable[bytes]) -> None:
        """A sequence no longer wants these. Encoded ones stay while they fit the budget."""
        for key in keys:
            picture = self._pictures[key]
            picture.wanted_by -= 1
            if picture.wanted_by == 0 and picture.features is None:
                del self._pictures[key]
        self._trim()

    def _trim(self) -> None:
        idle = [
            (key, picture.features.nbytes)
            for key, picture in self._pictures.items()
            if picture.wanted_by == 0 and picture.features is not None
        ]
        excess = sum(size for _, size in idle) - self._budget_bytes
        for key, size in idle:
            if excess <= 0:
                return
            del self._pictures[key]
            excess -= size

    def supply(self, pixels: Pixels) -> None:
        """Pixels have arrived: read them, delete the file, queue them if still wanted.

        Raises EngineFault when the file is not what its message says.
        """
        path = Path(pixels.path)
        try:
            content = bytearray(path.read_bytes())
        except OSError:
            raise EngineFault("the pixels of an image could not be read") from None
        finally:
            path.unlink(missing_ok=True)
        picture = self._pictures.get(pixels.key)
        if picture is None or picture.has_arrived:
            return
        if len(content) != pixels.width * pixels.height * 3:
            raise EngineFault(
                f"{len(content)} bytes of pixels for {pixels.width} x {pixels.height}"
            )
        rows = torch.frombuffer(content, dtype=torch.uint8)
        picture.pixels = rows.view(pixels.height, pixels.width, 3)

    def encode(
        self, max_tiles: int, *, due: bytes | None = None
    ) -> tuple[int, list[tuple[bytes, Exception]]]:
        """Encode up to `max_tiles` tiles, oldest picture first: how many, and which
        pictures could not be encoded, and why. Those are as if their pixels had never come.

        No picture is begun while those that wait to be computed exceed the budget, but for `due`,
        which the next prompt needs: tiles are encoded faster than prompts are computed.
        """
        left = max_tiles
        failures: list[tuple[bytes, Exception]] = []
        waiting = sum(
            picture.features.nbytes
            for picture in self._pictures.values()
            if picture.wanted_by and picture.features is not None
        )
        for key, picture in self._pictures.items():
            if left == 0:
                break
            is_begun = picture.pixels is None
            if not picture.is_to_encode or not (
                is_begun or waiting <= self._budget_bytes or key == due
            ):
                continue
            try:
                left -= self._encode_some(picture, left)
            except Exception as error:
                picture.pixels, picture.tiles, picture.encoded = None, None, []
                failures.append((key, error))
            if picture.features is not None:
                waiting += picture.features.nbytes
        return max_tiles - left, failures

    def _encode_some(self, picture: _Picture, max_tiles: int) -> int:
        assert self._tower is not None, "only a model with a tower asks for pixels"
        began = self._moment()
        if picture.tiles is None:
            assert picture.pixels is not None, "the caller looked"
            picture.tiles, picture.pixels = self._tower.cut(picture.pixels), None
        start = picture.num_encoded
        part = picture.tiles[start : start + max_tiles]
        picture.encoded.append(self._tower.encode_tiles(part))
        if picture.num_encoded == len(picture.tiles):
            picture.features = self._tower.assemble(
                torch.cat(picture.encoded), picture.slots.tiles_wide, picture.slots.tiles_high
            )
            picture.tiles, picture.encoded = None, []
        picture.spans.append((began, self._moment()))
        return len(part)
