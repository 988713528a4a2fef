"""`tokenizer.model`: a SentencePiece model whose markers are made unreachable from text.

The published file holds its turn markers as *user-defined* pieces, and SentencePiece matches
those in any text. They are retyped to *control* before the processor is built: then only their
ids name them. Other user-defined pieces (full-width letters, dashes) are ordinary text and stay.
"""

import re
from typing import Any

from ixc_runtime.errors import CheckpointInvalid, CheckpointUnsupported
from ixc_runtime.prompt.tokenizer import require_encodable

# SentencePiece writes a space as this character; a file's text pieces are full of it.
SPACE_MARK = "\u2581"

# User-defined pieces that structure a prompt: [UNUSED_TOKEN_146], <|im_start|>, [SEP].
_MARKER = re.compile(r"\[[A-Z0-9_]+\]|<\|[^|]*\|>")
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


class SentencePieceTokenizer:
    def __init__(self, file: bytes) -> None:
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2

        schema: Any = sentencepiece_model_pb2  # its classes are made at import, unseen by checkers
        model = schema.ModelProto()
        try:
            model.ParseFromString(file)
        except Exception as error:  # protobuf's DecodeError, without importing protobuf here
            raise CheckpointInvalid("tokenizer.model is not a SentencePiece model") from error
        if not model.pieces:
            raise CheckpointInvalid("tokenizer.model holds no pieces")

        kind = schema.ModelProto.SentencePiece
        self._bytes: list[bytes] = []
        self._control: set[int] = set()
        self._byte_ids: dict[int, int] = {}
        for token_id, piece in enumerate(model.pieces):
            if piece.type == kind.USER_DEFINED and _MARKER.fullmatch(piece.piece):
                piece.type = kind.CONTROL
            if piece.type in (kind.CONTROL, kind.UNKNOWN):
                self._control.add(token_id)
                self._bytes.append(b"")
            elif piece.type == kind.BYTE:
                value = _byte_value(piece.piece)
                self._byte_ids[value] = token_id
                self._bytes.append(bytes([value]))
            else:
                self._bytes.append(piece.piece.replace(SPACE_MARK, " ").encode())
        if not model.trainer_spec.byte_fallback or len(self._byte_ids) != 256:
            # Without them, characters outside the vocabulary would all become one unknown token.
            raise CheckpointUnsupported(
                f"tokenizer.model has {len(self._byte_ids)} of the 256 byte pieces: "
                "SentencePiece models without byte fallback are not supported"
            )

        sentencepiece.set_min_log_level(2)  # the published file's NUL piece would be remarked on
        try:
            self._processor = sentencepiece.SentencePieceProcessor(
                model_proto=model.SerializeToString()
            )
        except RuntimeError as error:
            raise CheckpointInvalid(f"tokenizer.model was refused: {error}") from error
        self._space_mark_ids = [self._byte_ids[value] for value in SPACE_MARK.encode()]

    @property
    def vocab_size(self) -> int:
        return len(self._bytes)

    def encode(self, text: str) -> list[int]:
        require_encodable(text)
        # A literal space mark would be read back as a space, so it travels as its bytes.
        first, *others = text.split(SPACE_MARK)
        ids: list[int] = self._processor.encode(first)
        for part in others:
            ids += self._space_mark_ids
            ids += self._processor.encode(part)
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        return self._bytes[token_id] if 0 <= token_id < len(self._bytes) else b""

    def piece_id(self, piece: str) -> int | None:
        token_id: int = self._processor.piece_to_id(piece)
        # An unknown name answers with the unknown token's id.
        return token_id if self._processor.id_to_piece(token_id) == piece else None

    def is_control(self, token_id: int) -> bool:
        return token_id in self._control or not 0 <= token_id < len(self._bytes)


def _byte_value(piece: str) -> int:
    match = _BYTE_PIECE.fullmatch(piece)
    if match is None:
        raise CheckpointInvalid(f"tokenizer.model calls {piece!r} a byte piece")
    return int(match[1], 16)
