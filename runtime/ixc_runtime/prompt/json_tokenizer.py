"""`tokenizer.json`: a byte-pair model of the tokenizers library, stripped of its added tokens.

The library matches added tokens in any text before the model sees it. The file is therefore
rebuilt without them, neither as added tokens nor in the vocabulary, and their names and ids are
kept in a table of our own. Normaliser, pre-tokenizer and merges stay as the file has them.

Two spellings of bytes exist, told apart by the decoder that the file declares:

* ByteLevel (GPT-2): every byte is one printable character;
* byte fallback (Llama): a space is U+2581, and a byte outside the vocabulary is `<0xNN>`.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ixc_runtime.errors import CheckpointInvalid, CheckpointUnsupported, FieldInvalid
from ixc_runtime.prompt.tokenizer import require_encodable

SPACE_MARK = "\u2581"
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")

# Bytes that can stand in UTF-8 text: all but 0xC0, 0xC1 and 0xF5 to 0xFF.
_UTF8_BYTES = frozenset(range(0x100)) - {0xC0, 0xC1} - frozenset(range(0xF5, 0x100))


class JsonTokenizer:
    def __init__(self, file: bytes) -> None:
        from tokenizers import Tokenizer

        document = _parse(file)
        model = _byte_pair_model(document)
        added = _added_tokens(document)
        uses_byte_level, spell = _spelling(document.get("decoder"))
        vocabulary: dict[str, int] = model["vocab"]
        self._ids = {**vocabulary, **{name: token_id for name, (token_id, _) in added.items()}}
        self._control = {token_id for token_id, special in added.values() if special}

        _remove_pieces(model, frozenset(added))
        document["added_tokens"] = []
        # A post-processor adds control ids, truncation drops text without a word.
        document["post_processor"] = document["truncation"] = document["padding"] = None
        try:
            self._tokenizer: Tokenizer = Tokenizer.from_str(json.dumps(document))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointInvalid(f"tokenizer.json was refused: {error}") from error

        self._bytes = {token_id: spell(piece) for piece, token_id in model["vocab"].items()}
        for name, (token_id, special) in added.items():
            self._bytes[token_id] = b"" if special else name.encode()
        self._vocab_size = max(self._bytes, default=-1) + 1

        byte_ids = {
            spell(piece)[0]: token_id
            for piece, token_id in model["vocab"].items()
            if (len(piece) == 1 if uses_byte_level else _BYTE_PIECE.fullmatch(piece))
        }
        missing = bytes(sorted(_UTF8_BYTES - byte_ids.keys()))
        if missing and not uses_byte_level:
            # Some characters would still have pieces of their own, and others would vanish.
            raise CheckpointUnsupported(
                f"tokenizer.json lacks {len(missing)} byte pieces, <0x{missing[0]:02X}> first"
            )
        self._missing_bytes = missing
        self._space_mark_ids = (
            None if uses_byte_level else [byte_ids[value] for value in SPACE_MARK.encode()]
        )

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    def encode(self, text: str) -> list[int]:
        require_encodable(text)
        if self._missing_bytes:
            self._require_spellable(text)
        if self._space_mark_ids is None:
            return self._encode_part(text)
        # A literal space mark would be read back as a space, so it travels as its bytes.
        first, *others = text.split(SPACE_MARK)
        ids = self._encode_part(first)
        for part in others:
            ids += self._space_mark_ids
            ids += self._encode_part(part)
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        return self._bytes.get(token_id, b"")

    def piece_id(self, piece: str) -> int | None:
        return self._ids.get(piece)

    def is_control(self, token_id: int) -> bool:
        return token_id in self._control or token_id not in self._bytes

    def _require_spellable(self, text: str) -> None:
        """Refuse text that the model's alphabet lacks; the library would drop it without a word.

        SmolLM2, for one, has never seen U+0004 and has no token for it.
        """
        data = text.encode()
        if len(data.translate(None, self._missing_bytes)) == len(data):
            return
        position, character = next(
            (position, character)
            for position, character in enumerate(text)
            if any(byte in self._missing_bytes for byte in character.encode())
        )
        raise FieldInvalid(
            "text",
            f"text has U+{ord(character):04X} at character {position}, "
            "which this model's tokenizer cannot spell",
            position=position,
        )

    def _encode_part(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids if text else []


def _parse(file: bytes) -> dict[str, Any]:
    try:
        document = json.loads(file)
    except ValueError as error:
        raise CheckpointInvalid("tokenizer.json is not JSON") from error
    if not isinstance(document, dict):
        raise CheckpointInvalid("tokenizer.json is not a JSON object")
    return document


def _byte_pair_model(document: Mapping[str, Any]) -> dict[str, Any]:
    model = document.get("model")
    if not isinstance(model, dict):
        raise CheckpointInvalid("tokenizer.json has no model")
    # Files older than the field hold merges, and only this kind does.
    if (kind := model.get("type", "BPE" if "merges" in model else None)) != "BPE":
        raise CheckpointUnsupported(f"tokenizer.json holds a {kind} model; only BPE is supported")
    for option in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(option):
            raise CheckpointUnsupported(f"tokenizer.json sets {option}, which is not supported")
    if not isinstance(model.get("vocab"), dict) or not isinstance(model.get("merges"), list):
        raise CheckpointInvalid("tokenizer.json's model has no vocab or no merges")
    return model


def _added_tokens(document: Mapping[str, Any]) -> dict[str, tuple[int, bool]]:
    """Name → (id, whether it is special). Tokens that are not special are text to the reader."""
    try:
        return {
            str(token["content"]): (int(token["id"]), bool(token.get("special", False)))
            for token in document.get("added_tokens") or ()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointInvalid("tokenizer.json has a malformed added token") from error


def _remove_pieces(model: dict[str, Any], names: frozenset[str]) -> None:
    """Take pieces out of the vocabulary, with every merge that makes or uses one."""
    model["vocab"] = {
        piece: token_id for piece, token_id in model["vocab"].items() if piece not in names
    }

    def survives(merge: str | list[str]) -> bool:
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        return names.isdisjoint((left, right, left + right))

    model["merges"] = [merge for merge in model["merges"] if survives(merge)]
    # It is a control token as a rule, and text must not make one: what cannot be spelled is
    # refused by `encode`.
    model["unk_token"] = None


def _spelling(decoder: Mapping[str, Any] | None) -> tuple[bool, Callable[[str], bytes]]:
    """How the declared decoder turns a piece into bytes, and whether that is ByteLevel."""
    steps = [] if decoder is None else decoder.get("decoders", [decoder])
    kinds = {str(step.get("type")) for step in steps}
    if kinds == {"ByteLevel"}:
        return True, _byte_level_bytes
    # Strip only drops the space that a normaliser put before the very first word.
    if kinds & {"Metaspace", "ByteFallback"} and kinds <= {
        "Metaspace",
        "ByteFallback",
        "Replace",
        "Fuse",
        "Strip",
    }:
        return False, _byte_fallback_bytes
    raise CheckpointUnsupported(
        f"tokenizer.json declares the decoder {' + '.join(sorted(kinds)) or 'none'}; "
        "supported are ByteLevel, and Metaspace or ByteFallback with Replace, Fuse and Strip"
    )


def _byte_level_table() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes stand for themselves, the others for U+0100 and up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(0x100) if value not in printable]
    return {chr(value): value for value in printable} | {
        chr(0x100 + index): value for index, value in enumerate(others)
    }


_BYTE_LEVEL = _byte_level_table()


def _byte_level_bytes(piece: str) -> bytes:
    try:
        return bytes(_BYTE_LEVEL[character] for character in piece)
    except KeyError as error:
        raise CheckpointInvalid(
            f"tokenizer.json declares ByteLevel, but {error} is outside its alphabet"
        ) from None


def _byte_fallback_bytes(piece: str) -> bytes:
    if match := _BYTE_PIECE.fullmatch(piece):
        return bytes([int(match[1], 16)])
    return piece.replace(SPACE_MARK, " ").encode()
