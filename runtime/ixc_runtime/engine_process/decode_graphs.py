"""A decode step as one CUDA graph: from the sequences' places to their next tokens.

A graph has fixed shapes, so there is one for each of a ladder of batch sizes, and rows that nobody
needs pad a batch to the next size. All of a step is inside: embedding, layers, sampling. What a
step reads lies at fixed addresses: the tables by place, and one small array of inputs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ixc_cuda.sampling import SamplingState, sample
from ixc_cuda.step_inputs import step_inputs
from ixc_runtime.engine_process.batch_places import BatchPlaces
from ixc_runtime.model.decoder import Model, StepPlan
from ixc_runtime.model.kv_arena import KvArena
from ixc_runtime.model.linear import Route
from ixc_runtime.ops import Rotary
from ixc_runtime.ops.cuda import CudaOps

# Rows of `DecodeGraphs.inputs`: each sequence's place, its context with this token, and, in the
# third, the token itself (UNKNOWN: the place's last one).
PLACE, CONTEXT = range(2)


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
    """Of one size of batch, at fixed addresses."""

    logits: Tensor  # (rows, vocab)
    ids: Tensor  # (rows) int64
    finite: Tensor  # (rows)


class DecodeGraphs:
    """Graphs by batch size and by the adapters in the batch."""

    def __init__(
        self,
        model: Model,
        ops: CudaOps,
        arena: KvArena,
        places: BatchPlaces,
        sampling: SamplingState,
        *,
        max_batch: int,
    ) -> None:
        self._sizes = batch_sizes(max_batch)
        device = model.device
        self.inputs = torch.zeros(3, max_batch, dtype=torch.int64, device=device)
        self._model = model
        self._ops = ops
        self._arena = arena
        self._places = places
        self._sampling = sampling
        self._graphs: dict[
            tuple[int, tuple[str, ...]], tuple[torch.cuda.CUDAGraph, DecodeOutput]
        ] = {}
        self._masks: dict[str, Tensor] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._max_batch = max_batch

    def padded(self, num_rows: int) -> int:
        """The size of batch that a step of so many sequences runs as."""
        return next(size for size in self._sizes if size >= num_rows)

    def capture_all(self) -> None:
        """Those of batches without adapters, the largest first: the smaller reuse its memory."""
        for size in reversed(self._sizes):
            self.capture(size, ())

    @torch.inference_mode()
    def capture(self, size: int, adapters: tuple[str, ...]) -> None:
        """Make sure that the graph is there. Overwrites inputs: a step sets its own after it."""
        if (size, adapters) in self._graphs:
            return
        self.inputs[PLACE, :size] = self._places.nobody
        self.inputs[CONTEXT, :size] = 0
        self._sampling.stage([], [])
        # Once outside: kernels are loaded and libraries set up before anything is captured.
        self._compute(size, adapters)
        torch.cuda.current_stream().synchronize()
        graph = torch.cuda.CUDAGraph()
        # An adapter may be on its way to the device in a thread beside.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            output = self._compute(size, adapters)
        self._graphs[size, adapters] = graph, output

    def forget_adapters(self) -> None:
        """Adapters have come or gone: graphs that hold their weights are void."""
        self._graphs = {key: value for key, value in self._graphs.items() if not key[1]}
        self._masks.clear()

    def mask(self, adapter: str) -> Tensor:
        """(max_batch, 1): one where the row takes the adapter."""
        if adapter not in self._masks:
            shape = (self._max_batch, 1)
            self._masks[adapter] = torch.zeros(
                shape, dtype=self._model.dtype, device=self._model.device
            )
        return self._masks[adapter]

    def replay(self, size: int, adapters: tuple[str, ...]) -> DecodeOutput:
        """Run a captured step, whose inputs, masks and sampling are set."""
        graph, output = self._graphs[size, adapters]
        graph.replay()
        return output

    def _compute(self, size: int, adapters: tuple[str, ...]) -> DecodeOutput:
        places = self._places
        step = step_inputs(
            self.inputs[:, :size],
            places.page_tables,
            places.frequencies,
            places.last_ids,
            page_size=self._arena.page_size,
        )
        plan = StepPlan(
            routes=tuple(Route(adapter=name, mask=self.mask(name)[:size]) for name in adapters),
            rotary=Rotary(cos=step.cos, sin=step.sin),
            slots=step.slots,
            attention=self._ops.plan_decode(step.context_lengths, step.page_tables),
        )
        x = self._model.embed_ids(step.token_ids)
        logits = self._model.compute(x, plan, self._arena, output_rows=None)
        ids, finite = draw(logits, self._sampling)
        places.last_ids[self.inputs[PLACE, :size]] = ids
        return DecodeOutput(logits=logits, ids=ids, finite=finite)


def draw(logits: Tensor, sampling: SamplingState) -> tuple[Tensor, Tensor]:
    """The next token of each staged row, and whether its logits are finite."""
    rows = logits.shape[0]
    ids = torch.empty(rows, dtype=torch.int64, device=logits.device)
    finite = torch.empty(rows, dtype=torch.bool, device=logits.device)
    sample(logits, sampling, rows, out_ids=ids, out_finite=finite)
    return ids, finite
