"""Drives a model step by step without an engine: sequences, pages in no order, batches.

Just enough to ask a model for logits: a sequence takes fresh pages whenever it grows, and a step
runs any number of tokens of any number of sequences. Nothing is shared and nothing is freed.
"""

import random
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from ixc_runtime.model.batch import StepBatch
from ixc_runtime.model.decoder import Model
from ixc_runtime.model.kv_arena import KvArena
from ixc_runtime.model.rope import rotary_base

IMAGE_TOKEN = -1


@dataclass(slots=True, kw_only=True)
class Lane:
    """One sequence: `features` has a row for every IMAGE_TOKEN among `tokens`, in order."""

    tokens: list[int]
    features: Tensor | None = None
    adapter: str = "base"
    base: float | None = None  # None: by the prompt's length
    done: int = 0
    pages: list[int] = field(default_factory=list)

    @property
    def left(self) -> int:
        return len(self.tokens) - self.done


class StepDriver:
    def __init__(self, model: Model, *, num_pages: int = 64, page_size: int = 16) -> None:
        self.model = model
        self.arena = KvArena(
            model.config,
            num_pages=num_pages,
            page_size=page_size,
            dtype=model.dtype,
            device=model.device,
        )
        # Consecutive pages would hide a mistake in the page table.
        self._free = list(range(num_pages))
        random.Random(num_pages).shuffle(self._free)

    def step(self, *chunks: tuple[Lane, int]) -> list[Tensor]:
        """Run the next `n` tokens of each lane; all their logits, one tensor (n, vocab) a lane."""
        batch = self.batch(*chunks)
        logits = self.model.forward(batch, self.arena)
        for lane, count in chunks:
            lane.done += count
        return list(logits.split([count for _, count in chunks]))

    def greedy(self, lane: Lane, count: int, *, chunk: int = 1 << 30) -> list[int]:
        """Decode `count` tokens after the lane's own, the prompt in chunks of at most `chunk`."""
        produced: list[int] = []
        while len(produced) < count:
            logits = self.step((lane, min(lane.left, chunk)))[0]
            if not lane.left:
                produced.append(int(logits[-1].argmax()))
                lane.tokens.append(produced[-1])
        return produced

    def batch(self, *chunks: tuple[Lane, int]) -> StepBatch:
        size = self.arena.page_size
        token_ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        bases: list[float] = []
        image_rows: list[int] = []
        features: list[Tensor] = []
        adapter_rows: dict[str, list[int]] = {}
        starts = (0, *accumulate(count for _, count in chunks))
        for (lane, count), start in zip(chunks, starts, strict=False):
            stop = lane.done + count
            while len(lane.pages) * size < stop:
                lane.pages.append(self._free.pop())
            if lane.base is None:
                lane.base = rotary_base(self.model.config, len(lane.tokens))
            for position in range(lane.done, stop):
                row = start + position - lane.done
                if lane.tokens[position] == IMAGE_TOKEN:
                    assert lane.features is not None
                    image_rows.append(row)
                    features.append(lane.features[lane.tokens[:position].count(IMAGE_TOKEN)])
                token_ids.append(max(lane.tokens[position], 0))
                positions.append(position)
                slots.append(lane.pages[position // size] * size + position % size)
                bases.append(lane.base)
                if lane.adapter != "base":
                    adapter_rows.setdefault(lane.adapter, []).append(row)
        width = max(len(lane.pages) for lane, _ in chunks)
        tensor = partial(torch.tensor, device=self.model.device)
        return StepBatch(
            token_ids=tensor(token_ids),
            positions=tensor(positions),
            rotary_bases=tensor(bases, dtype=torch.float64),
            slots=tensor(slots),
            image_rows=tensor(image_rows, dtype=torch.int64),
            image_features=torch.stack(features) if features else None,
            adapter_rows=tuple((name, tensor(rows)) for name, rows in adapter_rows.items()),
            query_starts=starts,
            context_lengths=tuple(lane.done + count for lane, count in chunks),
            page_tables=tensor(
                [lane.pages + [0] * (width - len(lane.pages)) for lane, _ in chunks]
            ),
            output_rows=torch.arange(starts[-1], device=self.model.device),
        )
