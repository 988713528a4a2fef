"""Sizing an engine before anything is allocated: pages, batch, rows and tiles per step.

Pure arithmetic over the model's sizes. What the caller leaves open is chosen here, and everything
chosen is in the MemoryPlan, which is printed at start and served by GetServerInfo.
"""

from ixc_runtime.config import ModelConfig
from ixc_runtime.engine_process.messages import EngineConfig
from ixc_runtime.errors import FieldInvalid, KvCacheFull
from ixc_runtime.model_info import MemoryPlan

_GIB = 2**30
# A CPU step of so many rows of the demo model takes about half a second on two cores: neighbours'
# tokens wait no longer for a prompt. A GPU needs thousands of rows to be busy.
_STEP_TOKENS = {"cpu": 256, "cuda": 8192}
_TILES_PER_STEP = {"cpu": 2, "cuda": 26}


def bytes_per_token(config: ModelConfig, dtype_bytes: int) -> int:
    """Keys and values of one slot, all layers."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * dtype_bytes


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
    page_bytes = bytes_per_token(model, dtype_bytes) * config.page_size
    wanted_context = config.max_context or model.max_position_embeddings
    kv_bytes = config.kv_bytes
    if kv_bytes is None:
        # Room for a few full contexts, but never so much that the rest of the machine suffers.
        one_context = -(-wanted_context // config.page_size) * page_bytes
        kv_bytes = min(max(_GIB, one_context), free_bytes * 4 // 10)
    num_pages = kv_bytes // page_bytes
    if num_pages * config.page_size < min(1024, wanted_context):
        raise KvCacheFull(
            f"the KV cache has room for {num_pages * config.page_size} tokens "
            f"({kv_bytes} bytes at {page_bytes // config.page_size} a token); give it more memory",
            kvBytes=kv_bytes,
            bytesPerToken=page_bytes // config.page_size,
        )
    if config.max_context is not None and num_pages * config.page_size < config.max_context:
        raise KvCacheFull(
            f"a context of {config.max_context} tokens was asked for, the KV cache has room for "
            f"{num_pages * config.page_size}",
            kvBytes=kv_bytes,
            bytesPerToken=page_bytes // config.page_size,
        )
    plan = MemoryPlan(
        device=config.device,
        backend=backend,
        weights_bytes=weights_bytes,
        adapters_bytes=adapters_bytes,
        kv_bytes=num_pages * page_bytes,
        kv_dtype=dtype,
        page_size=config.page_size,
        num_pages=num_pages,
        bytes_per_token=page_bytes // config.page_size,
        max_batch=config.max_batch,
        max_step_tokens=config.max_step_tokens or _STEP_TOKENS[config.device.split(":")[0]],
        tiles_per_step=config.tiles_per_step or _TILES_PER_STEP[config.device.split(":")[0]],
        queue_limit=config.queue_limit,
    )
    return plan, min(wanted_context, plan.capacity_tokens)


def _check(config: EngineConfig, model: ModelConfig) -> None:
    positive = ("max_batch", "page_size", "max_step_tokens", "tiles_per_step", "max_context")
    for name in positive:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise FieldInvalid(name, f"{name} is {value}, allowed: 1 or more")
    if config.queue_limit < 0:
        raise FieldInvalid("queue_limit", f"queue_limit is {config.queue_limit}, allowed: 0 up")
    # Four times the native context is what the model's makers claim for dynamic NTK (96k of 24k).
    most = 4 * model.max_position_embeddings
    if config.max_context is not None and config.max_context > most:
        raise FieldInvalid("max_context", f"max_context is {config.max_context}, at most {most}")
    step_tokens = config.max_step_tokens
    if step_tokens is not None and step_tokens < config.max_batch:
        message = f"max_step_tokens is {step_tokens}, less than max_batch, {config.max_batch}"
        raise FieldInvalid("max_step_tokens", message)
