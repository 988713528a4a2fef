"""A Llama model in a GGUF file, as plain float32 arrays with Hugging Face's order of rows.

Knows the format's names, its quantised blocks (through the `gguf` package) and one trap: the file
stores the rows of the query and key projections so that rotary pairs are neighbours, while
Hugging Face's Llama and InternLM2 rotate the two halves of a head against each other. Knows
nothing of the layout the arrays end up in.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ixc_runtime.errors import CheckpointInvalid, CheckpointMissing, CheckpointUnsupported

Array = npt.NDArray[np.float32]

_CONTROL_TOKEN = 3  # GGUF's token types: 1 is normal, 3 is control


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaSizes:
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    intermediate_size: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    max_position_embeddings: int
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads


class LlamaGguf:
    """One open file. Tensors are read and dequantised when asked for, one at a time."""

    def __init__(self, path: Path) -> None:
        # The package is an extra of its own, and only this module needs it.
        try:
            from gguf import GGUFReader
        except ModuleNotFoundError as error:
            raise CheckpointUnsupported(
                "reading GGUF needs the package gguf: pip install 'ixc[demo]'"
            ) from error
        if not path.is_file():
            raise CheckpointMissing(f"there is no GGUF file at {path}", file=path.name)
        try:
            self._reader = GGUFReader(path)
        except (ValueError, IndexError, KeyError) as error:
            raise CheckpointInvalid(
                f"{path.name} is not a whole GGUF file: {error}", file=path.name
            ) from error
        self._file = path.name
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self._require("general.architecture", "llama")
        self._require("tokenizer.ggml.model", "gpt2")
        self.sizes = LlamaSizes(
            hidden_size=int(self._field("llama.embedding_length")),
            num_layers=int(self._field("llama.block_count")),
            num_heads=int(self._field("llama.attention.head_count")),
            num_kv_heads=int(self._field("llama.attention.head_count_kv")),
            intermediate_size=int(self._field("llama.feed_forward_length")),
            vocab_size=len(self._field("tokenizer.ggml.tokens")),
            # Stored in float32; its shortest decimal is what was meant, 1e-05.
            rms_norm_eps=float(
                str(np.float32(self._field("llama.attention.layer_norm_rms_epsilon")))
            ),
            rope_theta=float(self._field("llama.rope.freq_base")),
            max_position_embeddings=int(self._field("llama.context_length")),
            bos_token_id=int(self._field("tokenizer.ggml.bos_token_id")),
            eos_token_id=int(self._field("tokenizer.ggml.eos_token_id")),
            pad_token_id=int(self._field("tokenizer.ggml.padding_token_id")),
        )

    def embedding(self) -> Array:
        """(vocab, hidden). The output matrix is the same one unless the file has its own."""
        return self._tensor("token_embd.weight")

    def output(self) -> Array:
        return self._tensor(
            "output.weight" if "output.weight" in self._tensors else "token_embd.weight"
        )

    def final_norm(self) -> Array:
        return self._tensor("output_norm.weight")

    def layer(self, index: int, name: str) -> Array:
        """`name` as GGUF spells it: attn_norm, attn_q, …, ffn_down."""
        return self._tensor(f"blk.{index}.{name}.weight")

    def query(self, index: int) -> Array:
        """(heads * head_dim, hidden), each head's rotary pairs half a head apart."""
        return _halves_apart(self.layer(index, "attn_q"), self.sizes.num_heads)

    def key(self, index: int) -> Array:
        return _halves_apart(self.layer(index, "attn_k"), self.sizes.num_kv_heads)

    def write_tokenizer(self, target: Path) -> None:
        """`tokenizer.json`: byte-level BPE whose control tokens add nothing to a text unasked."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        pieces: list[str] = self._field("tokenizer.ggml.tokens")
        merges: list[str] = self._field("tokenizer.ggml.merges")
        kinds: list[int] = self._field("tokenizer.ggml.token_type")
        tokenizer = Tokenizer(
            models.BPE(
                vocab={piece: token_id for token_id, piece in enumerate(pieces)},
                merges=[_pair(merge) for merge in merges],
            )
        )
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(
            [piece for piece, kind in zip(pieces, kinds, strict=True) if kind == _CONTROL_TOKEN]
        )
        tokenizer.save(str(target))

    def _field(self, key: str) -> Any:
        field = self._reader.fields.get(key)
        if field is None:
            raise CheckpointInvalid(f"{self._file} lacks {key}", file=self._file, key=key)
        return field.contents()

    def _require(self, key: str, expected: str) -> None:
        if (value := self._field(key)) != expected:
            raise CheckpointUnsupported(
                f"{self._file} has {key} {value!r}; only {expected!r} can be repacked", key=key
            )

    def _tensor(self, name: str) -> Array:
        from gguf import dequantize

        tensor = self._tensors.get(name)
        if tensor is None:
            raise CheckpointInvalid(f"{self._file} lacks {name}", file=self._file, tensor=name)
        return np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)


def _halves_apart(rows: Array, num_heads: int) -> Array:
    """Rows of each head from (pair, half) order to (half, pair) order."""
    out, hidden = rows.shape
    pairs = rows.reshape(num_heads, out // num_heads // 2, 2, hidden)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(out, hidden)


def _pair(merge: str) -> tuple[str, str]:
    left, right = merge.split(" ")
    return left, right
