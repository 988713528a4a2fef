"""The order of work: who is admitted, and which rows the next step computes.

First come, first served. A sequence is admitted when there is a place in the batch and its whole
worst case in pages can be promised; it then runs to its end. Every step takes one row of each
decoding sequence and fills the rest of its budget with chunks of prompts, oldest first.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ixc_runtime.kv_cache.cache import KvCache
from ixc_runtime.scheduler.sequence import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Tokens `start` .. `stop`-1 of a sequence, to be computed in one step.

    `yields_token`: they reach the sequence's end, so that the next token is sampled.
    """

    sequence: Sequence
    start: int
    stop: int
    yields_token: bool

    @property
    def ends_prompt(self) -> bool:
        return self.start < self.sequence.num_prompt <= self.stop


class Scheduler:
    """Owns the queue, the batch and the cache's accounts; all its changes happen between steps."""

    def __init__(self, cache: KvCache, *, max_batch: int, max_step_tokens: int) -> None:
        self.cache = cache
        self._max_batch = max_batch
        self._max_step_tokens = max_step_tokens
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[Sequence]:
        """Every sequence, running ones first."""
        yield from self._running
        yield from self._waiting

    def submit(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)

    def find(self, sequence_id: str) -> Sequence | None:
        return next((each for each in self if each.sequence_id == sequence_id), None)

    def wanting(self, image_key: bytes) -> list[Sequence]:
        """Those of the batch that have slots of this picture still to be computed."""
        return [
            sequence
            for sequence in self._running
            if any(image.key == image_key for image in sequence.missing_images)
        ]

    def next_image(self, has_features: Callable[[bytes], bool]) -> bytes | None:
        """The picture, by its key, that the oldest prompt of the batch will have to wait for."""
        prompt = next((each for each in self._running if not each.is_decoding), None)
        keys = (image.key for image in prompt.missing_images) if prompt else ()
        return next((key for key in keys if not has_features(key)), None)

    @property
    def first_waiting(self) -> Sequence | None:
        return self._waiting[0] if self._waiting else None

    def admit(self) -> Sequence | None:
        """Move the first of the queue into the batch, its cached prefix computed; None: no room."""
        if not self._waiting or len(self._running) == self._max_batch:
            return None
        sequence = self._waiting[0]
        opened = self.cache.open(
            namespace=sequence.namespace, prompt=sequence.slots, max_slots=sequence.max_slots
        )
        if opened is None:
            return None
        sequence.table, sequence.num_computed = opened
        self._running.append(self._waiting.popleft())
        return sequence

    def plan(self, has_features: Callable[[bytes], bool]) -> list[Chunk]:
        """The next step's chunks, grouped by sequence, pages extended to hold them.

        `has_features` says whether an image, by its key, is encoded; a prompt waits before the
        first image that is not. A sequence whose next token's rules need one that is not back yet
        sits this step out.
        """
        budget = self._max_step_tokens
        chunks = []
        for sequence in self._decoding_first():
            if budget == 0:
                break
            if sequence.awaits_its_token:
                continue
            stop = min(sequence.num_computed + budget, self._ready_until(sequence, has_features))
            if stop == sequence.num_computed:
                continue
            assert sequence.table is not None, "running sequences have their table"
            self.cache.extend(sequence.table, start=sequence.num_computed, stop=stop)
            chunks.append(
                Chunk(
                    sequence=sequence,
                    start=sequence.num_computed,
                    stop=stop,
                    yields_token=stop == len(sequence.tokens),
                )
            )
            budget -= stop - sequence.num_computed
        return chunks

    def _decoding_first(self) -> list[Sequence]:
        return sorted(self._running, key=lambda sequence: not sequence.is_decoding)

    def _ready_until(self, sequence: Sequence, has_features: Callable[[bytes], bool]) -> int:
        for image in sequence.missing_images:
            if not has_features(image.key):
                return max(image.start, sequence.num_computed)
        # Not beyond the last token that may be sampled: nothing comes after it.
        return min(len(sequence.tokens), sequence.max_slots)

    def launched(self, chunk: Chunk) -> None:
        """The chunk's step is on its way: later steps come after it on the device."""
        chunk.sequence.num_computed = chunk.stop
        if chunk.yields_token:
            chunk.sequence.expect()

    def landed(self, chunk: Chunk) -> None:
        """The chunk's tokens are all known; pages they fill can be found from now on."""
        sequence = chunk.sequence
        assert sequence.table is not None, "running sequences have their table"
        self.cache.publish(sequence.table, sequence.slots, chunk.stop)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is, and give its pages back."""
        if sequence.table is None:
            self._waiting.remove(sequence)
            return
        self._running.remove(sequence)
        self.cache.close(sequence.table)
        sequence.table = None

    def check_integrity(self) -> list[str]:
        """What is wrong with the accounts; empty when all is well. Tests call it every step."""
        found = self.cache.check_integrity([seq.table for seq in self._running if seq.table])
        for sequence in self._running:
            table = sequence.table
            if table is None:
                found.append(f"{sequence.sequence_id} runs without pages")
            elif len(table.pages) < self.cache.pages_for(sequence.num_computed):
                found.append(f"{sequence.sequence_id} has fewer pages than computed slots")
            if not sequence.num_computed <= len(sequence.tokens):
                found.append(f"{sequence.sequence_id} computed more tokens than it has")
        found.extend(
            f"{sequence.sequence_id} waits with pages"
            for sequence in self._waiting
            if sequence.table is not None
        )
        return found
