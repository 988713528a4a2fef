"""A runner that runs one step ahead, on a CPU: what a device does with tokens that are not back.

Steps are computed at once, but nobody hears of their tokens before they are asked for; the next
step takes them from here, as it would from a device's memory.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ixc_runtime.engine_process.runner import LaunchedStep, PlainRunner
from ixc_runtime.sampling.sampler import SampledToken
from ixc_runtime.scheduler.scheduler import Chunk
from ixc_runtime.scheduler.sequence import UNKNOWN
from ixc_runtime.scheduler.sequence import Sequence as Lane


@dataclass(slots=True)
class _Held:
    step: LaunchedStep
    is_asked_for: bool = False

    def tokens(self) -> list[SampledToken | None]:
        self.is_asked_for = True
        return self.step.tokens()


class AheadRunner(PlainRunner):
    runs_ahead = True
    num_ahead = 0  # steps that were launched while the one before had not been asked for

    _held: _Held | None = None
    _newest: dict[Lane, int]

    def launch(self, chunks: Sequence[Chunk]) -> LaunchedStep:
        self._newest = {} if self._held is None else self._newest
        self.num_ahead += self._held is not None and not self._held.is_asked_for
        with self._known(chunks):
            step = super().launch(chunks)
        sampling = [chunk.sequence for chunk in chunks if chunk.yields_token]
        for sequence, token in zip(sampling, step.tokens(), strict=True):
            self._newest[sequence] = 0 if token is None else token.token_id
        self._held = _Held(step)
        return self._held

    @contextmanager
    def _known(self, chunks: Sequence[Chunk]) -> Iterator[None]:
        """For the length of a launch, sequences look as if their newest token were back."""
        unknown = [chunk.sequence for chunk in chunks if chunk.sequence.tokens[-1] == UNKNOWN]
        for sequence in unknown:
            sequence.tokens[-1] = self._newest[sequence]
            sequence.generated[self._newest[sequence]] += 1
        try:
            yield
        finally:
            for sequence in unknown:
                sequence.generated -= Counter([sequence.tokens[-1]])
                sequence.tokens[-1] = UNKNOWN
