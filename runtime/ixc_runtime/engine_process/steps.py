"""The engine's steps: who is admitted, what is encoded and computed, and what comes of it.

Launches each batch, one ahead where the runner can, and follows every sequence from its admission
to its end; what goes wrong on the way fails those that it went wrong for. Knows nothing of messages
that come in, nor of which requests there may be.
"""

import logging
import traceback
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ixc_runtime.engine_process.images import EncodedImages
from ixc_runtime.engine_process.messages import (
    Failed,
    Finished,
    PixelsNeeded,
    PromptDone,
    Started,
    Token,
    Update,
)
from ixc_runtime.engine_process.runner import LaunchedStep, StepRunner
from ixc_runtime.errors import EngineFault, RuntimeFault
from ixc_runtime.request import FinishReason
from ixc_runtime.sampling.sampler import SampledToken
from ixc_runtime.scheduler.scheduler import Chunk, Scheduler
from ixc_runtime.scheduler.sequence import Sequence

_log = logging.getLogger(__name__)


class _Step(NamedTuple):
    chunks: list[Chunk]
    launched: LaunchedStep


class Steps:
    """Of one batch, one after the other. Every method leaves the accounts consistent."""

    def __init__(
        self,
        scheduler: Scheduler,
        images: EncodedImages,
        runner: StepRunner,
        *,
        tiles_per_step: int,
        clock: Callable[[], float],
    ) -> None:
        self.num_launched = 0
        self._scheduler = scheduler
        self._images = images
        self._runner = runner
        self._tiles_per_step = tiles_per_step
        self._clock = clock
        self._on_its_way: _Step | None = None
        self._updates: list[Update] = []  # to be told with the next step

    def run_one(self) -> tuple[list[Update], bool]:
        """Admit, encode some tiles, launch one batch, take in the one before it.

        A runner that runs ahead has two steps on their way at times, so that the device never waits
        for us; its tokens land one call later. Returns what happened since the last call, and
        whether there was anything to do; when there was not, nothing will change until the next
        message.

        No request can end the engine: what goes wrong fails those that it went wrong for.
        """
        was_on_its_way = self._on_its_way is not None
        self._admit()
        num_tiles = self._encode()
        chunks = self._scheduler.plan(self._images.has)
        launched = self._launch(chunks)
        self._land()
        self._on_its_way = launched
        if not self._runner.runs_ahead:
            self._land()
        updates, self._updates = self._updates, []
        return updates, bool(chunks or was_on_its_way or num_tiles or updates)

    def _admit(self) -> None:
        while (sequence := self._scheduler.first_waiting) is not None:
            try:
                if self._scheduler.admit() is None:
                    return
                self._begin(sequence)
            except Exception as error:
                self.give_up([sequence], error, "the engine could not start the request")

    def _encode(self) -> int:
        """The number of tiles."""
        due = self._scheduler.next_image(self._images.has)
        num_tiles, failures = self._images.encode(self._tiles_per_step, due=due)
        for key, error in failures:
            self.give_up(self._scheduler.wanting(key), error, "a picture could not be encoded")
        return num_tiles

    def _begin(self, sequence: Sequence) -> None:
        now = self._clock()
        sequence.times.started = sequence.times.pixels_wanted = now
        self._updates.append(
            Started(
                sequence_id=sequence.sequence_id,
                queue_seconds=now - sequence.times.submitted,
                cached_tokens=sequence.num_computed,
            )
        )
        for image in sequence.missing_images:
            is_encoded = self._images.has(image.key)
            if self._images.want(image):
                self._updates.append(PixelsNeeded(image.key))
            sequence.wanted_images.append(image.key)
            if not is_encoded and image.key not in sequence.awaited_images:
                sequence.awaited_images.add(image.key)
                sequence.encoded_tiles += 1 + image.tiles_wide * image.tiles_high

    def _launch(self, chunks: list[Chunk]) -> _Step | None:
        if not chunks:
            return None
        self.num_launched += 1
        try:
            launched = self._runner.launch(chunks)
        except Exception as error:
            self._give_up_step(chunks, error)
            return None
        for chunk in chunks:
            self._scheduler.launched(chunk)
        return _Step(chunks, launched)

    def _land(self) -> None:
        """Take in what the launched step has brought, if there is one."""
        step, self._on_its_way = self._on_its_way, None
        if step is None:
            return
        try:
            tokens = iter(step.launched.tokens())
        except Exception as error:
            self._give_up_step(step.chunks, error)
            return
        for chunk in step.chunks:
            sampled = next(tokens) if chunk.yields_token else None
            if chunk.sequence.table is None:
                continue  # it ended while the step was on its way
            if chunk.yields_token and sampled is None:
                # Nor, perhaps, is what this step has written, or what it has found cached: neither
                # is to be found again.
                self.fail(chunk.sequence, EngineFault("the model's output is not finite"))
                self._scheduler.cache.forget()
                continue
            self._scheduler.landed(chunk)
            if chunk.ends_prompt:
                self._finish_prompt(chunk.sequence)
            if sampled is not None:
                self._accept(chunk, sampled)

    def _give_up_step(self, chunks: list[Chunk], error: Exception) -> None:
        """Whose fault it was cannot be told from here; the accounts are untouched."""
        running = [chunk.sequence for chunk in chunks if chunk.sequence.table is not None]
        self.give_up(running, error, "a step of the engine failed")

    def _finish_prompt(self, sequence: Sequence) -> None:
        times = sequence.times
        times.vision = sum(self._images.seconds(key) for key in sequence.awaited_images)
        # Some pictures may have been encoded while others were waited for.
        apart = times.media + times.vision
        self._release_images(sequence)
        self._updates.append(
            PromptDone(
                sequence_id=sequence.sequence_id,
                encoded_tiles=sequence.encoded_tiles,
                media_seconds=times.media,
                vision_seconds=times.vision,
                prefill_seconds=max(0.0, self._clock() - times.started - apart),
            )
        )

    def _accept(self, chunk: Chunk, sampled: SampledToken) -> None:
        """The token behind the chunk: take it in, unless it ends the answer."""
        sequence = chunk.sequence
        if sampled.token_id in sequence.request.stop_token_ids:
            self.finish(sequence, FinishReason.STOP, stop_token_id=sampled.token_id)
            return
        sequence.land(chunk.stop, sampled.token_id)
        self._updates.append(Token(sequence.sequence_id, sampled.token_id, sampled.logprob))
        if chunk.stop + 1 - sequence.num_prompt >= sequence.max_output:
            self.finish(sequence, FinishReason.MAX_TOKENS)

    # ---- how sequences end, in a step or between two

    def finish(
        self, sequence: Sequence, reason: FinishReason, *, stop_token_id: int | None = None
    ) -> None:
        self._remove(sequence)
        self._updates.append(
            Finished(sequence_id=sequence.sequence_id, reason=reason, stop_token_id=stop_token_id)
        )

    def fail(self, sequence: Sequence, fault: RuntimeFault) -> None:
        self._remove(sequence)
        self.refuse(sequence.sequence_id, fault)

    def refuse(self, sequence_id: str, fault: RuntimeFault) -> None:
        """Tell that there is no such sequence, or no longer."""
        self._updates.append(
            Failed(
                sequence_id=sequence_id,
                reason=fault.reason,
                message=fault.message,
                metadata=dict(fault.metadata),
            )
        )

    def give_up(self, sequences: Iterable[Sequence], error: Exception, message: str) -> None:
        """Fail them for what went wrong. Raises it where no later step could do better: this
        process is then of no use, and whoever started it starts another.
        """
        _log.error(message, exc_info=error)
        if not self._runner.is_usable():
            raise error
        # Lets go of what it had in hand: too little memory may be what went wrong.
        traceback.clear_frames(error.__traceback__)
        for sequence in sequences:
            self.fail(sequence, EngineFault(message))

    def _remove(self, sequence: Sequence) -> None:
        self._scheduler.remove(sequence)
        self._release_images(sequence)

    def _release_images(self, sequence: Sequence) -> None:
        self._images.release(sequence.wanted_images)
        sequence.wanted_images.clear()
