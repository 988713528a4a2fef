"""Sizing an engine before anything is allocated: pages, batch, rows and tiles per step.

Pure arithmetic over the model's sizes. What the caller leaves open is chosen here, and everything
chosen is in the MemoryPlan, which is printed at start and served by GetServerInfo.

    of a GPU    |weights|tower|adapters to come|steps and graphs|cache: all that is left|
    of a host   |weights|cache: some of what is left|           (the rest is everybody's)
"""

import sys
from dataclasses import dataclass

from ixc_runtime.byte_sizes import size_text
from ixc_runtime.config import ModelConfig
from ixc_runtime.engine_process.messages import EngineConfig
from ixc_runtime.errors import FieldInvalid, KvCacheFull, MemoryLow
from ixc_runtime.model.inventory import TowerSizes
from ixc_runtime.model_info import MemoryPlan

_GIB = 2**30
# What is chosen for each kind of device where the caller leaves it open.
#
# A CPU step of so many rows of the demo model takes about half a second on two cores: neighbours'
# tokens wait no longer for a prompt. A GPU needs thousands of rows to be busy.
_STEP_TOKENS = {"cpu": 256, "cuda": 8192}
_TILES_PER_STEP = {"cpu": 2, "cuda": 26}
# Small pages waste little of a short context; large ones are read in long pieces.
_PAGE_SIZE = {"cpu": 16, "cuda": 64}
_MAX_BATCH = {"cpu": 16, "cuda": 256}
# Of a GPU, for users' adapters: one of rank 64 takes 300 MB of the 7B model's.
_MOST_ADAPTER_BYTES = 2 * _GIB
_ADAPTER_SHARE = 16
# What is free differs a little between two starts, and a replaced engine is to have the same cache.
_SPARE_SHARE = 100
# A cache of fewer tokens is of no use.
_LEAST_TOKENS = 1024
# Libraries' workspaces, kernels' code and the graphs' own nodes.
_FLAT_SCRATCH_BYTES = 2 * _GIB
_COUNT_BYTES = 4  # of a token of the vocabulary, for each sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What of a device's memory the model has taken by now, and what is free beside that.

    `tower_bytes` is what the tower works in, beside its weights.
    """

    weights_bytes: int
    adapters_bytes: int
    tower_bytes: int
    free_bytes: int


def bytes_per_token(config: ModelConfig, dtype_bytes: int) -> int:
    """Keys and values of one slot, all layers."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * dtype_bytes


def device_kind(device: str) -> str:
    """Either "cpu" or "cuda", whichever card."""
    return device.partition(":")[0]


def batch_limit(config: EngineConfig) -> int:
    """Sequences in one step."""
    if config.max_batch is not None:
        return config.max_batch
    return min(_MAX_BATCH[device_kind(config.device)], config.max_step_tokens or sys.maxsize)


def step_limit(config: EngineConfig) -> int:
    """Rows in one step."""
    least = batch_limit(config)
    return config.max_step_tokens or max(_STEP_TOKENS[device_kind(config.device)], least)


def tiles_in_a_step(config: EngineConfig) -> int:
    """Tiles in one step."""
    return config.tiles_per_step or _TILES_PER_STEP[device_kind(config.device)]


def scratch_bytes(config: EngineConfig, model: ModelConfig, dtype_bytes: int) -> int:
    """What steps need beside weights and cache on a GPU, roughly and rather too much.

    The widest moment of a layer is the SwiGLU: hidden rows, gate and up, their product. Logits
    stand twice as computed and in float32, and once more for all decode graphs. On a host steps
    take little, and of what is everybody's.
    """
    if device_kind(config.device) == "cpu":
        return 0
    of_row = (3 * model.hidden_size + 3 * model.intermediate_size) * dtype_bytes
    of_logits = model.vocab_size * (2 * (dtype_bytes + 4) + dtype_bytes)
    of_sequence = of_logits + model.vocab_size * _COUNT_BYTES
    of_steps = 2 * step_limit(config) * of_row + batch_limit(config) * of_sequence
    # Features of pictures, twice: kept for others to find, and of prompts under way.
    return of_steps + 2 * config.feature_bytes + _FLAT_SCRATCH_BYTES


