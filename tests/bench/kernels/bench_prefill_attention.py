"""Prefill attention of the 7B model's shapes, beside torch's cuDNN and FlashAttention-2.

All prompts from their first row on, 32 query heads of 128. Ours reads 8 KV heads from scattered
pages; torch's get 32 of them, side by side, since neither of its kernels is faster with 8.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from ixc_cuda.prefill_attention import plan_prefill, prefill_attention
from tests.bench.gpu import Call, Context, Row

KV_HEADS, GROUP, HEAD_DIM, PAGE_SIZE = 8, 4, 128, 64
HEADS = KV_HEADS * GROUP

# Sequences and their lengths.
PROMPTS = ((1, 512), (256, 512), (1, 2048), (1, 8192), (1, 32768))

PEERS = {
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "FlashAttention-2": SDPBackend.FLASH_ATTENTION,
}
AMPERE = (8, 0)


def rows(context: Context) -> Iterator[Row]:
    for count, length in PROMPTS:
        kinds = {"ours": partial(_ours, count, length)}
        if context.device.capability != AMPERE:
            kinds["ours, as on sm_80"] = partial(_ours, count, length, AMPERE)
        for name, backend in PEERS.items():
            kinds[f"torch, {name}"] = partial(_torch, count, length, backend)
        # A row sees half of the slots, on average; scores and sums take 2 operations a number each.
        operations = count * length * (length + 1) // 2 * HEADS * HEAD_DIM * 4
        num_bytes = count * length * (2 * HEADS + 2 * KV_HEADS) * HEAD_DIM * 2
        for name, make in kinds.items():
            timing = context.time([make() for _ in range(min(context.num_sets(num_bytes), 4))])
            yield context.row(
                f"prefill attention bf16 {count} x {length} {name}",
                timing,
                num_bytes=num_bytes,
                operations=operations,
            )


def _ours(count: int, length: int, capability: tuple[int, int] | None = None) -> Call:
    num_pages = count * length // PAGE_SIZE
    keys, values = (_normal(num_pages, PAGE_SIZE, KV_HEADS, HEAD_DIM) for _ in "kv")
    queries = _normal(count * length, KV_HEADS, GROUP, HEAD_DIM)
    plan = plan_prefill(
        tuple(range(0, count * length + 1, length)),
        (length,) * count,
        torch.randperm(num_pages, device="cuda").view(count, -1),
        PAGE_SIZE,
        group=GROUP,
    )
    out = torch.empty_like(queries.flatten(1))
    return partial(prefill_attention, queries, keys, values, plan, out=out, capability=capability)


def _torch(count: int, length: int, backend: SDPBackend) -> Call:
    queries, keys, values = (
        _normal(count, length, HEADS, HEAD_DIM).transpose(1, 2) for _ in range(3)
    )

    def call() -> None:
        with sdpa_kernel(backend):
            scaled_dot_product_attention(queries, keys, values, is_causal=True)

    return call


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16)
