"""Sampling of the 7B model's logits, beside torch's argmax, and its softmax with one draw.

Logits like a model's: a bell with a few tokens far above it. `flat` has none, so that a nucleus is
tens of thousands of tokens.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ixc_cuda.sampling import SamplingState, sample
from ixc_runtime.sampling.sampler import SamplingRow
from tests.bench.gpu import Call, Context, Row
from tests.fakes.sampling_judge import PLAIN

VOCAB = 92544
BATCHES = (1, 8, 32, 64, 128, 256)

_HISTORY = {token_id: 1 + token_id % 3 for token_id in range(0, VOCAB, 97)}
SETTINGS = {
    "greedy": replace(PLAIN, temperature=0.0),
    "temperature": PLAIN,
    "top_k=50 top_p=0.8": replace(PLAIN, top_k=50, top_p=0.8),
    "top_p=0.8": replace(PLAIN, top_p=0.8),
    "top_p=0.8 flat": replace(PLAIN, top_p=0.8),
    "top_k=50 top_p=0.8 penalties": replace(
        PLAIN, top_k=50, top_p=0.8, repetition_penalty=1.1, generated=_HISTORY
    ),
}


def rows(context: Context) -> Iterator[Row]:
    for batch in BATCHES:
        # Each logit once, whatever is done with it.
        num_bytes = batch * VOCAB * 2
        sets = min(context.num_sets(num_bytes), 16)
        for name, settings in SETTINGS.items():
            calls = _ours(batch, settings, sets, peaked="flat" not in name)
            timing = context.time(calls)
            yield context.row(f"sampling bf16 batch={batch} {name}", timing, num_bytes=num_bytes)
        for name, call in (("torch argmax", _argmax), ("torch softmax and draw", _softmax)):
            calls = [partial(call, _logits(batch)) for _ in range(sets)]
            timing = context.time(calls)
            yield context.row(f"sampling bf16 batch={batch} {name}", timing, num_bytes=num_bytes)


def _logits(batch: int, *, peaked: bool = True) -> Tensor:
    logits = torch.randn(batch, VOCAB, device="cuda") * 2
    if peaked:
        few = torch.randint(VOCAB, (batch, 30), device="cuda")
        logits.scatter_add_(1, few, torch.rand(batch, 30, device="cuda") * 15)
    return logits.bfloat16()


def _ours(batch: int, settings: SamplingRow, sets: int, *, peaked: bool) -> list[Call]:
    state = SamplingState(num_slots=batch, vocab=VOCAB, device=torch.device("cuda"))
    for slot in range(batch):
        state.admit(slot, replace(settings, seed=slot))
    state.stage(range(batch), [0] * batch)
    out_ids = torch.zeros(batch, dtype=torch.int64, device="cuda")
    out_finite = torch.zeros(batch, dtype=torch.bool, device="cuda")
    return [
        partial(
            sample,
            _logits(batch, peaked=peaked),
            state,
            batch,
            out_ids=out_ids,
            out_finite=out_finite,
        )
        for _ in range(sets)
    ]


def _argmax(logits: Tensor) -> Tensor:
    return logits.argmax(dim=-1)


def _softmax(logits: Tensor) -> Tensor:
    return torch.multinomial(logits.float().softmax(dim=-1), 1)
