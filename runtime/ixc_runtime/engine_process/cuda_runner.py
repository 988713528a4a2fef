"""Steps on a GPU, one ahead of the tokens that come back.

A step in which every sequence decodes is one graph; one with chunks of prompts is launched
operation by operation. Either samples on the device and keeps the new ids there for the next step;
a copy travels back and is waited for only when the core asks. Nothing else waits for the device.
"""

from collections.abc import Sequence as Many
from dataclasses import dataclass

import torch
from torch import Tensor

from ixc_cuda.sampling import SamplingState
from ixc_runtime.engine_process.adapter_slots import NOBODY, AdapterSlots
from ixc_runtime.engine_process.batch_places import BatchPlaces, pinned
from ixc_runtime.engine_process.decode_graphs import DecodeGraphs, DecodeOutput, draw
from ixc_runtime.engine_process.images import EncodedImages
from ixc_runtime.engine_process.runner import LaunchedStep, PlainRunner, banned, sampling_row
from ixc_runtime.model.decoder import LayerPairs, Model
from ixc_runtime.model.kv_arena import KvArena
from ixc_runtime.model_info import MemoryPlan
from ixc_runtime.ops.cuda import CudaOps
from ixc_runtime.prompt.layout import IMAGE_TOKEN
from ixc_runtime.request import TokenLogprob
from ixc_runtime.sampling.sampler import SampledToken, TopLogprobs, top_logprobs
from ixc_runtime.sampling.settings import MOST_EDITS
from ixc_runtime.scheduler.scheduler import Chunk
from ixc_runtime.scheduler.sequence import UNKNOWN

# Loaded at a time, the model's own among them. A place in the table is a few kilobytes.
_MOST_ADAPTERS = 128


