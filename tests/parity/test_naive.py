"""Random small models, random batches and chunks: our model beside the plain one."""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ixc_runtime.model.loader import load_model
from tests.fakes.step_driver import IMAGE_TOKEN, Lane, StepDriver
from tests.fakes.tiny_checkpoint import TinyModel, write_tiny_checkpoint
from tests.parity.naive import NaiveModel

# Relative to the largest logit: rounding alone, with room.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
RANKS = st.integers(1, 9)


@st.composite
def models(draw: Callable) -> TinyModel:
    kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    head_dim = 2 * draw(st.integers(2, 9))
    ranks = {}
    if draw(st.booleans()):
        ranks["Plora"] = draw(RANKS)
    if draw(st.booleans()):
        ranks["lora_web"] = draw(RANKS)
    if draw(st.booleans()):
        ranks |= {"lora_sft": draw(RANKS), "lora_dpo": draw(RANKS)}
    return TinyModel(
        hidden=kv_heads * group * head_dim,
        heads=kv_heads * group,
        kv_heads=kv_heads,
        layers=draw(st.integers(1, 2)),
        intermediate=draw(st.integers(3, 70)),
        vocab=draw(st.integers(8, 90)),
        rope_theta=draw(st.sampled_from([100.0, 1e4, 1e6])),
        rope_factor=draw(st.sampled_from([None, 1.0, 2.0, 3.5])),
        max_positions=draw(st.sampled_from([8, 20, 4096])),
        dtype=draw(st.sampled_from(["float32", "bfloat16"])),
        ranks=ranks,
        # The tower is not run here, but only a model that takes images adapts their rows.
        tower=TinyModel().tower if "Plora" in ranks else None,
        shards=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 1000)),
    )


def adapters(model: TinyModel) -> list[str]:
    return [
        "base",
        *(["web"] if "lora_web" in model.ranks else []),
        *(["write"] if "lora_dpo" in model.ranks else []),
    ]


@st.composite
def lanes(draw: Callable, model: TinyModel) -> Lane:
    token = st.integers(0, model.vocab - 1)
    if model.tower is not None:
        token = st.one_of(token, st.just(IMAGE_TOKEN))
    tokens = draw(st.lists(token, min_size=1, max_size=40))
    images = tokens.count(IMAGE_TOKEN)
    generator = torch.Generator().manual_seed(len(tokens))
    features = torch.randn(images, model.hidden, generator=generator) if images else None
    adapter = draw(st.sampled_from(adapters(model)))
    return Lane(tokens=tokens, features=features, adapter=adapter)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(sorted(TOLERANCE, key=str)))
def test_any_model_any_batching(data: st.DataObject, dtype: torch.dtype) -> None:
    """Logits of every token equal the plain model's, however steps are cut and mixed."""
    model = data.draw(models())
    running = data.draw(st.lists(lanes(model), min_size=1, max_size=4))
    # The first begins at once; the others join, each with chunks of its own size.
    starts = [0, *(data.draw(st.integers(0, 1)) for _ in running[1:])]
    chunks = [data.draw(st.sampled_from([1, 2, 7, 16, 100])) for _ in running]
    page_size = data.draw(st.sampled_from([1, 4, 16]))
    with tempfile.TemporaryDirectory() as name:
        folder = write_tiny_checkpoint(Path(name), model)
        naive = NaiveModel(folder)
        ours = load_model(folder, dtype=dtype)
    driver = StepDriver(ours, num_pages=170, page_size=page_size)
    results: list[list[torch.Tensor]] = [[] for _ in running]
    for step in itertools.count():
        if not any(lane.left for lane in running):
            break
        picked = [i for i, lane in enumerate(running) if lane.left and starts[i] <= step]
        outputs = driver.step(*((running[i], min(running[i].left, chunks[i])) for i in picked))
        for i, output in zip(picked, outputs, strict=True):
            results[i].append(output)
    for lane, parts in zip(running, results, strict=True):
        expected = naive.logits(lane.tokens, features=lane.features, adapter=lane.adapter)
        error = (torch.cat(parts).double() - expected).abs().max() / expected.abs().max()
        assert error < TOLERANCE[dtype]


@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_int4_checkpoint(tmp_path: Path, group_size: int) -> None:
    """An AWQ checkpoint in the published layout runs, for every group size, adapters and all."""
    folder = write_tiny_checkpoint(
        tmp_path, hidden=128, heads=4, intermediate=256, awq_group=group_size
    )
    lane = Lane(tokens=[5, 9, 200, 3, 7], adapter="write")
    logits = StepDriver(load_model(folder, dtype=torch.float64)).step((lane, 5))[0]
    expected = NaiveModel(folder).logits(lane.tokens, adapter="write")
    assert (logits - expected).abs().max() / expected.abs().max() < 1e-6  # scales times in float32
