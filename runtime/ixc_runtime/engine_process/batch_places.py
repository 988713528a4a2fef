"""Each running sequence's place in the device's tables: its pages, its rotation, its last token.

What changes rarely lies there once and is looked up by place, so that a step has to carry little.
Tables are changed by copies on the step's own stream: a step that was launched before reads what
was there before.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from ixc_runtime.config import ModelConfig
from ixc_runtime.scheduler.sequence import Sequence


class BatchPlaces:
    """`num_places` sequences at most; one more place is nobody's, for rows that pad a batch."""

    def __init__(
        self, config: ModelConfig, *, num_places: int, max_pages: int, device: torch.device
    ) -> None:
        self.num_places = num_places
        self.nobody = num_places
        half = config.head_dim // 2
        self.page_tables = torch.zeros(num_places + 1, max_pages, dtype=torch.int32, device=device)
        self.frequencies = torch.zeros(num_places + 1, half, device=device)
        self.last_ids = torch.zeros(num_places + 1, dtype=torch.int64, device=device)
        self._exponents = torch.arange(0, config.head_dim, 2).to(torch.float32) / config.head_dim
        self._place_of: dict[Sequence, int] = {}
        self._pages: dict[Sequence, list[int]] = {}
        self._free = list(reversed(range(num_places)))

    def take(self, sequences: Iterable[Sequence]) -> list[tuple[Sequence, int]]:
        """Places for those that have none yet, which are returned; the ended ones' come free."""
        for ended in [each for each in self._place_of if each.table is None]:
            self._free.append(self._place_of.pop(ended))
            del self._pages[ended]
        arrived = []
        for sequence in sequences:
            if sequence not in self._place_of:
                place = self._place_of[sequence] = self._free.pop()
                self._pages[sequence] = []
                # As the plain operations: frequencies in float32, whatever the base is given in.
                base = torch.tensor(sequence.rotary_base, dtype=torch.float64).to(torch.float32)
                self._set(self.frequencies[place], 1.0 / base.pow(self._exponents))
                arrived.append((sequence, place))
            self._update_pages(sequence)
        return arrived

    def place(self, sequence: Sequence) -> int:
        return self._place_of[sequence]

    def _update_pages(self, sequence: Sequence) -> None:
        assert sequence.table is not None, "only running sequences have a place"
        pages, known = sequence.table.pages, self._pages[sequence]
        if pages == known:
            return
        # Mostly one page more; a page may also have been exchanged for an equal one.
        first = next(
            (i for i, (new, old) in enumerate(zip(pages, known, strict=False)) if new != old),
            min(len(pages), len(known)),
        )
        row = self.page_tables[self._place_of[sequence]]
        self._set(row[first : len(pages)], torch.tensor(pages[first:], dtype=torch.int32))
        self._pages[sequence] = list(pages)

    @staticmethod
    def _set(target: Tensor, source: Tensor) -> None:
        target.copy_(pinned(source), non_blocking=True)


def pinned(tensor: Tensor) -> Tensor:
    """In memory that the device reads by itself, so that nobody waits for the copy."""
    return tensor.pin_memory() if torch.cuda.is_available() else tensor
