"""Split packed projections, rotate queries and keys, write keys and values into their pages.

    qkv           (rows, kv_heads * (group + 2) * head_dim): per KV head its queries, key, value
    cos, sin      (rows, head_dim / 2) float32, or any shape of as many numbers in that order
    keys, values  (pages, page_size, kv_heads, head_dim), one layer's
    slots         (rows,) int64: page * page_size + offset; -1 writes nothing
    out           (rows, kv_heads, group, head_dim): the queries, rotated

A head's left half turns with its right one: left * cos - right * sin, right * cos + left * sin, in
float32, rounded once. All but the tables and slots are bf16 or fp16; head_dim a multiple of 16.
"""

import torch
from torch import Tensor

from ixc_cuda.catalogue import Instantiation
from ixc_cuda.kernel import load_kernel
from ixc_cuda.operands import NARROW, narrow_name, require, require_vectors

_SOURCE = "rotary.cu"
_THREADS = 128

INSTANTIATIONS = tuple(
    Instantiation(
        source=_SOURCE, name=f"rotate_and_store<{dtype}>", architectures=("sm_80", "sm_90")
    )
    for dtype in NARROW.values()
)


def rotate_and_store(  # noqa: PLR0917 - the signature of Ops, tables apart
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    *,
    out: Tensor | None = None,
) -> Tensor:
    rows, width = qkv.shape
    kv_heads, head_dim = keys.shape[-2:]
    heads = width // head_dim
    group = heads // kv_heads - 2
    if group < 1 or width != kv_heads * (group + 2) * head_dim:
        raise ValueError(
            f"rows of {width} are not {kv_heads} KV heads' queries, key and value of {head_dim}"
        )
    if head_dim % 16:
        raise ValueError(f"heads of {head_dim} are not a multiple of 16")
    dtype = narrow_name("qkv", qkv)
    if out is None:
        out = torch.empty((rows, kv_heads, group, head_dim), dtype=qkv.dtype, device=qkv.device)
    require_vectors("qkv", qkv, qkv.dtype, (rows, width))
    require_vectors("cos", cos, torch.float32, (rows, head_dim // 2))
    require_vectors("sin", sin, torch.float32, (rows, head_dim // 2))
    require_vectors("keys", keys, qkv.dtype, tuple(keys.shape))
    require_vectors("values", values, qkv.dtype, tuple(keys.shape))
    require("slots", slots, torch.int64, (rows,))
    require_vectors("out", out, qkv.dtype, (rows, kv_heads, group, head_dim))
    if rows == 0:
        return out

    threads_a_row = heads * (head_dim // 16)
    load_kernel(_SOURCE, f"rotate_and_store<{dtype}>").launch(
        (rows, -(-threads_a_row // _THREADS), 1),
        _THREADS,
        (qkv, cos, sin, keys, values, slots, out, kv_heads, group, head_dim),
        overlap=True,
    )
    return out
