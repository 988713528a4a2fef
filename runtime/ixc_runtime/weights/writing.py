"""Shards written while the next ones are made: a disk and a processor that need not wait.

One at a time and in order, so what is on disk is always what a run without this would have left;
in memory are two shards instead of one. Knows no tensors' meaning.
"""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ixc_runtime.weights.progress import Output

if TYPE_CHECKING:
    from torch import Tensor


class ShardWriter:
    """To be entered. Its block ends when all is durable, or with what kept a shard from it."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._thread = ThreadPoolExecutor(1, "ixc-shards")
        self._writing: Future[None] | None = None

    def write(self, name: str, tensors: Mapping[str, "Tensor"]) -> None:
        """Returns once the shard before it is durable; raises what that one met."""
        self._wait()
        self._writing = self._thread.submit(self._output.write_shard, name, tensors)

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Nobody may write into the output any more once this has been left.
        self._thread.shutdown()
        if error is None:
            self._wait()
