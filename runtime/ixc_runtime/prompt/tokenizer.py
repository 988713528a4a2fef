"""What a tokenizer is here, which files make one, and which tokens open and close a turn.

The one promise that the rest builds on: **text is inert**. No string whatsoever encodes to a
control id, so the structure of a prompt comes from its typed messages alone, and a user who
types `[UNUSED_TOKEN_146]` or `<|im_start|>` has typed a few odd words. The two readers
(`sentencepiece_tokenizer`, `json_tokenizer`) keep it in their own ways.

The second promise: `token_bytes` is exact, so the bytes of `encode(text)` joined are the text
(where the file itself declares no normalisation, as the published ones do not).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ixc_runtime.config import IxcSettings
from ixc_runtime.errors import CheckpointInvalid, CheckpointMissing, FieldInvalid


class Tokenizer(Protocol):
    @property
    def vocab_size(self) -> int:
        """One more than the largest id that has a piece. The model's own table may be longer."""

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, never a control id. Raises FieldInvalid for a lone surrogate."""

    def token_bytes(self, token_id: int) -> bytes:
        """The exact UTF-8 bytes a token stands for; b"" for control ids and unknown ones."""

    def piece_id(self, piece: str) -> int | None:
        """The id of a piece by its name in the file, control pieces included."""

    def is_control(self, token_id: int) -> bool:
        """Whether the id stands for no text, and no text encodes to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """The control ids that give a prompt its structure."""

    begin_of_text: int | None
    start_of_turn: int
    end_of_turn: int
    end_of_text: int

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids on which an answer ends, without repetition."""
        return tuple(dict.fromkeys((self.end_of_text, self.end_of_turn)))


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read the tokenizer of a model folder.

    `tokenizer.model` is preferred where both files stand, because it is the one that the
    official model ships; a tokenizer.json beside it is somebody's conversion.
    """
    if (path := folder / "tokenizer.model").is_file():
        from ixc_runtime.prompt.sentencepiece_tokenizer import SentencePieceTokenizer

        return SentencePieceTokenizer(path.read_bytes())
    if (path := folder / "tokenizer.json").is_file():
        from ixc_runtime.prompt.json_tokenizer import JsonTokenizer

        return JsonTokenizer(path.read_bytes())
    raise CheckpointMissing(
        "the model folder has neither tokenizer.model nor tokenizer.json", file="tokenizer.model"
    )


def resolve_roles(tokenizer: Tokenizer, settings: IxcSettings) -> Roles:
    """Turn the roles' pieces into ids, refusing any that user text could forge."""
    pieces = settings.roles

    def control_id(role: str, piece: str) -> int:
        token_id = tokenizer.piece_id(piece)
        if token_id is None:
            raise CheckpointInvalid(
                f"role {role} is {piece!r}, which the tokenizer does not have", role=role
            )
        if not tokenizer.is_control(token_id):
            raise CheckpointInvalid(
                f"role {role} is {piece!r}, which is plain text to the tokenizer: "
                "a user could type it",
                role=role,
            )
        return token_id

    return Roles(
        begin_of_text=(
            None
            if pieces.begin_of_text is None
            else control_id("begin_of_text", pieces.begin_of_text)
        ),
        start_of_turn=control_id("start_of_turn", pieces.start_of_turn),
        end_of_turn=control_id("end_of_turn", pieces.end_of_turn),
        end_of_text=control_id("end_of_text", pieces.end_of_text),
    )


def require_encodable(text: str) -> None:
    """Refuse what UTF-8 cannot carry: half of a surrogate pair, alone."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FieldInvalid(
            "text",
            f"text has a lone surrogate, U+{ord(text[error.start]):04X}, at character "
            f"{error.start}: it has no UTF-8 form",
            position=error.start,
        ) from None
