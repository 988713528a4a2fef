"""What a model folder says about itself: `config.json`, and our optional `ixc.json` beside it.

Both are closed schemas. A key of `config.json` is either read and checked, or known to leave the
arithmetic alone, or the folder is refused with the key named: a model that would run differently
from what its author meant must not run at all. Someone who knows better lists such a key under
`ignored_config_keys` in `ixc.json`. The model is recognised by its architecture, because its
`model_type` is that of plain InternLM2.

Free of torch: the front end reads it too. Knows nothing of weights but the tower's sizes, which
stand in no config and are read from the tensors' shapes.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ixc_runtime.checkpoint.json_object import ObjectReader, read_json_object
from ixc_runtime.checkpoint.shards import TensorEntry, read_shards
from ixc_runtime.errors import CheckpointInvalid, CheckpointUnsupported
from ixc_runtime.request import SamplingParams

ARCHITECTURE = "InternLMXComposer2ForCausalLM"
CONFIG_NAME = "config.json"
SETTINGS_NAME = "ixc.json"

TOWER_PREFIX = "vit.vision_tower.vision_model."
AWQ_GROUP_SIZES = (32, 64, 128)

# Keys that only Hugging Face's own code looks at: names, bookkeeping, defaults of `generate`.
# `img_size`: a sibling model's; ours takes the tower's sizes from its tensors.
_HARMLESS_KEYS = frozenset(
    re.findall(
        r"\S+",
        """
        _attn_implementation _attn_implementation_internal _commit_hash _name_or_path
        add_cross_attention architectures attn_implementation auto_map bad_words_ids
        begin_suppress_tokens chunk_size_feed_forward cross_attention_hidden_size
        decoder_start_token_id diversity_penalty do_sample early_stopping
        encoder_no_repeat_ngram_size exponential_decay_length_penalty finetuning_task
        forced_bos_token_id forced_eos_token_id id2label img_size initializer_range is_decoder
        is_encoder_decoder label2id length_penalty max_length min_length model_type
        no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions
        output_hidden_states output_scores pad_token_id prefix problem_type pruned_heads
        remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id
        suppress_tokens task_specific_params temperature tf_legacy_loss tie_encoder_decoder
        tokenizer_class top_k top_p torchscript transformers_version typical_p use_bfloat16
        use_cache
        """,
    )
)
_DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True, slots=True, kw_only=True)
class AwqConfig:
    """int4 weights in the published AWQ layout; `ixc_cuda.awq_layout` describes the bits."""

    bits: int
    group_size: int
    zero_point: bool
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The language model's sizes and constants. `rope_scaling_factor` is that of dynamic NTK."""

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling_factor: float | None
    max_position_embeddings: int
    bos_token_id: int
    eos_token_ids: tuple[int, ...]
    torch_dtype: str
    quantization: AwqConfig | None

    @property
    def queries_per_group(self) -> int:
        """Query heads that share one KV head."""
        return self.num_heads // self.num_kv_heads


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerShape:
    """A tile's side in pixels, a patch's, and patches per side (tile_size = patch_size * grid)."""

    tile_size: int
    patch_size: int
    grid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RolePieces:
    """Which vocabulary pieces frame a conversation; the tokenizer turns them into ids."""

    begin_of_text: str | None = "<s>"
    start_of_turn: str = "[UNUSED_TOKEN_146]"
    end_of_turn: str = "[UNUSED_TOKEN_145]"
    end_of_text: str = "</s>"


