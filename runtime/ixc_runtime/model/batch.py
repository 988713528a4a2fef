"""The rows of one step, as the model sees them: a plain value, built by the engine."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBatch:
    """Rows of several sequences in one step: a chunk of a prompt each, or one decoded token.

    A sequence's rows stand together, at consecutive positions that end at its context length - 1:

        query_starts      0         3   4              9        three sequences
        rows              a a a     b   c c c c c               a: chunk, b: decode, c: chunk
        positions         0 1 2     17  32 .. 36
        context_lengths   3         18  37                      this step's rows included

    Everything a row attends to is in the pages of its sequence; `slots` says where its own key and
    value go. Sequences of any length, adapter and rotary base mix freely.
    """

    token_ids: Tensor  # (rows,) int64; 0 where the row holds an image token
    positions: Tensor  # (rows,) int64
    rotary_bases: Tensor  # (rows,) float64
    slots: Tensor  # (rows,) int64: page * page_size + offset
    image_rows: Tensor  # (n,) int64: rows that hold image tokens
    image_features: Tensor | None  # (n, hidden), in the order of image_rows
    adapter_rows: tuple[tuple[str, Tensor], ...]  # rows of each adapter; the base model's absent
    query_starts: tuple[int, ...]  # (sequences + 1)
    context_lengths: tuple[int, ...]  # (sequences)
    page_tables: Tensor  # (sequences, most pages) int64, padded with 0
    output_rows: Tensor  # rows whose logits are wanted

    @property
    def num_rows(self) -> int:
        return self.query_starts[-1]
