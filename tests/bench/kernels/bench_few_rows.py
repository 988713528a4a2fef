"""A decode step's linear layers at 1 to 16 rows, beside cuBLAS: all of the 7B model's, then each.

The step is every layer's wqkv, wo, w1 over w3 and w2, each with weights of its own (14.7 GB), then
the output layer, in one CUDA graph: with norm, residual and SwiGLU fused and the rotation between,
but without attention. cuBLAS does the bare products; at 32 rows it is all there is.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from ixc_cuda.few_rows import few_rows_linear
from ixc_cuda.rotary import rotate_and_store
from tests.bench.gpu import Context, Row

LAYERS, HIDDEN, INTERMEDIATE, VOCABULARY = 32, 4096, 14336, 92544
KV_HEADS, GROUP, HEAD_DIM = 8, 4, 128
PACKED = KV_HEADS * (GROUP + 2) * HEAD_DIM
EPS = 1e-5


def rows(context: Context) -> Iterator[Row]:
    weights = Weights()
    for num_rows in (1, 2, 4, 8, 16):
        step = _Step(weights, num_rows)
        timing = context.time([step.ours])
        yield context.row(f"linears bf16 rows={num_rows}", timing, num_bytes=weights.num_bytes)
    for num_rows in (1, 16, 32):
        step = _Step(weights, num_rows)
        timing = context.time([step.cublas])
        name = f"linears bf16 rows={num_rows} torch, cuBLAS"
        yield context.row(name, timing, num_bytes=weights.num_bytes)
    for num_rows in (1, 16):
        step = _Step(weights, num_rows)
        for name, calls in step.each_linear().items():
            num_bytes = weights.layers[0][name].nbytes
            timing = context.time(calls)
            yield context.row(f"linear {name} rows={num_rows}", timing, num_bytes=num_bytes)


Layer = Mapping[str, Tensor]
LINEARS = ("wqkv", "wo", "gate_and_up", "w2")


class Weights:
    def __init__(self) -> None:
        self.layers: list[Layer] = [
            {
                "wqkv": _normal(PACKED, HIDDEN),
                "wo": _normal(HIDDEN, HIDDEN),
                "gate_and_up": _normal(2 * INTERMEDIATE, HIDDEN),
                "w2": _normal(HIDDEN, INTERMEDIATE),
                "attention_norm": _normal(HIDDEN),
                "ffn_norm": _normal(HIDDEN),
            }
            for _ in range(LAYERS)
        ]
        self.norm, self.output = _normal(HIDDEN), _normal(VOCABULARY, HIDDEN)
        self.num_bytes = self.output.nbytes + sum(
            layer[name].nbytes for layer in self.layers for name in LINEARS
        )


class _Step:
    """Buffers of one number of rows, and the launches of a step."""

    def __init__(self, weights: Weights, num_rows: int) -> None:
        self.weights = weights
        self.x, self.y = _normal(num_rows, HIDDEN), _normal(num_rows, HIDDEN)
        self.qkv, self.inner = _normal(num_rows, PACKED), _normal(num_rows, INTERMEDIATE)
        self.queries = _normal(num_rows, KV_HEADS, GROUP, HEAD_DIM)
        self.gate_and_up = _normal(num_rows, 2 * INTERMEDIATE)
        self.logits = _normal(num_rows, VOCABULARY)
        self.keys, self.values = (_normal(1, 64, KV_HEADS, HEAD_DIM) for _ in "kv")
        self.slots = torch.arange(num_rows, device="cuda")
        angles = torch.rand(num_rows, HEAD_DIM // 2, device="cuda")
        self.cos, self.sin = angles.cos(), angles.sin()

    def ours(self) -> None:
        for layer in self.weights.layers:
            self._wqkv(layer)
            rotate_and_store(
                *(self.qkv, self.cos, self.sin, self.keys, self.values, self.slots),
                out=self.queries,
            )
            self._wo(layer)
            self._gate_and_up(layer)
            self._w2(layer)
        few_rows_linear(
            self.x, self.weights.output, norm=self.weights.norm, eps=EPS, out=self.logits
        )

    def cublas(self) -> None:
        for layer in self.weights.layers:
            torch.mm(self.x, layer["wqkv"].T, out=self.qkv)
            torch.addmm(self.x, self.queries.flatten(1), layer["wo"].T, out=self.y)
            torch.mm(self.x, layer["gate_and_up"].T, out=self.gate_and_up)
            torch.addmm(self.x, self.inner, layer["w2"].T, out=self.y)
        torch.mm(self.x, self.weights.output.T, out=self.logits)

    def each_linear(self) -> dict[str, list[Callable[[], None]]]:
        """Launches of one linear after the other, all layers' of one kind."""
        launches = (self._wqkv, self._wo, self._gate_and_up, self._w2)
        return {
            name: [partial(launch, layer) for layer in self.weights.layers]
            for name, launch in zip(LINEARS, launches, strict=True)
        }

    def _wqkv(self, layer: Layer) -> None:
        few_rows_linear(self.x, layer["wqkv"], norm=layer["attention_norm"], eps=EPS, out=self.qkv)

    def _wo(self, layer: Layer) -> None:
        few_rows_linear(self.queries.flatten(1), layer["wo"], add_to=self.x)

    def _gate_and_up(self, layer: Layer) -> None:
        few_rows_linear(
            self.x,
            layer["gate_and_up"],
            norm=layer["ffn_norm"],
            eps=EPS,
            swiglu=True,
            out=self.inner,
        )

    def _w2(self, layer: Layer) -> None:
        few_rows_linear(self.inner, layer["w2"], add_to=self.x)


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16) * shape[-1] ** -0.5
