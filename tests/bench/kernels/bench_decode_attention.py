"""Decode attention of the 7B model's shapes, beside torch's attention over keys and values at hand.

32 query heads of 128 over 8 KV heads, one row a sequence unless it says otherwise. Ours reads
scattered pages; torch's are given what would first have to be gathered from them, and the queries
that share a KV head as if they were rows.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from ixc_cuda.decode_attention import DecodeWorkspace, decode_attention, plan_decode
from tests.bench.gpu import Call, Context, Row

KV_HEADS, GROUP, HEAD_DIM, PAGE_SIZE = 8, 4, 128, 64

# Sequences, their context and their query rows.
STEPS = (
    *((1, 512, 1), (8, 512, 1), (32, 512, 1), (128, 512, 1), (256, 512, 1)),
    *((1, 4096, 1), (8, 4096, 1), (32, 4096, 1), (64, 4096, 1)),
    *((1, 98_304, 1), (1, 4096, 5), (32, 4096, 5), (32, 4096, 8)),
)
PEERS = {
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "FlashAttention-2": SDPBackend.FLASH_ATTENTION,
}
SLOT_BYTES = 2 * KV_HEADS * HEAD_DIM * 2


def rows(context: Context) -> Iterator[Row]:
    for sequences, length, query_rows in STEPS:
        what = f"decode attention bf16 {sequences} x {length}"
        num_bytes = sequences * length * SLOT_BYTES
        num_sets = context.num_sets(num_bytes)
        if query_rows > 1:
            what += f", {query_rows} rows"
        pool = _Pool(sequences, length, query_rows, num_sets, context.device.multiprocessors)
        timing = context.time(pool.calls)
        yield context.row(f"{what} ours", timing, num_bytes=num_bytes)
        del pool
        if query_rows > 1:
            continue
        for name, backend in PEERS.items():
            timing = context.time([_torch(sequences, length, backend) for _ in range(num_sets)])
            yield context.row(f"{what} torch, {name}", timing, num_bytes=num_bytes)
    for sequences in (1, 256):
        lengths = torch.full((sequences,), 512, dtype=torch.int32, device="cuda")
        workspace = _workspace(sequences, 1, context.device.multiprocessors)
        timing = context.time([partial(plan_decode, lengths, workspace)])
        yield context.row(f"decode plan {sequences} sequences", timing)


class _Pool:
    """Calls on pages that lie anywhere, each on other pages."""

    def __init__(
        self, sequences: int, length: int, query_rows: int, num_sets: int, multiprocessors: int
    ) -> None:
        pages = -(-length // PAGE_SIZE) * sequences
        keys, values = (_normal(num_sets * pages, PAGE_SIZE, KV_HEADS, HEAD_DIM) for _ in "kv")
        order = torch.randperm(num_sets * pages, device="cuda").int()
        tables = order.view(num_sets, sequences, -1)
        queries = _normal(sequences * query_rows, KV_HEADS, GROUP, HEAD_DIM)
        lengths = torch.full((sequences,), length, dtype=torch.int32, device="cuda")
        plan = plan_decode(lengths, _workspace(sequences, query_rows, multiprocessors))
        self.calls: list[Call] = [
            partial(
                decode_attention,
                *(queries, keys, values, table, lengths, plan),
                out=torch.empty_like(queries.flatten(1)),
            )
            for table in tables
        ]


def _workspace(sequences: int, query_rows: int, multiprocessors: int) -> DecodeWorkspace:
    return DecodeWorkspace(
        max_batch=sequences,
        max_query_rows=query_rows,
        kv_heads=KV_HEADS,
        group=GROUP,
        head_dim=HEAD_DIM,
        multiprocessors=multiprocessors,
        device="cuda",
    )


def _torch(sequences: int, length: int, backend: SDPBackend) -> Call:
    queries = _normal(sequences, KV_HEADS, GROUP, HEAD_DIM)
    keys, values = (_normal(sequences, KV_HEADS, length, HEAD_DIM) for _ in "kv")

    def call() -> None:
        with sdpa_kernel(backend):
            scaled_dot_product_attention(queries, keys, values)

    return call


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16)
