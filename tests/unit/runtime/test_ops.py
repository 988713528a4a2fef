"""The CPU operations beside their definitions, at the sizes where batching could go wrong."""

import math

import pytest
import torch
from torch import Tensor

from ixc_cuda import awq_layout
from ixc_runtime.ops import Int4Weight, LowRankPair, Norm, UpBlock
from ixc_runtime.ops.cpu import CpuOps

OPS = CpuOps()
PAGE = 16


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def dense_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The last len(queries) positions of one sequence, head by head."""
    rows, kv_heads, group, dim = queries.shape
    out = torch.empty(rows, kv_heads, group, dim, dtype=queries.dtype)
    for row in range(rows):
        seen = len(keys) - rows + row + 1
        for head in range(kv_heads):
            for member in range(group):
                scores = keys[:seen, head] @ queries[row, head, member] / math.sqrt(dim)
                out[row, head, member] = torch.softmax(scores, 0) @ values[:seen, head]
    return out.reshape(rows, -1)


STEPS = {
    "one sequence decodes": [(1, 37)],
    "one sequence's first token": [(1, 1)],
    "several decode at equal length": [(1, 20), (1, 20), (1, 20)],
    "several decode at unequal lengths": [(1, 1), (1, 17), (1, 16), (1, 40)],
    "very unequal lengths": [(1, 3), (1, 1500), (1, 600), (1, 40), (1, 700)],
    "a prompt from its start": [(23, 23)],
    "a chunk of a prompt": [(7, 30)],
    "prompts among decoding": [(1, 9), (5, 5), (1, 33), (16, 48), (2, 18)],
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
@pytest.mark.parametrize("consecutive", [True, False], ids=["consecutive pages", "any pages"])
def test_attention_over_pages(step: list[tuple[int, int]], consecutive: bool) -> None:
    """Each row attends to all of its own sequence up to itself, and to nothing else."""
    kv_heads, group, dim = 2, 3, 8
    needed = [-(-length // PAGE) for _, length in step]
    order = torch.arange(sum(needed))
    if not consecutive:
        order = torch.randperm(len(order), generator=torch.Generator().manual_seed(5))
    arena_keys = random(len(order), PAGE, kv_heads, dim, seed=1)
    arena_values = random(len(order), PAGE, kv_heads, dim, seed=2)
    tables = torch.zeros(len(step), max(needed), dtype=torch.int64)
    queries, expected, starts, taken = [], [], [0], 0
    for index, ((rows, length), pages) in enumerate(zip(step, needed, strict=True)):
        mine = order[taken : taken + pages]
        tables[index, :pages] = mine
        taken += pages
        queries.append(random(rows, kv_heads, group, dim, seed=10 + index))
        keys, values = (arena[mine].flatten(0, 1)[:length] for arena in (arena_keys, arena_values))
        expected.append(dense_attention(queries[-1], keys, values))
        starts.append(starts[-1] + rows)
    plan = OPS.plan_attention(tuple(starts), tuple(length for _, length in step), tables, PAGE)
    actual = OPS.attend(torch.cat(queries), arena_keys, arena_values, plan)
    torch.testing.assert_close(actual, torch.cat(expected))


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_slots_behind_a_sequence_are_as_if_they_were_not(step: list[tuple[int, int]]) -> None:
    """They may hold what another has left there, NaN where its output was not finite; so may the
    page that stands where a table has no more.
    """
    kv_heads, group, dim = 2, 3, 8
    needed = [-(-length // PAGE) for _, length in step]
    arena = torch.full((1 + sum(needed), PAGE, kv_heads, dim), torch.nan, dtype=torch.float64)
    tables = torch.zeros(len(step), max(needed), dtype=torch.int64)
    starts, taken = [0], 1
    for index, ((rows, length), pages) in enumerate(zip(step, needed, strict=True)):
        tables[index, :pages] = torch.arange(taken, taken + pages)
        arena[taken : taken + pages].flatten(0, 1)[:length] = random(length, kv_heads, dim)
        taken += pages
        starts.append(starts[-1] + rows)
    before = arena.clone()
    queries = random(starts[-1], kv_heads, group, dim)
    plan = OPS.plan_attention(tuple(starts), tuple(length for _, length in step), tables, PAGE)

    assert OPS.attend(queries, arena, arena, plan).isfinite().all()
    torch.testing.assert_close(arena, before, rtol=0, atol=0, equal_nan=True)


def test_rotation_and_store() -> None:
    """Queries and keys turn by their position's angle, values stay; both go to their slots only."""
    kv_heads, group, dim = 2, 3, 8
    positions, slots = torch.tensor([0, 5, 100]), torch.tensor([40, 3, 17])
    bases = torch.tensor([100.0, 100.0, 9000.0], dtype=torch.float64)
    qkv = random(3, kv_heads * (group + 2) * dim)
    keys, values = torch.zeros(3, PAGE, kv_heads, dim).double(), torch.zeros(3, PAGE, kv_heads, dim)
    values = values.double()
    rotary = OPS.rotary(positions, bases, dim, like=qkv)
    queries = OPS.rotate_and_store(qkv, rotary, keys, values, slots)
    heads = qkv.view(3, kv_heads, group + 2, dim)
    for row in range(3):
        frequencies = bases[row] ** (-torch.arange(0, dim, 2).double() / dim)
        turn = torch.polar(torch.ones(4).double(), positions[row] * frequencies)
        pairs = torch.complex(heads[row, ..., : dim // 2], heads[row, ..., dim // 2 :]) * turn
        rotated = torch.cat([pairs.real, pairs.imag], -1)
        torch.testing.assert_close(queries[row], rotated[:, :group])
        torch.testing.assert_close(keys.flatten(0, 1)[slots[row]], rotated[:, group])
        torch.testing.assert_close(values.flatten(0, 1)[slots[row]], heads[row, :, group + 1])
    untouched = torch.ones(3 * PAGE, dtype=torch.bool)
    untouched[slots] = False
    assert keys.flatten(0, 1)[untouched].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm(dtype: torch.dtype) -> None:
    """Statistics in float32, rounded to the input's dtype before the weight is applied."""
    x, weight = random(5, 48, dtype=torch.float32).to(dtype), random(48, seed=1).to(dtype)
    wide = x.float()
    scaled = (wide / (wide.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()).to(dtype)
    torch.testing.assert_close(OPS.rms_norm(x, Norm(weight=weight, eps=1e-5)), scaled * weight)


@pytest.mark.parametrize("rows", [None, [3], [0, 2, 3], []], ids=str)
def test_low_rank_of_fused_linears(rows: list[int] | None) -> None:
    """Each block takes its own ranks and adds to its own outputs, in the chosen rows alone."""
    x, y = random(4, 6), random(4, 7, seed=1)
    down, first, second = random(5, 6, seed=2), random(3, 2, seed=3), random(4, 3, seed=4)
    pair = LowRankPair(
        down=down,
        blocks=(
            UpBlock(up=first, first_rank=0, first_output=0),
            UpBlock(up=second, first_rank=2, first_output=3),
        ),
    )
    delta = torch.cat([x @ down[:2].T @ first.T, x @ down[2:].T @ second.T], -1)
    chosen = torch.zeros(4, 1).double()
    chosen[list(range(4)) if rows is None else rows] = 1.0
    expected = y + chosen * delta
    index = None if rows is None else torch.tensor(rows, dtype=torch.int64)
    OPS.add_low_rank(y, x, pair, rows=index)
    torch.testing.assert_close(y, expected)


def test_swiglu() -> None:
    """The first half gates the second."""
    x = random(3, 10)
    expected = x[:, :5] * torch.sigmoid(x[:, :5]) * x[:, 5:]
    torch.testing.assert_close(OPS.swiglu(x), expected)


@pytest.mark.parametrize("shape", [(40, 8), (8, 40), (8, 8)], ids=str)
def test_prepared_weight_is_the_same_matrix(shape: tuple[int, int]) -> None:
    """Only its memory layout changes."""
    weight = random(*shape)
    assert torch.equal(weight, OPS.linear_weight(weight))


def test_int4_weights() -> None:
    """Packed or unpacked beforehand: the same product, w1 beside w3 as one over the other."""
    parts = [awq_layout.quantize(random(24, 64, seed=seed).float(), 32) for seed in (1, 2)]
    packed = Int4Weight(
        qweight=torch.cat([part.qweight for part in parts], 1),
        qzeros=torch.cat([part.qzeros for part in parts], 1),
        scales=torch.cat([part.scales for part in parts], 1),
        group_size=32,
    )
    dense = torch.cat([awq_layout.dequantize(part, 32) for part in parts])
    x = random(3, 64).float()
    expected = x @ dense.t()
    for weight in (packed, OPS.int4_weight(packed, torch.float32)):
        torch.testing.assert_close(OPS.linear(x, weight), expected)
    assert packed.nbytes == sum(
        tensor.nbytes for part in parts for tensor in (part.qweight, part.qzeros, part.scales)
    )
