"""One step on the device: from chunks of sequences to sampled tokens.

The only place that turns the scheduler's plan into tensors. Knows neither the queue nor the socket.
"""

from collections import defaultdict
from collections.abc import Sequence as Many
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ixc_runtime.engine_process.images import EncodedImages
from ixc_runtime.model.batch import StepBatch
from ixc_runtime.model.decoder import LayerPairs, Model
from ixc_runtime.model.kv_arena import KvArena
from ixc_runtime.model_info import MemoryPlan
from ixc_runtime.request import BASE_ADAPTER
from ixc_runtime.sampling.sampler import SampledToken, SamplingRow, sample
from ixc_runtime.scheduler.scheduler import Chunk
from ixc_runtime.scheduler.sequence import Sequence


class LaunchedStep(Protocol):
    def tokens(self) -> list[SampledToken | None]:
        """Wait for the step: one token for each chunk that reaches its sequence's end, in order.

        None stands for a sequence whose logits are not finite.
        """


class StepRunner(Protocol):
    """`runs_ahead`: the next step may be launched before this one's tokens are asked for."""

    runs_ahead: bool

    def launch(self, chunks: Many[Chunk]) -> LaunchedStep: ...

    def take_adapter(self, name: str, pairs: Many[LayerPairs]) -> None:
        """Rows of the next steps may ask for it. Raises a RuntimeFault where there is no room."""

    def drop_adapter(self, name: str) -> None:
        """No sequence asks for it any more."""

    def is_usable(self) -> bool:
        """After a step that failed: whether another one could do better."""


class MakeRunner(Protocol):
    def __call__(
        self, model: Model, arena: KvArena, images: EncodedImages, *, plan: MemoryPlan
    ) -> StepRunner: ...


@dataclass(frozen=True, slots=True)
class _Done:
    sampled: list[SampledToken | None]

    def tokens(self) -> list[SampledToken | None]:
        return self.sampled