def tower_scratch_bytes(config: EngineConfig, tower: TowerSizes | None, dtype_bytes: int) -> int:
    """What the tower works in on a GPU, roughly: a layer's input, its heads' and its MLP's rows."""
    if tower is None or device_kind(config.device) == "cpu":
        return 0
    tokens = tower.shape.grid**2 + 1
    return (
        tiles_in_a_step(config) * tokens * (8 * tower.channels + 2 * tower.mlp_size) * dtype_bytes
    )


def require_memory(
    config: EngineConfig,
    model: ModelConfig,
    tower: TowerSizes | None,
    *,
    dtype_bytes: int,
    weights_bytes: int,
    free_bytes: int,
) -> None:
    """Whether the model can be of use at all in what is free before it is loaded.

    Raises MemoryLow with what is needed at least and for what, FieldInvalid for a setting out of
    range.
    """
    check_config(config, model)
    tokens = config.max_context or min(_LEAST_TOKENS, model.max_position_embeddings)
    # Known roughly until its graphs are captured. A cache that is asked for may be all that an
    # engine here before this one had left beside them: it is to fit again.
    tower_bytes = 0 if config.kv_bytes else tower_scratch_bytes(config, tower, dtype_bytes)
    needs = {
        "weights": weights_bytes,
        "steps": scratch_bytes(config, model, dtype_bytes),
        "the tower": tower_bytes,
        "users' adapters": config.adapter_bytes or 0,
        "the cache": config.kv_bytes or tokens * bytes_per_token(model, dtype_bytes),
    }
    required = sum(needs.values())
    if required > free_bytes:
        parts = ", ".join(f"{size_text(size)} for {name}" for name, size in needs.items() if size)
        raise MemoryLow(
            f"the model needs at least {size_text(required)} of {config.device} ({parts}); "
            f"{size_text(free_bytes)} are free",
            required=required,
            free=free_bytes,
        )


