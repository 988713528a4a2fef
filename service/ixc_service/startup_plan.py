"""The start-up plan in words: what the model takes, what fits beside it, and what computes it."""

from ixc_runtime import BASE_ADAPTER, MemoryPlan, ModelInfo
from ixc_runtime.byte_sizes import size_text
from ixc_service.translate.resources import images_capacity


def plan_text(model: ModelInfo, plan: MemoryPlan, addresses: tuple[str, ...]) -> str:
    adapters = [name for name in model.adapters if name != BASE_ADAPTER]
    rows = (
        ("model", f"{model.display_name or model.name} ({model.name}, {model.digest[:12]})"),
        ("computes", f"{model.dtype} on {plan.device}, by the {plan.backend} operations"),
        ("weights", size_text(plan.weights_bytes)),
        ("adapters", f"{', '.join(adapters) or 'none'} ({size_text(plan.adapters_bytes)})"),
        *_set_aside(plan),
        (
            "cache",
            f"{size_text(plan.kv_bytes)}: {plan.num_pages} pages of {plan.page_size} slots, "
            f"{plan.kv_dtype}, {size_text(plan.bytes_per_token)} a token",
        ),
        ("fits", _fits(model, plan)),
        (
            "batch",
            f"{plan.max_batch} sequences, {plan.max_step_tokens} tokens a step, "
            f"{plan.queue_limit} may wait",
        ),
        ("listens", ", ".join(addresses)),
    )
    return "\n".join(f"  {name:9} {text}" for name, text in rows)


def _set_aside(plan: MemoryPlan) -> tuple[tuple[str, str], ...]:
    """Of a GPU, which is divided to its last byte."""
    if not plan.scratch_bytes:
        return ()
    room = size_text(plan.adapter_room_bytes or 0)
    return (
        ("set aside", f"{size_text(plan.scratch_bytes)} for steps, {room} for users' adapters"),
    )


def _fits(model: ModelInfo, plan: MemoryPlan) -> str:
    text = f"{plan.capacity_tokens} tokens; one sequence up to {model.context_limit}"
    if not model.max_image_tokens:
        return f"{text}; takes no images"
    images = images_capacity(plan, model)
    return f"{text}; {images} images of at most {model.max_image_tokens} tokens each"