class CudaRunner(PlainRunner):
    runs_ahead = True

    def __init__(
        self, model: Model, arena: KvArena, images: EncodedImages, *, plan: MemoryPlan
    ) -> None:
        super().__init__(model, arena, images, plan=plan)
        ops = model.ops
        assert isinstance(ops, CudaOps), "the plain runner runs plain operations"
        # As long as a context can be made, which is four times the native one.
        longest = min(4 * model.config.max_position_embeddings, plan.capacity_tokens)
        self._places = BatchPlaces(
            model.config,
            num_places=plan.max_batch,
            max_pages=-(-longest // plan.page_size),
            device=model.device,
        )
        self._sampling = SamplingState(
            num_slots=plan.max_batch,
            vocab=model.config.vocab_size,
            device=model.device,
            most_edits=MOST_EDITS * plan.max_batch,
        )
        self._slots = AdapterSlots(model, num_slots=_MOST_ADAPTERS)
        self._graphs = DecodeGraphs(
            model,
            ops,
            arena,
            places=self._places,
            slots=self._slots,
            sampling=self._sampling,
            max_batch=plan.max_batch,
        )

    @torch.inference_mode()
    def launch(self, chunks: Many[Chunk]) -> LaunchedStep:
        for sequence, place in self._places.take([chunk.sequence for chunk in chunks]):
            self._sampling.admit(place, sampling_row(sequence))
        sampling = [chunk for chunk in chunks if chunk.yields_token]
        if all(_decodes(chunk) for chunk in chunks):
            output = self._replay(chunks)
        else:
            output = self._run(chunks, sampling)
        return _Launched.of(output, sampling)

    def take_adapter(self, name: str, pairs: Many[LayerPairs]) -> None:
        self._slots.check(pairs)
        super().take_adapter(name, pairs)
        try:
            self._slots.take(name)
        except BaseException:
            super().drop_adapter(name)
            raise

    def drop_adapter(self, name: str) -> None:
        super().drop_adapter(name)
        self._slots.drop(name)

    def _stage(self, sampling: Many[Chunk]) -> None:
        """Tell the sampler whose tokens this step draws, and what must not be drawn now."""
        places = [self._places.place(chunk.sequence) for chunk in sampling]
        for place, chunk in zip(places, sampling, strict=True):
            self._sampling.ban(place, banned(chunk.sequence))
        self._sampling.stage(places, [chunk.sequence.num_output for chunk in sampling])

    def _replay(self, chunks: Many[Chunk]) -> DecodeOutput:
        self._stage(chunks)
        slots = [self._slots.slot(chunk.sequence.request.adapter) for chunk in chunks]
        self._graphs.inputs.stage(
            places=[self._places.place(chunk.sequence) for chunk in chunks],
            contexts=[chunk.stop for chunk in chunks],
            tokens=[chunk.sequence.tokens[chunk.start] for chunk in chunks],
            slots=slots,
        )
        return self._graphs.replay(len(chunks), adapted=max(slots) != NOBODY)

    def _run(self, chunks: Many[Chunk], sampling: Many[Chunk]) -> DecodeOutput:
        self._stage(sampling)
        logits = self._model.forward(self._batch(chunks), self._arena)
        output = DecodeOutput(
            logits=logits,
            ids=torch.empty(len(sampling), dtype=torch.int64, device=logits.device),
            finite=torch.empty(len(sampling), dtype=torch.bool, device=logits.device),
        )
        draw(output, self._sampling)
        places = [self._places.place(chunk.sequence) for chunk in sampling]
        self._places.last_ids[self._upload(torch.tensor(places, dtype=torch.int64))] = output.ids
        return output

    def _upload(self, tensor: Tensor) -> Tensor:
        return pinned(tensor).to(self._model.device, non_blocking=True)

    def _token_ids(self, chunks: Many[Chunk], starts: Many[int]) -> Tensor:
        """Tokens that have not come back are taken from where the last step left them."""
        tokens, places = [], []
        for chunk in chunks:
            part = chunk.sequence.tokens[chunk.start : chunk.stop]
            tokens += part
            places += [self._places.place(chunk.sequence)] * len(part)
        ids = self._upload(torch.tensor(tokens))
        last = self._places.last_ids[self._upload(torch.tensor(places))]
        return torch.where(ids == UNKNOWN, last, ids.clamp(min=0))


def _decodes(chunk: Chunk) -> bool:
    """Whether the chunk is one row that needs nothing but its token's embedding."""
    return (
        chunk.yields_token
        and chunk.stop - chunk.start == 1
        and chunk.sequence.tokens[chunk.start] != IMAGE_TOKEN
    )


def _to_host(tensor: Tensor) -> Tensor:
    """On its way into memory that the device can write by itself."""
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Launched:
    """What a step brings back, on its way into host memory until `arrived`."""

    arrived: torch.cuda.Event
    ids: Tensor
    finite: Tensor
    top: TopLogprobs | None
    wanted: tuple[int | None, ...]  # of each row, how many of the likeliest tokens

    @classmethod
    def of(cls, output: DecodeOutput, sampling: Many[Chunk]) -> "_Launched":
        wanted = tuple(chunk.sequence.request.top_logprobs for chunk in sampling)
        top = None
        if any(count is not None for count in wanted):
            found = top_logprobs(output.logits, output.ids, max(count or 0 for count in wanted))
            top = TopLogprobs(
                chosen=_to_host(found.chosen),
                ids=_to_host(found.ids),
                values=_to_host(found.values),
            )
        launched = cls(
            arrived=torch.cuda.Event(),  # type: ignore[no-untyped-call]
            ids=_to_host(output.ids),
            finite=_to_host(output.finite),
            top=top,
            wanted=wanted,
        )
        launched.arrived.record()
        return launched

    def tokens(self) -> list[SampledToken | None]:
        self.arrived.synchronize()
        ids, finite = self.ids.tolist(), self.finite.tolist()
        return [
            SampledToken(token_id=ids[row], logprob=self._logprob(row, ids[row]))
            if finite[row]
            else None
            for row in range(len(ids))
        ]

    def _logprob(self, row: int, token_id: int) -> TokenLogprob | None:
        count = self.wanted[row]
        if count is None or self.top is None:
            return None
        return self.top.of_row(row, token_id, count)
