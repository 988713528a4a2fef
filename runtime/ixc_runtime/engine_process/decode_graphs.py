"""A decode step as one CUDA graph: from the sequences' places to their next tokens.

A graph has fixed shapes, so there is one for each of a ladder of batch sizes, and rows that nobody
needs pad a batch to the next size. Each size has two: in one no row takes an adapter, in the other
any row may take any. All of a step is inside: embedding, layers, sampling. What a step reads lies
at fixed addresses: the tables by place, the adapters by slot, and one small array of inputs.
"""

import logging
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ixc_cuda.sampling import SamplingState, sample
from ixc_cuda.step_inputs import step_inputs
from ixc_runtime.engine_process.adapter_slots import AdapterSlots, GroupedAdapters
from ixc_runtime.engine_process.batch_places import BatchPlaces
from ixc_runtime.engine_process.decode_inputs import DecodeInputs
from ixc_runtime.engine_process.graph_capture import Capturing
from ixc_runtime.model.adapters import RoutedAdapters
from ixc_runtime.model.decoder import Model, StepPlan
from ixc_runtime.model.kv_arena import KvArena
from ixc_runtime.ops import Rotary
from ixc_runtime.ops.cuda import CudaOps

_log = logging.getLogger(__name__)


def batch_sizes(max_batch: int) -> tuple[int, ...]:
    """1, 2, 4, 8, 16, then steps of an eighth to a quarter: little padding, few graphs."""
    sizes = [size for size in (1, 2, 4, 8) if size < max_batch]
    size = 16
    while size < max_batch:
        sizes.append(size)
        size += max(8, 1 << (size.bit_length() - 3))
    return (*sizes, max_batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeOutput:
    """All graphs write to the same addresses: a step's outputs are read before the next begins."""

    logits: Tensor  # (rows, vocab)
    ids: Tensor  # (rows) int64
    finite: Tensor  # (rows)

    def of(self, num_rows: int) -> "DecodeOutput":
        """The first rows alone."""
        return DecodeOutput(
            logits=self.logits[:num_rows], ids=self.ids[:num_rows], finite=self.finite[:num_rows]
        )


class DecodeGraphs:
    """All captured when it is made."""

    def __init__(
        self,
        model: Model,
        ops: CudaOps,
        arena: KvArena,
        *,
        places: BatchPlaces,
        slots: AdapterSlots,
        sampling: SamplingState,
        max_batch: int,
    ) -> None:
        self._model = model
        self._ops = ops
        self._arena = arena
        self._places = places
        self._slots = slots
        self._sampling = sampling
        self._sizes = batch_sizes(max_batch)
        device = model.device
        self.inputs = DecodeInputs(
            max_batch=max_batch, num_slots=slots.num_slots, nobody=places.nobody, device=device
        )
        vocab = model.config.vocab_size
        self._output = DecodeOutput(
            logits=torch.empty(max_batch, vocab, dtype=model.dtype, device=device),
            ids=torch.empty(max_batch, dtype=torch.int64, device=device),
            finite=torch.empty(max_batch, dtype=torch.bool, device=device),
        )
        self._graphs = self._capture_all()

    def replay(self, num_rows: int, *, adapted: bool) -> DecodeOutput:
        """Run the step that is staged in `inputs` and in the sampler; outputs of its rows."""
        size = next(size for size in self._sizes if size >= num_rows)
        self._graphs[size, adapted].replay()
        return self._output.of(num_rows)

    @torch.inference_mode()
    def _capture_all(self) -> dict[tuple[int, bool], torch.cuda.CUDAGraph]:
        """The largest first: the smaller reuse its memory. Their rows are nobody's."""
        self._sampling.stage([], [])
        device = self._model.device
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved(device)
        capturing = Capturing(device)
        graphs = {}
        with capturing.session():
            for size in reversed(self._sizes):
                for adapted in (True, False):
                    graphs[size, adapted] = capturing.capture(
                        f"a decode step of {size} rows",
                        partial(self._compute, size, adapted=adapted),
                    )
        _log.info(
            "%d graphs of decode steps, of up to %d rows, take %.0f MiB of %s",
            len(graphs),
            self._sizes[-1],
            (torch.cuda.memory_reserved(device) - before) / 2**20,
            device,
        )
        return graphs

    def _compute(self, size: int, *, adapted: bool) -> None:
        places, inputs, output = self._places, self.inputs, self._output.of(size)
        step = step_inputs(
            inputs.rows[:, :size],
            places.page_tables,
            places.frequencies,
            places.last_ids,
            page_size=self._arena.page_size,
        )
        plan = StepPlan(
            adapters=GroupedAdapters(self._slots, inputs.groups) if adapted else RoutedAdapters(),
            rotary=Rotary(cos=step.cos, sin=step.sin),
            slots=step.slots,
            attention=self._ops.plan_decode(step.context_lengths, step.page_tables),
        )
        x = self._model.embed_ids(step.token_ids)
        self._model.compute(x, plan, self._arena, out=output.logits)
        draw(output, self._sampling)
        places.last_ids[inputs.places[:size]] = output.ids


def draw(output: DecodeOutput, sampling: SamplingState) -> None:
    """The next token of each staged row, and whether its logits are finite."""
    rows = output.logits.shape[0]
    sample(output.logits, sampling, rows, out_ids=output.ids, out_finite=output.finite)