def make_plan(
    config: EngineConfig,
    model: ModelConfig,
    memory: Memory,
    *,
    backend: str,
    dtype: str,
    dtype_bytes: int,
) -> tuple[MemoryPlan, int]:
    """The plan, and the context limit that it allows.

    Raises KvCacheFull when not even a short context has room, MemoryLow when what was asked for
    has none, FieldInvalid for a setting out of range.
    """
    check_config(config, model)
    page_size = config.page_size or _PAGE_SIZE[device_kind(config.device)]
    if backend == "cuda" and (page_size < 16 or page_size.bit_count() > 1):
        message = f"page_size is {page_size}, allowed on a GPU: powers of two from 16 up"
        raise FieldInvalid("page_size", message)
    page_bytes = bytes_per_token(model, dtype_bytes) * page_size
    wanted_context = config.max_context or model.max_position_embeddings
    scratch = scratch_bytes(config, model, dtype_bytes)
    adapter_room = _adapter_room(config, memory.free_bytes - scratch)
    kv_bytes = config.kv_bytes
    if kv_bytes is None:
        left = memory.free_bytes - scratch - (adapter_room or 0)
        kv_bytes = _kv_bytes(config, left, -(-wanted_context // page_size) * page_bytes)
    num_pages = kv_bytes // page_bytes
    capacity = num_pages * page_size
    figures = {"kvBytes": kv_bytes, "bytesPerToken": page_bytes // page_size}
    if capacity < min(_LEAST_TOKENS, wanted_context):
        raise KvCacheFull(
            f"the KV cache has room for {capacity} tokens ({kv_bytes} bytes at "
            f"{page_bytes // page_size} a token); {_advice(config, memory, scratch)}",
            **figures,
        )
    if config.max_context is not None and capacity < config.max_context:
        raise KvCacheFull(
            f"a context of {config.max_context} tokens was asked for, the KV cache has room for "
            f"{capacity}",
            **figures,
        )
    _check_fits(config, memory, scratch=scratch, adapter_room=adapter_room, kv_bytes=kv_bytes)
    max_batch = batch_limit(config)
    plan = MemoryPlan(
        device=config.device,
        backend=backend,
        weights_bytes=memory.weights_bytes,
        adapters_bytes=memory.adapters_bytes,
        adapter_room_bytes=adapter_room,
        scratch_bytes=scratch + memory.tower_bytes,
        kv_bytes=num_pages * page_bytes,
        kv_dtype=dtype,
        page_size=page_size,
        num_pages=num_pages,
        bytes_per_token=page_bytes // page_size,
        max_batch=max_batch,
        max_step_tokens=step_limit(config),
        tiles_per_step=tiles_in_a_step(config),
        queue_limit=4 * max_batch if config.queue_limit is None else config.queue_limit,
    )
    return plan, min(wanted_context, plan.capacity_tokens)


def _adapter_room(config: EngineConfig, left_bytes: int) -> int | None:
    """What users' adapters may take; None: of what the host has free when they come."""
    if config.adapter_bytes is not None or device_kind(config.device) == "cpu":
        return config.adapter_bytes
    return min(_MOST_ADAPTER_BYTES, max(left_bytes, 0) // _ADAPTER_SHARE)


def _kv_bytes(config: EngineConfig, left_bytes: int, context_bytes: int) -> int:
    left_bytes = max(left_bytes, 0)
    if device_kind(config.device) == "cuda":
        return left_bytes - left_bytes // _SPARE_SHARE  # the card is ours
    # Room for a few contexts, but never so much that the rest of the machine suffers.
    return min(max(_GIB, context_bytes), left_bytes * 4 // 10)


def _advice(config: EngineConfig, memory: Memory, scratch: int) -> str:
    if config.kv_bytes is not None or device_kind(config.device) == "cpu":
        return "give it more memory"
    return (
        f"{memory.free_bytes} are free on {config.device} beside the weights, steps need {scratch} "
        f"of them: less with a max_step_tokens below {step_limit(config)}"
    )


def _check_fits(
    config: EngineConfig,
    memory: Memory,
    *,
    scratch: int,
    adapter_room: int | None,
    kv_bytes: int,
) -> None:
    """A cache and room for adapters that somebody has asked for are to be there, beside steps."""
    required = kv_bytes + scratch + (adapter_room or 0)
    if required > memory.free_bytes:
        raise MemoryLow(
            f"{size_text(kv_bytes)} for the cache, {size_text(scratch)} for steps and "
            f"{size_text(adapter_room or 0)} for users' adapters do not fit {config.device}: "
            f"{size_text(memory.free_bytes)} are free beside the weights",
            required=required,
            free=memory.free_bytes,
        )


def check_config(config: EngineConfig, model: ModelConfig) -> None:
    positive = ("max_batch", "page_size", "max_step_tokens", "tiles_per_step", "max_context")
    for name in positive:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise FieldInvalid(name, f"{name} is {value}, allowed: 1 or more")
    for name in ("queue_limit", "adapter_bytes"):
        value = getattr(config, name)
        if value is not None and value < 0:
            raise FieldInvalid(name, f"{name} is {value}, allowed: 0 up")
    # Four times the native context is what the model's makers claim for dynamic NTK (96k of 24k).
    most = 4 * model.max_position_embeddings
    if config.max_context is not None and config.max_context > most:
        raise FieldInvalid("max_context", f"max_context is {config.max_context}, at most {most}")
    step_tokens, max_batch = config.max_step_tokens, config.max_batch
    if step_tokens is not None and max_batch is not None and step_tokens < max_batch:
        message = f"max_step_tokens is {step_tokens}, less than max_batch, {max_batch}"
        raise FieldInvalid("max_step_tokens", message)
