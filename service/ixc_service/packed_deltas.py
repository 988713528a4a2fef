"""A generation's deltas, packed: a few flat containers instead of an object for each token.

A busy server keeps millions of tokens of running and just ended generations. As objects they would
take some 350 bytes each, and Python's cycle collector would walk over all of them again and again,
which stalls every stream. Strings and arrays it passes over.
"""

from array import array
from collections.abc import Iterator

from ixc_runtime import TextDelta, TokenLogprob

# A short string, its place in the list, and the end of its ids.
_OVERHEAD_BYTES = 80


class PackedDeltas:
    """Deltas by index, oldest first. Knows nothing of sequence numbers."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._ids = array("I")
        self._ends = array("Q")  # how many ids there are up to and with each delta's
        self._logprobs: list[tuple[TokenLogprob, ...]] = []  # parallel; empty while there are none
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[TextDelta]:
        return (self.merged(index, index + 1) for index in range(len(self)))

    def append(self, delta: TextDelta) -> None:
        if delta.logprobs and not self._logprobs:
            self._logprobs = [()] * len(self)
        self._texts.append(delta.text)
        self._ids.extend(delta.token_ids)
        self._ends.append(len(self._ids))
        if delta.logprobs or self._logprobs:
            self._logprobs.append(delta.logprobs)
        self.num_bytes += self.size(len(self) - 1)

    def merged(self, start: int, stop: int) -> TextDelta:
        """Deltas `start` to `stop`, of which there is at least one, as one."""
        single = stop == start + 1
        logprobs = self._logprobs[start:stop]
        return TextDelta(
            text=self._texts[start] if single else "".join(self._texts[start:stop]),
            token_ids=tuple(self._ids[self._first_id(start) : self._ends[stop - 1]]),
            logprobs=tuple(entry for entries in logprobs for entry in entries),
        )

    def drop(self, count: int) -> None:
        """Forget the oldest."""
        self.num_bytes -= sum(map(self.size, range(count)))
        num_ids = self._first_id(count)
        del self._texts[:count], self._ids[:num_ids], self._logprobs[:count]
        self._ends = array("Q", (end - num_ids for end in self._ends[count:]))

    def size(self, index: int) -> int:
        """Bytes of memory, about."""
        num_ids = self._ends[index] - self._first_id(index)
        size = _OVERHEAD_BYTES + 4 * len(self._texts[index]) + 4 * num_ids
        if self._logprobs:
            size += sum(64 + 32 * len(entry.top) for entry in self._logprobs[index])
        return size

    def text(self) -> str:
        return "".join(self._texts)

    def token_ids(self) -> tuple[int, ...]:
        return tuple(self._ids)

    def _first_id(self, index: int) -> int:
        return self._ends[index - 1] if index else 0