class PlainRunner:
    """Computes each step at once, operation by operation: whatever the batch, on any device."""

    runs_ahead = False

    def __init__(
        self, model: Model, arena: KvArena, images: EncodedImages, *, plan: MemoryPlan
    ) -> None:
        self._model = model
        self._arena = arena
        self._images = images
        self._page_size = arena.page_size

    def launch(self, chunks: Many[Chunk]) -> LaunchedStep:
        sampling = [chunk for chunk in chunks if chunk.yields_token]
        with torch.inference_mode():
            logits = self._model.forward(self._batch(chunks), self._arena)
            return _Done(sample(logits, [sampling_row(chunk.sequence) for chunk in sampling]))

    def take_adapter(self, name: str, pairs: Many[LayerPairs]) -> None:
        self._model.add_adapter(name, pairs)

    def drop_adapter(self, name: str) -> None:
        self._model.remove_adapter(name)

    def is_usable(self) -> bool:
        """On a GPU a kernel that went astray takes the whole context with it."""
        if self._model.device.type == "cuda":
            try:
                torch.cuda.synchronize(self._model.device)
            except RuntimeError:  # as every later call will
                return False
        return True

    def _batch(self, chunks: Many[Chunk]) -> StepBatch:
        sizes = [chunk.stop - chunk.start for chunk in chunks]
        starts = (0, *accumulate(sizes))
        page_tables = _padded([_pages(chunk.sequence) for chunk in chunks])
        positions = torch.cat([torch.arange(chunk.start, chunk.stop) for chunk in chunks])
        row_sequence = torch.repeat_interleave(torch.arange(len(chunks)), torch.tensor(sizes))
        pages = page_tables[row_sequence, positions // self._page_size]
        bases = torch.tensor([chunk.sequence.rotary_base for chunk in chunks], dtype=torch.float64)
        image_rows, image_features = self._image_rows(chunks, starts)
        last_rows = [
            stop - 1 for chunk, stop in zip(chunks, starts[1:], strict=True) if chunk.yields_token
        ]
        return StepBatch(
            token_ids=self._token_ids(chunks, starts),
            positions=self._upload(positions),
            rotary_bases=self._upload(bases[row_sequence]),
            slots=self._upload(pages * self._page_size + positions % self._page_size),
            image_rows=self._upload(image_rows),
            image_features=image_features,
            adapter_rows=self._adapter_rows(chunks, starts),
            query_starts=starts,
            context_lengths=tuple(chunk.stop for chunk in chunks),
            page_tables=self._upload(page_tables),
            output_rows=self._upload(torch.tensor(last_rows, dtype=torch.int64)),
        )

    def _upload(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._model.device)

    def _token_ids(self, chunks: Many[Chunk], starts: Many[int]) -> Tensor:
        ids = [
            token for chunk in chunks for token in chunk.sequence.tokens[chunk.start : chunk.stop]
        ]
        return self._upload(torch.tensor(ids).clamp_(min=0))

    def _image_rows(self, chunks: Many[Chunk], starts: Many[int]) -> tuple[Tensor, Tensor | None]:
        """Rows that hold image tokens, and the features that stand there instead of embeddings."""
        rows, features = [], []
        for chunk, row_start in zip(chunks, starts, strict=False):
            for image in chunk.sequence.request.images:
                first = max(chunk.start, image.start)
                last = min(chunk.stop, image.start + image.num_tokens)
                if first < last:
                    offset = row_start - chunk.start
                    rows.append(torch.arange(first + offset, last + offset))
                    encoded = self._images.features(image.key)
                    features.append(encoded[first - image.start : last - image.start])
        if not rows:
            return torch.empty(0, dtype=torch.int64), None
        return torch.cat(rows), torch.cat(features)

    def _adapter_rows(
        self, chunks: Many[Chunk], starts: Many[int]
    ) -> tuple[tuple[str, Tensor], ...]:
        rows: dict[str, list[Tensor]] = defaultdict(list)
        for chunk, start, stop in zip(chunks, starts, starts[1:], strict=False):
            adapter = chunk.sequence.request.adapter
            if adapter != BASE_ADAPTER:
                rows[adapter].append(torch.arange(start, stop))
        return tuple((adapter, self._upload(torch.cat(parts))) for adapter, parts in rows.items())


def _pages(sequence: Sequence) -> list[int]:
    assert sequence.table is not None, "only running sequences are planned"
    return sequence.table.pages


def _padded(tables: Many[list[int]]) -> Tensor:
    """A row a table, zeros behind its end. (`torch.tensor` of lists takes ten times as long.)"""
    rows = np.zeros((len(tables), max(map(len, tables))), np.int64)
    for row, table in zip(rows, tables, strict=True):
        row[: len(table)] = table
    return torch.from_numpy(rows)


def sampling_row(sequence: Sequence) -> SamplingRow:
    """The sampler's view of a sequence: effective settings, and its history so far."""
    request = sequence.request
    settings = request.sampling
    assert settings.temperature is not None, "the front end fills every setting in"
    assert settings.top_p is not None and settings.top_k is not None
    assert settings.min_p is not None and settings.seed is not None
    assert settings.repetition_penalty is not None
    assert settings.presence_penalty is not None and settings.frequency_penalty is not None
    return SamplingRow(
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        min_p=settings.min_p,
        repetition_penalty=settings.repetition_penalty,
        presence_penalty=settings.presence_penalty,
        frequency_penalty=settings.frequency_penalty,
        seed=settings.seed,
        position=sequence.num_output,
        generated=sequence.generated,
        logit_bias=settings.logit_bias,
        banned=banned(sequence),
        top_logprobs=request.top_logprobs,
    )


def banned(sequence: Sequence) -> tuple[int, ...]:
    """Ids that must not come next: ends of bad words, and stops before their time."""
    request = sequence.request
    ids = [word[-1] for word in request.bad_word_ids if _completes(sequence, word)]
    if sequence.num_output < (request.sampling.min_output_tokens or 0):
        ids += request.stop_token_ids
    return tuple(ids)


def _completes(sequence: Sequence, word: list[int]) -> bool:
    """Whether the output ends with all of `word` but its last token."""
    begun = len(word) - 1
    return (
        sequence.num_output >= begun
        and sequence.tokens[len(sequence.tokens) - begun :] == word[:-1]
    )
