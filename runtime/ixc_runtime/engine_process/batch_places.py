"""Each running sequence's place in the device's tables: its pages, its rotation, its last token.

What changes rarely lies there once and is looked up by place, so that a step has to carry little.
Tables are changed by copies on the step's own stream: a step that was launched before reads what
was there before.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ixc_runtime.config import ModelConfig
from ixc_runtime.scheduler.sequence import Sequence


@dataclass(slots=True)
class _Place:
    """`num_pages` and `exchanges` are the page table's as it was last copied."""

    index: int
    num_pages: int = 0
    exchanges: int = 0


class BatchPlaces:
    """`num_places` sequences at most; one more place is nobody's, for rows that pad a batch."""

    def __init__(
        self, config: ModelConfig, *, num_places: int, max_pages: int, device: torch.device
    ) -> None:
        self.num_places = num_places
        self.nobody = num_places
        self.page_tables = torch.zeros(num_places + 1, max_pages, dtype=torch.int32, device=device)
        half = config.head_dim // 2
        self.frequencies = torch.zeros(num_places + 1, half, device=device)
        self.last_ids = torch.zeros(num_places + 1, dtype=torch.int64, device=device)
        self._head_dim = config.head_dim
        self._max_pages = max_pages
        self._place_of: dict[Sequence, _Place] = {}
        self._free = list(reversed(range(num_places)))

    def take(self, sequences: Iterable[Sequence]) -> list[tuple[Sequence, int]]:
        """Places for those that have none yet, which are returned; the ended ones' come free."""
        for ended in [each for each in self._place_of if each.table is None]:
            self._free.append(self._place_of.pop(ended).index)
        arrived = []
        changed: list[tuple[int, list[int]]] = []  # from where in the flat tables, and the pages
        for sequence in sequences:
            place = self._place_of.get(sequence)
            if place is None:
                place = self._place_of[sequence] = _Place(self._free.pop())
                arrived.append((sequence, place.index))
            table = sequence.table
            assert table is not None, "only running sequences have a place"
            if place.num_pages != len(table.pages) or place.exchanges != table.exchanges:
                # Mostly one page more.
                kept = place.num_pages if place.exchanges == table.exchanges else 0
                changed.append((place.index * self._max_pages + kept, table.pages[kept:]))
                place.num_pages, place.exchanges = len(table.pages), table.exchanges
        if arrived:
            self._set_frequencies(arrived)
        if changed:
            self._set_pages(changed)
        return arrived

    def place(self, sequence: Sequence) -> int:
        return self._place_of[sequence].index

    def _set_frequencies(self, arrived: list[tuple[Sequence, int]]) -> None:
        rows = [_frequencies(sequence.rotary_base, self._head_dim) for sequence, _ in arrived]
        places = torch.tensor([place for _, place in arrived])
        self.frequencies.index_copy_(0, self._upload(places), self._upload(torch.stack(rows)))

    def _set_pages(self, changed: list[tuple[int, list[int]]]) -> None:
        total = sum(len(pages) for _, pages in changed)
        where, what = np.empty(total, np.int64), np.empty(total, np.int32)
        done = 0
        for first, pages in changed:
            stop = done + len(pages)
            where[done:stop] = np.arange(first, first + len(pages))
            what[done:stop] = pages
            done = stop
        self.page_tables.view(-1).index_copy_(
            0, self._upload(torch.from_numpy(where)), self._upload(torch.from_numpy(what))
        )

    def _upload(self, tensor: Tensor) -> Tensor:
        return pinned(tensor).to(self.page_tables.device, non_blocking=True)


@lru_cache(maxsize=64)
def _frequencies(base: float, head_dim: int) -> Tensor:
    """As the plain operations: in float32, whatever the base is given in."""
    exponents = torch.arange(0, head_dim, 2).to(torch.float32) / head_dim
    return 1.0 / torch.tensor(base, dtype=torch.float64).to(torch.float32).pow(exponents)


def pinned(tensor: Tensor) -> Tensor:
    """In memory that the device reads by itself, so that nobody waits for the copy."""
    return tensor.pin_memory() if torch.cuda.is_available() else tensor
