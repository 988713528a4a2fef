"""A Llama in a GGUF file, small enough for unit tests, with known weights.

Stored as llama.cpp stores one: query and key rows with rotary pairs as neighbours.
"""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter

HIDDEN, LAYERS, HEADS, KV_HEADS, INTERMEDIATE = 32, 2, 4, 2, 48
HEAD_DIM = HIDDEN // HEADS

_CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def write_tiny_gguf(
    path: Path, *, seed: int = 0, architecture: str = "llama"
) -> dict[str, np.ndarray]:
    """Returns the weights by GGUF's names, query and key in Hugging Face's order of rows."""
    generator = np.random.default_rng(seed)
    pieces = [*_CONTROLS, *_byte_alphabet(), "Ġt"]

    def random(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape, np.float32)

    weights = {"token_embd": random(len(pieces), HIDDEN), "output_norm": random(HIDDEN)}
    for index in range(LAYERS):
        layer = {
            "attn_norm": random(HIDDEN),
            "attn_q": random(HIDDEN, HIDDEN),
            "attn_k": random(KV_HEADS * HEAD_DIM, HIDDEN),
            "attn_v": random(KV_HEADS * HEAD_DIM, HIDDEN),
            "attn_output": random(HIDDEN, HIDDEN),
            "ffn_norm": random(HIDDEN),
            "ffn_gate": random(INTERMEDIATE, HIDDEN),
            "ffn_up": random(INTERMEDIATE, HIDDEN),
            "ffn_down": random(HIDDEN, INTERMEDIATE),
        }
        weights |= {f"blk.{index}.{name}": array for name, array in layer.items()}

    writer = GGUFWriter(path, architecture)
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(pieces)
    writer.add_token_types([3] * len(_CONTROLS) + [1] * (len(pieces) - len(_CONTROLS)))
    writer.add_token_merges(["Ġ t"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    for name, array in weights.items():
        writer.add_tensor(f"{name}.weight", _as_stored(name, array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def _as_stored(name: str, array: np.ndarray) -> np.ndarray:
    heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(name.rsplit(".", 1)[-1])
    if heads is None:
        return array
    halves = array.reshape(heads, 2, -1, HIDDEN)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(array.shape)


def _byte_alphabet() -> list[str]:
    """GPT-2's 256 printable stand-ins for bytes."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())
