"""Sizing an engine: what is chosen, what is refused, and what the plan then says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixc_runtime.config import ModelConfig, TowerShape
from ixc_runtime.engine_process.messages import EngineConfig
from ixc_runtime.engine_process.planning import (
    Memory,
    bytes_per_token,
    make_plan,
    require_memory,
)
from ixc_runtime.errors import FieldInvalid, KvCacheFull, MemoryLow
from ixc_runtime.model.inventory import TowerSizes
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
    *,
    free_bytes: int = 64 * GIB,
    tower_bytes: int = 0,
    backend: str = "cpu",
    **options: object,
) -> tuple[MemoryPlan, int]:
    return make_plan(
        EngineConfig(model="", **options),  # type: ignore[arg-type]
        OFFICIAL,
        Memory(
            weights_bytes=22 * GIB,
            adapters_bytes=5 * GIB,
            tower_bytes=tower_bytes,
            free_bytes=free_bytes,
        ),
        backend=backend,
        dtype="bfloat16",
        dtype_bytes=2,
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


@given(
    free_bytes=st.integers(12 * GIB, 120 * GIB),
    adapter_bytes=st.none() | st.integers(0, 4 * GIB),
    max_batch=st.integers(1, 512),
)
def test_a_gpu_is_divided_and_a_hundredth_of_its_cache_spared(
    free_bytes: int, adapter_bytes: int | None, max_batch: int
) -> None:
    """Steps, users' adapters and the cache take what is free beside weights and tower, but for less
    than a page and what free memory may differ by at the next start.
    """
    made, _ = plan(
        device="cuda",
        backend="cuda",
        free_bytes=free_bytes,
        tower_bytes=GIB,
        adapter_bytes=adapter_bytes,
        max_batch=max_batch,
    )
    left = 22 * GIB + GIB + free_bytes - made.total_bytes
    spared = (left + made.kv_bytes) // 100
    assert spared <= left < spared + made.bytes_per_token * made.page_size + 2
    assert made.adapter_room_bytes == adapter_bytes or adapter_bytes is None


def test_of_a_gpu_a_part_is_for_users_adapters() -> None:
    """A sixteenth of what is left, two gibibytes at most, or what is said; none of a host."""
    assert plan(device="cuda")[0].adapter_room_bytes == 2 * GIB
    assert 0 < (plan(device="cuda", free_bytes=16 * GIB)[0].adapter_room_bytes or 0) < GIB
    assert plan(device="cuda", adapter_bytes=0)[0].adapter_room_bytes == 0
    assert plan(device="cpu")[0].adapter_room_bytes is None


def test_a_cache_that_was_asked_for_leaves_room_for_steps() -> None:
    """It is refused at start, with both figures, rather than by the first long prompt."""
    with pytest.raises(MemoryLow, match=r"20.0 GiB for the cache, .* 24.0 GiB are free") as caught:
        plan(device="cuda", free_bytes=24 * GIB, kv_bytes=20 * GIB)
    assert caught.value.metadata["free"] == str(24 * GIB)
    assert int(caught.value.metadata["required"]) > 24 * GIB


TOWER = TowerSizes(
    shape=TowerShape(tile_size=560, patch_size=14, grid=40),
    channels=1024,
    num_layers=24,
    mlp_size=4096,
)


def require(free_bytes: int, **options: object) -> None:
    require_memory(
        EngineConfig(model="", **options),  # type: ignore[arg-type]
        OFFICIAL,
        TOWER,
        dtype_bytes=2,
        weights_bytes=22 * GIB,
        free_bytes=free_bytes,
    )


def test_what_a_model_needs_at_least_is_told_part_by_part() -> None:
    """Weights, steps, tower and a short context: a card of 24 GiB is refused, one of 40 is not."""
    with pytest.raises(MemoryLow) as caught:
        require(24 * GIB, device="cuda")
    message = caught.value.message
    assert "22.0 GiB for weights" in message
    assert "for steps" in message and "for the tower" in message
    assert "128.0 MiB for the cache" in message
    assert message.endswith("24.0 GiB are free")
    assert "users" not in message
    require(40 * GIB, device="cuda")
    require(23 * GIB, device="cpu")


def test_what_was_asked_for_is_needed() -> None:
    """A cache, a context, room for adapters: whoever names one gets it or is refused."""
    require(39 * GIB, device="cuda", kv_bytes=4 * GIB)
    for options in (
        {"kv_bytes": 20 * GIB},
        {"max_context": 98304},
        {"adapter_bytes": 12 * GIB},
        {"max_batch": 16384},
    ):
        with pytest.raises(MemoryLow):
            require(39 * GIB, device="cuda", **options)
    with pytest.raises(FieldInvalid, match="tiles_per_step is 0"):
        require(40 * GIB, tiles_per_step=0)


@given(st.integers(40 * GIB, 200 * GIB), st.integers(0, 2 * GIB))
def test_an_engine_that_starts_again_finds_room_for_what_the_first_one_had(
    free_bytes: int, tower_bytes: int
) -> None:
    """Whatever its tower really takes, and with a little less free: what was left is neither
    refused beforehand nor in the plan, which is the same again.
    """
    before = free_bytes - 22 * GIB - tower_bytes
    first, context = plan(device="cuda", free_bytes=before, tower_bytes=tower_bytes)
    again = {"kv_bytes": first.kv_bytes, "adapter_bytes": first.adapter_room_bytes}
    taken = first.kv_bytes // 100  # by somebody else

    require(free_bytes - taken, device="cuda", **again)
    assert plan(device="cuda", free_bytes=before - taken, tower_bytes=tower_bytes, **again) == (
        first,
        context,
    )


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
        {"adapter_bytes": -1},
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
