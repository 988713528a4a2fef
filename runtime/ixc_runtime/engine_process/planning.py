"""Sizing an engine before anything is allocated: pages, batch, rows and tiles per step.

Pure arithmetic over the model's sizes. What the caller leaves open is chosen here, and everything
chosen is in the MemoryPlan, which is printed at start and served by GetServerInfo.
"""

import sys

from ixc_runtime.config import ModelConfig
from ixc_runtime.engine_process.messages import EngineConfig
from ixc_runtime.errors import FieldInvalid, KvCacheFull
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
_FLAT_SCRATCH_BYTES = 4 * _GIB


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


def scratch_bytes(model: ModelConfig, dtype_bytes: int, *, rows: int, sampled_rows: int) -> int:
    """What a step needs beside weights and cache on a GPU, roughly and rather too much.

    The widest moment of a layer is the SwiGLU: hidden rows, gate and up, their product. Logits
    stand once as computed and once in float32. Graphs, the tower's tiles and libraries have a flat
    part.
    """
    of_row = (3 * model.hidden_size + 3 * model.intermediate_size) * dtype_bytes
    of_logits = model.vocab_size * (dtype_bytes + 4)
    return 2 * rows * of_row + 2 * sampled_rows * of_logits + _FLAT_SCRATCH_BYTES


def make_plan(
    config: EngineConfig,
    model: ModelConfig,
    *,
    backend: str,
    dtype: str,
    dtype_bytes: int,
    weights_bytes: int,
    adapters_bytes: int,
    free_bytes: int,
) -> tuple[MemoryPlan, int]:
    """The plan, and the context limit that it allows.

    Raises KvCacheFull when not even a short context has room, FieldInvalid for a setting out of
    range.
    """
    _check(config, model)
    kind = device_kind(config.device)
    page_size = config.page_size or _PAGE_SIZE[kind]
    if backend == "cuda" and (page_size < 16 or page_size.bit_count() > 1):
        message = f"page_size is {page_size}, allowed on a GPU: powers of two from 16 up"
        raise FieldInvalid("page_size", message)
    max_batch = batch_limit(config)
    max_step_tokens = config.max_step_tokens or max(_STEP_TOKENS[kind], max_batch)
    tiles_per_step = config.tiles_per_step or _TILES_PER_STEP[kind]
    page_bytes = bytes_per_token(model, dtype_bytes) * page_size
    wanted_context = config.max_context or model.max_position_embeddings
    kv_bytes, advice = config.kv_bytes, "give it more memory"
    if kv_bytes is None and kind == "cuda":
        # The card is ours: all that weights, scratch and graphs leave.
        scratch = scratch_bytes(model, dtype_bytes, rows=max_step_tokens, sampled_rows=max_batch)
        kv_bytes = max(free_bytes - scratch, 0)
        advice = (
            f"{free_bytes} are free on {config.device} beside the weights, steps need {scratch} of "
            f"them: less with a max_step_tokens below {max_step_tokens}"
        )
    elif kv_bytes is None:
        # Room for a few full contexts, but never so much that the rest of the machine suffers.
        one_context = -(-wanted_context // page_size) * page_bytes
        kv_bytes = min(max(_GIB, one_context), free_bytes * 4 // 10)
    num_pages = kv_bytes // page_bytes
    if num_pages * page_size < min(1024, wanted_context):
        raise KvCacheFull(
            f"the KV cache has room for {num_pages * page_size} tokens "
            f"({kv_bytes} bytes at {page_bytes // page_size} a token); {advice}",
            kvBytes=kv_bytes,
            bytesPerToken=page_bytes // page_size,
        )
    if config.max_context is not None and num_pages * page_size < config.max_context:
        raise KvCacheFull(
            f"a context of {config.max_context} tokens was asked for, the KV cache has room for "
            f"{num_pages * page_size}",
            kvBytes=kv_bytes,
            bytesPerToken=page_bytes // page_size,
        )
    plan = MemoryPlan(
        device=config.device,
        backend=backend,
        weights_bytes=weights_bytes,
        adapters_bytes=adapters_bytes,
        kv_bytes=num_pages * page_bytes,
        kv_dtype=dtype,
        page_size=page_size,
        num_pages=num_pages,
        bytes_per_token=page_bytes // page_size,
        max_batch=max_batch,
        max_step_tokens=max_step_tokens,
        tiles_per_step=tiles_per_step,
        queue_limit=4 * max_batch if config.queue_limit is None else config.queue_limit,
    )
    return plan, min(wanted_context, plan.capacity_tokens)


def _check(config: EngineConfig, model: ModelConfig) -> None:
    positive = ("max_batch", "page_size", "max_step_tokens", "tiles_per_step", "max_context")
    for name in positive:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise FieldInvalid(name, f"{name} is {value}, allowed: 1 or more")
    if config.queue_limit is not None and config.queue_limit < 0:
        raise FieldInvalid("queue_limit", f"queue_limit is {config.queue_limit}, allowed: 0 up")
    # Four times the native context is what the model's makers claim for dynamic NTK (96k of 24k).
    most = 4 * model.max_position_embeddings
    if config.max_context is not None and config.max_context > most:
        raise FieldInvalid("max_context", f"max_context is {config.max_context}, at most {most}")
    step_tokens, max_batch = config.max_step_tokens, config.max_batch
    if step_tokens is not None and max_batch is not None and step_tokens < max_batch:
        message = f"max_step_tokens is {step_tokens}, less than max_batch, {max_batch}"
        raise FieldInvalid("max_step_tokens", message)
