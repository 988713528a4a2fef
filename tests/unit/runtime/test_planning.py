"""Sizing an engine: what is chosen, what is refused, and what the plan then says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixc_runtime.config import ModelConfig
from ixc_runtime.engine_process.messages import EngineConfig
from ixc_runtime.engine_process.planning import bytes_per_token, make_plan
from ixc_runtime.errors import FieldInvalid, KvCacheFull
from ixc_runtime.model_info import MemoryPlan

GIB = 2**30
OFFICIAL = ModelConfig(
    hidden_size=4096,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    intermediate_size=14336,
    vocab_size=92544,
    rms_norm_eps=1e-5,
    rope_theta=1e6,
    rope_scaling_factor=2.0,
    max_position_embeddings=24576,
    bos_token_id=1,
    eos_token_ids=(2,),
    torch_dtype="bfloat16",
    quantization=None,
)


def plan(
    *, free_bytes: int = 64 * GIB, backend: str = "cpu", **options: object
) -> tuple[MemoryPlan, int]:
    return make_plan(
        EngineConfig(model="", **options),  # type: ignore[arg-type]
        OFFICIAL,
        backend=backend,
        dtype="bfloat16",
        dtype_bytes=2,
        weights_bytes=22 * GIB,
        adapters_bytes=5 * GIB,
        free_bytes=free_bytes,
    )


def test_a_token_of_the_official_model_costs_128_kib() -> None:
    """32 layers, 8 KV heads of 128, keys and values, two bytes each."""
    assert bytes_per_token(OFFICIAL, 2) == 128 * 1024


def test_left_alone_it_holds_one_full_context() -> None:
    """24,576 tokens at 128 KiB are 3 GiB: more than the usual gibibyte, so that is taken."""
    made, context = plan()

    assert context == 24576
    assert made.capacity_tokens == 24576


def test_with_little_memory_the_context_shrinks_and_says_so() -> None:
    """Four tenths of the free memory at most, and the limit served is what fits."""
    made, context = plan(free_bytes=2 * GIB)

    assert made.kv_bytes <= 2 * GIB * 4 // 10
    assert context == made.capacity_tokens < 24576


def test_a_context_that_was_asked_for_is_never_shrunk() -> None:
    """Someone who names a length gets it or an error with both numbers."""
    with pytest.raises(KvCacheFull, match="98304 tokens was asked for"):
        plan(max_context=98304, kv_bytes=4 * GIB)


def test_a_cache_too_small_to_be_of_use_is_refused() -> None:
    """Room for 800 tokens is no chat."""
    with pytest.raises(KvCacheFull, match="room for 800 tokens"):
        plan(kv_bytes=100 * 2**20)


def test_a_card_that_steps_alone_would_fill_is_refused_with_the_numbers() -> None:
    """What is free, what steps need, and which setting makes that less."""
    with pytest.raises(KvCacheFull, match=f"{4 * GIB} are free on cuda .* max_step_tokens below"):
        plan(device="cuda", free_bytes=4 * GIB)


@pytest.mark.parametrize("page_size", [8, 24])
def test_pages_that_the_kernels_cannot_read_are_refused(page_size: int) -> None:
    """Plain torch reads any, on whatever device."""
    with pytest.raises(FieldInvalid, match=f"page_size is {page_size}, .* powers of two from 16"):
        plan(device="cuda", backend="cuda", page_size=page_size)

    assert plan(device="cuda", backend="plain torch", page_size=page_size)


@pytest.mark.parametrize(
    "options",
    [
        {"max_batch": 0},
        {"page_size": 0},
        {"max_context": 98305},
        {"queue_limit": -1},
        {"max_batch": 64, "max_step_tokens": 32},
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(options: dict[str, int]) -> None:
    """The message holds the value and the limit."""
    with pytest.raises(FieldInvalid) as caught:
        plan(**options)

    assert caught.value.field in options


@given(
    kv_bytes=st.integers(256 * 2**20, 64 * GIB),
    page_size=st.sampled_from([8, 16, 32, 64, 256]),
)
def test_the_plan_never_takes_more_than_it_was_given(kv_bytes: int, page_size: int) -> None:
    """Pages are rounded down, and the context limit fits into them."""
    made, context = plan(kv_bytes=kv_bytes, page_size=page_size)

    assert made.kv_bytes <= kv_bytes
    assert context <= made.capacity_tokens
    assert made.kv_bytes == made.num_pages * page_size * made.bytes_per_token
