"""What a step brings to its graph, at one address on the device: rows, and who takes which adapter.

One copy a step. What changes more rarely lies by place (`batch_places.py`).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ixc_cuda.low_rank import RowGroups, group_rows
from ixc_cuda.staging import Staging

_ITEM = 8  # bytes of a number of `rows`


class DecodeInputs:
    """`rows` (3, max_batch) int64: each sequence's place, its context with this token, the token.

    A token of UNKNOWN stands for the place's last one. Rows behind a step's own are nobody's.
    """

    def __init__(
        self, *, max_batch: int, num_slots: int, nobody: int, device: torch.device
    ) -> None:
        words = RowGroups.words(max_batch, num_slots=num_slots)
        self._rows_end = 3 * max_batch * _ITEM
        memory = torch.zeros(self._rows_end + 4 * words, dtype=torch.uint8, device=device)
        self.rows = memory[: self._rows_end].view(torch.int64).view(3, max_batch)
        self.groups = RowGroups(memory[self._rows_end :].view(torch.int32), num_slots=num_slots)
        self._staging = Staging(memory)
        self._nobody = nobody
        self.stage([], [], [], [])

    @property
    def places(self) -> Tensor:
        return self.rows[0]

    def stage(
        self,
        places: Sequence[int],
        contexts: Sequence[int],
        tokens: Sequence[int],
        slots: Sequence[int],
    ) -> None:
        """Of the next step's rows; `slots` of their adapters, below 0 for none."""
        memory = self._staging.begin()
        rows = memory[: self._rows_end].view(np.int64).reshape(3, -1)
        count = len(places)
        rows[0, :count], rows[0, count:] = places, self._nobody
        rows[1, :count], rows[1, count:] = contexts, 0
        rows[2, :count], rows[2, count:] = tokens, 0
        group_rows(slots, memory[self._rows_end :].view(np.int32), num_slots=self.groups.num_slots)
        self._staging.copy()
