"""What a loaded model is, as everybody outside the engine is told it: sizes, names, defaults.

Read from the model as it was loaded and from its folder, once, when the engine is ready.
"""

from pathlib import Path

from ixc_runtime.config import load_settings
from ixc_runtime.engine_process.device import dtype_name
from ixc_runtime.engine_process.messages import EngineConfig
from ixc_runtime.errors import CheckpointInvalid
from ixc_runtime.media.geometry import num_image_tokens
from ixc_runtime.model.decoder import Model
from ixc_runtime.model_info import AdapterInfo, ModelInfo
from ixc_runtime.prompt.tokenizer import Tokenizer, load_tokenizer, resolve_roles
from ixc_runtime.request import BASE_ADAPTER


def describe(
    config: EngineConfig,
    model: Model,
    digest: str,
    context_limit: int,
    user_adapters: tuple[AdapterInfo, ...],
) -> ModelInfo:
    """Raises CheckpointError where tokenizer and model do not belong together."""
    folder = Path(config.model)
    settings = load_settings(folder)
    tokenizer = load_tokenizer(folder)
    _check_vocabulary(tokenizer, model.config.vocab_size)
    roles = resolve_roles(tokenizer, settings)
    name = config.name or folder.resolve().name
    quantization = model.config.quantization
    users = {each.name for each in user_adapters}
    return ModelInfo(
        name=name,
        display_name=settings.display_name or name,
        description=settings.description,
        digest=digest,
        context_limit=context_limit,
        native_context_limit=model.config.max_position_embeddings,
        vocab_size=model.config.vocab_size,
        num_layers=model.config.num_layers,
        adapters=(BASE_ADAPTER, *sorted(model.adapters - users), *sorted(users)),
        user_adapters=user_adapters,
        tile_size=model.tower.tile_size if model.tower else None,
        hd_num_single=settings.hd_num_single,
        hd_num_several=settings.hd_num_several,
        hd_num_max=settings.max_hd_num,
        # A column of single tiles is the dearest shape: each row has a separator.
        max_image_tokens=(
            num_image_tokens(1, settings.hd_num_single, model.tower.grid // 2) if model.tower else 0
        ),
        stop_token_ids=roles.stop_ids,
        default_sampling=settings.default_sampling,
        system_instruction=settings.system_instruction,
        dtype=dtype_name(model.dtype),
        quantization=(
            f"awq-int{quantization.bits}-g{quantization.group_size}" if quantization else None
        ),
    )


def _check_vocabulary(tokenizer: Tokenizer, vocab_size: int) -> None:
    """Text must not become ids that the model has no embedding for. Unused control ids may lie
    beyond (the official tokenizer's do): no text reaches them.
    """
    beyond = range(vocab_size, tokenizer.vocab_size)
    if any(not tokenizer.is_control(token_id) for token_id in beyond):
        raise CheckpointInvalid(
            f"the tokenizer makes {tokenizer.vocab_size} ids, the model knows {vocab_size}: "
            "they do not belong together"
        )
