"""What the work on weights needs from whoever runs it: somewhere to write, someone to tell.

Free of torch, so that a front end may name the types.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Report(Protocol):
    """Progress. Any call may raise to cancel the work; nothing is caught on the way out."""

    def stage(self, name: str, *, index: int, count: int) -> None:
        """The `index`-th (from 0) of `count` stages begins."""

    def item(self, name: str, *, done: int, total: int) -> None:
        """`name` (a tensor, a layer) is finished, and with it `done` of the stage's `total`.

        Counted in whatever takes about equally long (bytes, layers), so that a rate may be drawn
        from it. What an earlier run had finished counts too, all at once.
        """

    def metric(self, *, layer: str, name: str, value: float) -> None:
        """A figure of one layer, once it is known."""

    def log(self, text: str) -> None:
        """A sentence for the reader of a log."""


class Output(Protocol):
    """A staged folder. What is written is durable when the call returns."""

    folder: Path

    def write_shard(self, name: str, tensors: Mapping[str, "Tensor"]) -> None:
        """A safetensors file. The tensors lie in CPU memory, contiguous."""

    def write_json(self, name: str, document: object) -> None: ...

    def copy(self, source: Path) -> None:
        """A file, under its own name, byte for byte."""

    def has_shard(self, name: str) -> bool:
        """Whether an earlier run of the same work, on the same inputs, has finished this shard."""