# The reference's `chat`. It never names top_k, so transformers' own default of 50 applies there.
OFFICIAL_SAMPLING = SamplingParams(
    temperature=1.0,
    top_p=0.8,
    top_k=50,
    min_p=0.0,
    repetition_penalty=1.005,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    max_output_tokens=1024,
    min_output_tokens=0,
    ignore_eos=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IxcSettings:
    """What `ixc.json` may say; the values here are the official model's.

    `hd_num_single` and `hd_num_several` bound the tiles of a turn's only picture and of each of
    several. `tower_heads` None is one head per 64 channels. `system_instruction` is a default
    text of the model, offered by name and never added unasked. `merged_task` is the adapter that
    has been merged into the weights, if one has.
    """

    roles: RolePieces = field(default_factory=RolePieces)
    hd_num_single: int = 24
    hd_num_several: int = 6
    max_hd_num: int = 36
    tower_heads: int | None = None
    system_instruction: str | None = None
    default_sampling: SamplingParams = OFFICIAL_SAMPLING
    display_name: str = ""
    description: str = ""
    merged_task: str = ""
    ignored_config_keys: tuple[str, ...] = ()


def load_config(folder: Path) -> ModelConfig:
    """`config.json`, checked. Another architecture is `CheckpointUnsupported`, a lie `…Invalid`."""
    reader = ObjectReader(read_json_object(folder / CONFIG_NAME), CONFIG_NAME)
    _check_architecture(reader)
    hidden_size = reader.count("hidden_size", maximum=1 << 16)
    num_heads = reader.count("num_attention_heads", maximum=1 << 10)
    num_kv_heads = reader.count("num_key_value_heads", maximum=1 << 10, default=num_heads)
    if hidden_size % num_heads or (hidden_size // num_heads) % 2:
        raise reader.fault(
            "hidden_size", f"{hidden_size} does not give {num_heads} heads of even width"
        )
    if num_heads % num_kv_heads:
        raise reader.fault(
            "num_key_value_heads", f"{num_heads} query heads do not divide into {num_kv_heads}"
        )
    vocab_size = reader.count("vocab_size", maximum=1 << 20)
    reader.fixed("hidden_act", "silu", default="silu")
    reader.fixed("bias", False, default=False)
    reader.fixed("tie_word_embeddings", False, default=False)
    config = ModelConfig(
        hidden_size=hidden_size,
        num_layers=reader.count("num_hidden_layers", maximum=1 << 10),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=hidden_size // num_heads,
        intermediate_size=reader.count("intermediate_size", maximum=1 << 18),
        vocab_size=vocab_size,
        rms_norm_eps=reader.number("rms_norm_eps", above=0.0, maximum=1.0),
        rope_theta=reader.number("rope_theta", above=1.0, maximum=1e12, default=10000.0),
        rope_scaling_factor=_rope_scaling_factor(reader),
        max_position_embeddings=reader.count("max_position_embeddings", maximum=1 << 24),
        bos_token_id=reader.count("bos_token_id", minimum=0, maximum=vocab_size - 1, default=1),
        eos_token_ids=_eos_token_ids(reader, vocab_size),
        torch_dtype=_torch_dtype(reader),
        quantization=_quantization(reader),
    )
    reader.close(harmless=_HARMLESS_KEYS | set(load_settings(folder).ignored_config_keys))
    return config


def load_settings(folder: Path) -> IxcSettings:
    """`ixc.json` over the official model's values; without the file, those values."""
    path = folder / SETTINGS_NAME
    if not path.is_file():
        return IxcSettings()
    reader = ObjectReader(read_json_object(path), SETTINGS_NAME)
    hd_num = ObjectReader(reader.mapping("hd_num"), f"{SETTINGS_NAME}: hd_num")
    max_hd_num = hd_num.count("max", maximum=4096, default=36)
    ignored = reader.take("ignored_config_keys", [])
    if not isinstance(ignored, list) or not all(isinstance(key, str) for key in ignored):
        raise reader.fault("ignored_config_keys", "is not a list of names")
    settings = IxcSettings(
        roles=_role_pieces(reader),
        hd_num_single=hd_num.count("single", maximum=max_hd_num, default=min(24, max_hd_num)),
        hd_num_several=hd_num.count("several", maximum=max_hd_num, default=min(6, max_hd_num)),
        max_hd_num=max_hd_num,
        tower_heads=reader.optional_count("tower_heads", maximum=1 << 10),
        system_instruction=reader.optional_text("system_instruction", None),
        default_sampling=_default_sampling(reader),
        display_name=reader.text("display_name", ""),
        description=reader.text("description", ""),
        merged_task=reader.text("merged_task", ""),
        ignored_config_keys=tuple(ignored),
    )
    hd_num.close()
    reader.close()
    return settings


def read_tower_shape(folder: Path) -> TowerShape | None:
    """The tower's sizes from the shard headers alone; None where the model takes no images."""
    return tower_shape(read_shards(folder))


def tower_shape(entries: Mapping[str, TensorEntry]) -> TowerShape | None:
    patches = entries.get(f"{TOWER_PREFIX}embeddings.patch_embedding.weight")
    positions = entries.get(f"{TOWER_PREFIX}embeddings.position_embedding.weight")
    if patches is None and positions is None:
        return None
    if patches is None or len(patches.shape) != 4 or patches.shape[2] != patches.shape[3]:
        raise CheckpointInvalid("the tower's patch embedding is not [channels, 3, side, side]")
    if positions is None or len(positions.shape) != 2:
        raise CheckpointInvalid("the tower's position embedding is not [1 + grid * grid, channels]")
    grid = math.isqrt(max(positions.shape[0] - 1, 0))
    patch_size = patches.shape[2]
    if grid * grid + 1 != positions.shape[0] or grid < 2 or grid % 2 or patch_size < 1:
        raise CheckpointInvalid(
            f"the tower's position embedding has {positions.shape[0]} rows; one and an even grid's "
            "square are needed"
        )
    return TowerShape(tile_size=grid * patch_size, patch_size=patch_size, grid=grid)


def _check_architecture(reader: ObjectReader) -> None:
    architectures = reader.peek("architectures")
    auto_map = reader.peek("auto_map")
    claimed = list(architectures) if isinstance(architectures, list) else []
    if isinstance(auto_map, dict):
        claimed += [str(value).rsplit(".", 1)[-1] for value in auto_map.values()]
    if ARCHITECTURE not in claimed:
        raise CheckpointUnsupported(
            f"{CONFIG_NAME} names the architecture {claimed or 'none'}; {ARCHITECTURE} is served",
            architecture=", ".join(map(str, claimed)),
        )


def _rope_scaling_factor(reader: ObjectReader) -> float | None:
    if reader.peek("rope_scaling") is None:
        reader.take("rope_scaling", None)
        return None
    scaling = ObjectReader(reader.mapping("rope_scaling"), f"{CONFIG_NAME}: rope_scaling")
    kind, other_kind = scaling.take("type", None), scaling.take("rope_type", None)
    if (kind or other_kind) != "dynamic" or other_kind not in (None, "dynamic"):
        raise CheckpointUnsupported(
            f"{CONFIG_NAME}: rope_scaling has type {kind or other_kind!r}; dynamic is served"
        )
    factor = scaling.number("factor", above=0.0, maximum=1e6)
    scaling.close()
    if factor < 1.0:
        raise scaling.fault("factor", f"is {factor}; at least 1 is needed")
    return factor


def _eos_token_ids(reader: ObjectReader, vocab_size: int) -> tuple[int, ...]:
    value = reader.take("eos_token_id", 2)
    ids = value if isinstance(value, list) else [value]
    if not ids or not all(type(item) is int and 0 <= item < vocab_size for item in ids):
        raise reader.fault("eos_token_id", f"is {value!r}; ids below {vocab_size} are needed")
    return tuple(dict.fromkeys(ids))


def _torch_dtype(reader: ObjectReader) -> str:
    value = reader.take("torch_dtype", None)
    value = reader.take("dtype", None) if value is None else value
    if value is None:
        return "float32"
    if value not in _DTYPES:
        raise CheckpointUnsupported(
            f"{CONFIG_NAME}: torch_dtype is {value!r}; {', '.join(_DTYPES)} are served"
        )
    return str(value)


# What other tools (AutoAWQ, transformers) note beside the layout: how it was made, how they would
# run it, what they left alone. Which linears are rounded, and how, the tensors say themselves.
_AWQ_NOTES = frozenset(
    re.findall(
        r"\S+",
        """
        act_group_aware backend batch_size block_name_to_quantize cache_block_outputs damp_percent
        dataset do_fuse exllama_config fuse_max_seq_len max_input_length meta model_seqlen
        module_name_preceding_first_block modules_in_block_to_quantize modules_to_fuse
        modules_to_not_convert pad_token_id sym tokenizer true_sequential
        """,
    )
)


def _quantization(reader: ObjectReader) -> AwqConfig | None:
    if reader.peek("quantization_config") is None:
        reader.take("quantization_config", None)
        return None
    quantization = ObjectReader(
        reader.mapping("quantization_config"), f"{CONFIG_NAME}: quantization_config"
    )
    quantization.fixed("quant_method", "awq")
    quantization.fixed("bits", 4)
    quantization.fixed("version", "gemm", default="gemm")
    quantization.fixed("format", "gemm", default="gemm")
    quantization.fixed("desc_act", False, default=False)
    quantization.fixed("zero_point", True, default=True)
    group_size = quantization.take("group_size", None)
    if type(group_size) is not int or group_size not in AWQ_GROUP_SIZES:
        raise CheckpointUnsupported(
            f"{quantization.file}: group_size is {group_size!r}; "
            f"{', '.join(map(str, AWQ_GROUP_SIZES))} are served"
        )
    quantization.close(harmless=_AWQ_NOTES)
    return AwqConfig(bits=4, group_size=group_size, zero_point=True, version="gemm")


def _role_pieces(reader: ObjectReader) -> RolePieces:
    roles = ObjectReader(reader.mapping("roles"), f"{SETTINGS_NAME}: roles")
    official = RolePieces()
    pieces = RolePieces(
        begin_of_text=roles.optional_text("begin_of_text", official.begin_of_text),
        start_of_turn=roles.text("start_of_turn", official.start_of_turn),
        end_of_turn=roles.text("end_of_turn", official.end_of_turn),
        end_of_text=roles.text("end_of_text", official.end_of_text),
    )
    roles.close()
    return pieces


def _default_sampling(reader: ObjectReader) -> SamplingParams:
    sampling = ObjectReader(reader.mapping("sampling"), f"{SETTINGS_NAME}: sampling")
    official = OFFICIAL_SAMPLING
    chosen = replace(
        official,
        temperature=sampling.number("temperature", minimum=0.0, default=official.temperature),
        top_p=sampling.number("top_p", above=0.0, maximum=1.0, default=official.top_p),
        top_k=sampling.count("top_k", minimum=0, default=official.top_k),
        min_p=sampling.number("min_p", minimum=0.0, maximum=1.0, default=official.min_p),
        repetition_penalty=sampling.number(
            "repetition_penalty", above=0.0, default=official.repetition_penalty
        ),
        max_output_tokens=sampling.count(
            "max_output_tokens", minimum=0, default=official.max_output_tokens
        ),
    )
    sampling.close()
    return chosen
