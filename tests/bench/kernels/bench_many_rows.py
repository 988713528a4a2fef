"""A decode step's linear layers at 16 to 128 rows, beside cuBLAS: all of the 7B model's, then each.

The step is that of `bench_few_rows`, norms, rotation, residuals and SwiGLU included, attention not;
cuBLAS has separate kernels around it where ours needs none.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from ixc_cuda.many_rows import many_rows_linear
from ixc_cuda.rms_norm import rms_norm
from ixc_cuda.rotary import rotate_and_store
from ixc_cuda.swiglu import swiglu
from tests.bench.gpu import Context, Row
from tests.bench.kernels.bench_few_rows import (
    EPS,
    HEAD_DIM,
    HIDDEN,
    INTERMEDIATE,
    KV_HEADS,
    LINEARS,
    PACKED,
    VOCABULARY,
    Layer,
    Weights,
)

_GROUP = PACKED // (KV_HEADS * HEAD_DIM) - 2


def rows(context: Context) -> Iterator[Row]:
    weights = Weights()
    for num_rows in (16, 32, 64, 96, 128):
        for name, products in (("", _Ours), (" torch, cuBLAS", _Cublas)):
            step = _Step(weights, products(), num_rows)
            timing = context.time([step])
            yield context.row(
                f"linears bf16 rows={num_rows}{name}",
                timing,
                num_bytes=weights.num_bytes,
                operations=weights.num_bytes * num_rows,
            )
    for num_rows in (32, 64, 128):
        for name, products in (("", _Ours), (" torch, cuBLAS", _Cublas)):
            step = _Step(weights, products(), num_rows)
            for linear, calls in step.each_linear().items():
                num_bytes = weights.layers[0][linear].nbytes
                timing = context.time(calls)
                yield context.row(
                    f"linear {linear} rows={num_rows}{name}",
                    timing,
                    num_bytes=num_bytes,
                    operations=num_bytes * num_rows,
                )


class _Ours:
    def into(self, x: Tensor, weight: Tensor, out: Tensor) -> None:
        many_rows_linear(x, weight, out=out)

    def add(self, x: Tensor, weight: Tensor, to: Tensor) -> None:
        many_rows_linear(x, weight, add_to=to)

    def gated(self, x: Tensor, weight: Tensor, out: Tensor) -> None:
        many_rows_linear(x, weight, swiglu=True, out=out)


class _Cublas:
    def into(self, x: Tensor, weight: Tensor, out: Tensor) -> None:
        torch.mm(x, weight.T, out=out)

    def add(self, x: Tensor, weight: Tensor, to: Tensor) -> None:
        to.addmm_(x, weight.T)

    def gated(self, x: Tensor, weight: Tensor, out: Tensor) -> None:
        swiglu(torch.mm(x, weight.T), out=out)


class _Step:
    """Buffers of one number of rows, and the launches of a step."""

    def __init__(self, weights: Weights, products: _Ours | _Cublas, num_rows: int) -> None:
        self.weights, self.products = weights, products
        self.x, self.normed = _normal(num_rows, HIDDEN), _normal(num_rows, HIDDEN)
        self.qkv, self.inner = _normal(num_rows, PACKED), _normal(num_rows, INTERMEDIATE)
        self.queries = _normal(num_rows, KV_HEADS, _GROUP, HEAD_DIM)
        self.logits = _normal(num_rows, VOCABULARY)
        self.keys, self.values = (_normal(2, 64, KV_HEADS, HEAD_DIM) for _ in "kv")
        self.slots = torch.arange(num_rows, device="cuda")
        angles = torch.rand(num_rows, HEAD_DIM // 2, device="cuda")
        self.cos, self.sin = angles.cos(), angles.sin()

    def __call__(self) -> None:
        for layer in self.weights.layers:
            rms_norm(self.x, layer["attention_norm"], EPS, out=self.normed)
            self._wqkv(layer)
            rotate_and_store(
                *(self.qkv, self.cos, self.sin, self.keys, self.values, self.slots),
                out=self.queries,
            )
            self._wo(layer)
            rms_norm(self.x, layer["ffn_norm"], EPS, out=self.normed)
            self._gate_and_up(layer)
            self._w2(layer)
        rms_norm(self.x, self.weights.norm, EPS, out=self.normed)
        self.products.into(self.normed, self.weights.output, self.logits)

    def each_linear(self) -> dict[str, list[Callable[[], None]]]:
        """Launches of one linear after the other, all layers' of one kind."""
        launches = (self._wqkv, self._wo, self._gate_and_up, self._w2)
        return {
            name: [partial(launch, layer) for layer in self.weights.layers]
            for name, launch in zip(LINEARS, launches, strict=True)
        }

    def _wqkv(self, layer: Layer) -> None:
        self.products.into(self.normed, layer["wqkv"], self.qkv)

    def _wo(self, layer: Layer) -> None:
        self.products.add(self.queries.flatten(1), layer["wo"], self.x)

    def _gate_and_up(self, layer: Layer) -> None:
        self.products.gated(self.normed, layer["gate_and_up"], self.inner)

    def _w2(self, layer: Layer) -> None:
        self.products.add(self.inner, layer["w2"], self.x)


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16) * shape[-1] ** -0.5
