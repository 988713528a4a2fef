"""Models as the contract describes them: served ones, and folders that could be."""

import contextlib
import re
from collections.abc import Mapping
from datetime import datetime

from ixc.v1 import content_pb2, model_pb2
from ixc_runtime import BASE_ADAPTER, ModelFolder, ModelInfo
from ixc_runtime.models_root import Manifest, StoredModel
from ixc_service.identifiers import model_name
from ixc_service.models import ModelState
from ixc_service.translate.events import sampling_message
from ixc_service.translate.requests import preset_text

DTYPES: Mapping[str, model_pb2.DataType.ValueType] = {
    "float32": model_pb2.DATA_TYPE_FLOAT32,
    "bfloat16": model_pb2.DATA_TYPE_BFLOAT16,
    "float16": model_pb2.DATA_TYPE_FLOAT16,
}
_SCHEMES = {"awq": model_pb2.QUANTIZATION_SCHEME_AWQ}
# None: a folder and nothing more.
STATES: Mapping[ModelState | None, model_pb2.ModelState.ValueType] = {
    None: model_pb2.MODEL_STATE_AVAILABLE,
    ModelState.LOADING: model_pb2.MODEL_STATE_LOADING,
    ModelState.LOADED: model_pb2.MODEL_STATE_LOADED,
    ModelState.UNLOADING: model_pb2.MODEL_STATE_UNLOADING,
}


def served_message(
    model: ModelInfo, state: ModelState, stored: StoredModel | None
) -> model_pb2.Model:
    """`stored` None: it lies outside the models root."""
    message = model_pb2.Model(
        name=model_name(model.name),
        display_name=model.display_name,
        description=model.description,
        weights_digest=model.digest,
        context_limit=model.context_limit,
        vocab_size=model.vocab_size,
        eos_token_ids=model.stop_token_ids,
        default_sampling=sampling_message(model.default_sampling),
        adapters=[name for name in model.adapters if name != BASE_ADAPTER],
        system_presets=[
            model_pb2.SystemPresetText(
                preset=content_pb2.SYSTEM_PRESET_META_INSTRUCTION_DEFAULT, text=preset_text(model)
            )
        ],
        dtype=DTYPES.get(model.dtype, model_pb2.DATA_TYPE_UNSPECIFIED),
        native_context_limit=model.native_context_limit,
        state=STATES[state],
    )
    if model.tile_size is not None:
        message.image_input.tile_size = model.tile_size
        message.image_input.hd_num_single = model.hd_num_single
        message.image_input.hd_num_several = model.hd_num_several
        message.image_input.hd_num_max = model.hd_num_max
    if model.quantization is not None:
        message.quantization.CopyFrom(_quantization(model.quantization))
    _add_stored(message, stored)
    return message


def _quantization(name: str) -> model_pb2.Quantization:
    """From the runtime's name for it, such as "awq-int4-g128"."""
    scheme, bits, group_size = re.fullmatch(r"(\w+)-int(\d+)-g(\d+)", name).groups()  # type: ignore[union-attr]
    return model_pb2.Quantization(
        scheme=_SCHEMES[scheme], bits=int(bits), group_size=int(group_size)
    )


def folder_message(
    folder: ModelFolder, state: ModelState | None, stored: StoredModel
) -> model_pb2.Model:
    """What can be told of a model that does not answer."""
    settings = folder.settings
    message = model_pb2.Model(
        name=model_name(stored.model_id),
        display_name=settings.display_name or stored.model_id,
        description=settings.description,
        vocab_size=folder.vocab_size,
        eos_token_ids=folder.eos_token_ids,
        adapters=folder.adapters,
        dtype=DTYPES.get(folder.stored_dtype, model_pb2.DATA_TYPE_UNSPECIFIED),
        native_context_limit=folder.native_context_limit,
        state=STATES[state],
    )
    if folder.tower is not None:
        message.image_input.tile_size = folder.tower.tile_size
        message.image_input.hd_num_single = settings.hd_num_single
        message.image_input.hd_num_several = settings.hd_num_several
        message.image_input.hd_num_max = settings.max_hd_num
    if folder.quantization is not None:
        message.quantization.scheme = model_pb2.QUANTIZATION_SCHEME_AWQ
        message.quantization.bits = folder.quantization.bits
        message.quantization.group_size = folder.quantization.group_size
    _add_stored(message, stored)
    return message


def _add_stored(message: model_pb2.Model, stored: StoredModel | None) -> None:
    if stored is None:
        return
    message.size_bytes = stored.size_bytes
    if (manifest := stored.manifest) is not None:
        message.origin.model = model_name(manifest.source.name)
        message.origin.merged_adapter = _merged(manifest)
        message.origin.manifest_digest = stored.digest or ""
        with contextlib.suppress(ValueError):  # a manifest is a file, and may be anybody's
            message.origin.create_time.FromDatetime(datetime.fromisoformat(manifest.create_time))


def _merged(manifest: Manifest) -> str:
    summary = manifest.result.get("summary")
    merged = summary.get("merged") if isinstance(summary, dict) else None
    return merged if isinstance(merged, str) else ""
