"""Drives an EngineCore step by step: submits, supplies pixels, collects, checks accounts."""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ixc_runtime.engine_process.core import EngineCore
from ixc_runtime.engine_process.messages import (
    Failed,
    Finished,
    ImageSlots,
    Pixels,
    PixelsNeeded,
    PromptDone,
    Started,
    Submit,
    Token,
    Update,
)
from ixc_runtime.prompt.layout import IMAGE_TOKEN
from ixc_runtime.request import FinishReason, SamplingParams, TokenLogprob
from ixc_runtime.sampling.settings import NEUTRAL, merged

GREEDY = SamplingParams(temperature=0.0, seed=0)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Random pixels named by `seed`, as `wide` x `high` tiles."""

    seed: int = 0
    wide: int = 1
    high: int = 1

    @property
    def key(self) -> bytes:
        return hashlib.sha256(repr(self).encode()).digest()

    def pixels(self, tile_size: int) -> np.ndarray:
        """(height, width, 3) uint8."""
        shape = (self.high * tile_size, self.wide * tile_size, 3)
        return np.random.default_rng(self.seed).integers(0, 256, shape).astype(np.uint8)


@dataclass(kw_only=True)
class Outcome:
    """What was heard of one sequence."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    started: Started | None = None
    prompt: PromptDone | None = None
    finished: Finished | None = None
    failed: Failed | None = None

    @property
    def is_over(self) -> bool:
        return self.finished is not None or self.failed is not None


class EngineDriver:
    """`tile_size` and `grid` are the tower's; every step's accounts are checked."""

    def __init__(self, core: EngineCore, *, tile_size: int = 56, side: int = 2) -> None:
        self.core = core
        self.outcomes: dict[str, Outcome] = {}
        self.num_renderings = 0
        self._tile_size = tile_size
        self._side = side
        self._pictures: dict[bytes, Picture] = {}

    def submit(
        self,
        name: str,
        prompt: Sequence[int | Picture],
        *,
        adapter: str = "base",
        scope: str = "",
        max_output: int = 8,
        sampling: SamplingParams = GREEDY,
        stop_token_ids: Sequence[int] = (),
        bad_word_ids: Sequence[list[int]] = (),
        top_logprobs: int | None = None,
    ) -> None:
        token_ids: list[int] = []
        images: list[ImageSlots] = []
        for part in prompt:
            if isinstance(part, int):
                token_ids.append(part)
                continue
            self._pictures[part.key] = part
            side = self._side
            num_tokens = (part.wide * part.high + 1) * side**2 + 1 + (part.high + 1) * side
            images.append(
                ImageSlots(
                    key=part.key,
                    start=len(token_ids),
                    num_tokens=num_tokens,
                    tiles_wide=part.wide,
                    tiles_high=part.high,
                )
            )
            token_ids += [IMAGE_TOKEN] * num_tokens
        self.outcomes[name] = Outcome()
        self.core.submit(
            Submit(
                sequence_id=name,
                token_ids=token_ids,
                images=images,
                adapter=adapter,
                scope=scope,
                sampling=replace(
                    merged(sampling, replace(NEUTRAL, seed=0)), max_output_tokens=max_output
                ),
                stop_token_ids=list(stop_token_ids),
                bad_word_ids=list(bad_word_ids),
                top_logprobs=top_logprobs,
            )
        )

    def cancel(self, name: str) -> None:
        self.core.cancel(name, FinishReason.CANCELLED)

    def step(self) -> bool:
        """One step; True while there is work. Accounts are checked, pixels are supplied."""
        updates, is_busy = self.core.step()
        for update in updates:
            self._hear(update)
        assert self.core.check_integrity() == []
        return is_busy or any(isinstance(update, PixelsNeeded) for update in updates)

    def run(self) -> dict[str, Outcome]:
        """Step until nothing is left to do."""
        while self.step():
            pass
        assert all(outcome.is_over for outcome in self.outcomes.values())
        return self.outcomes

    def ids(self, name: str, prompt: Sequence[int | Picture], **options: object) -> list[int]:
        """One request, run to its end."""
        self.submit(name, prompt, **options)  # type: ignore[arg-type]
        return self.run()[name].ids

    def _hear(self, update: Update) -> None:
        match update:
            case PixelsNeeded(key):
                self._supply(self._pictures[key])
            case Token(sequence_id, token_id, logprob):
                self.outcomes[sequence_id].ids.append(token_id)
                if logprob is not None:
                    self.outcomes[sequence_id].logprobs.append(logprob)
            case Started():
                self.outcomes[update.sequence_id].started = update
            case PromptDone():
                self.outcomes[update.sequence_id].prompt = update
            case Finished():
                self.outcomes[update.sequence_id].finished = update
            case Failed():
                self.outcomes[update.sequence_id].failed = update

    def _supply(self, picture: Picture) -> None:
        self.num_renderings += 1
        pixels = picture.pixels(self._tile_size)
        height, width, _ = pixels.shape
        with tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(pixels.tobytes())
        self.core.supply(Pixels(key=picture.key, path=file.name, width=width, height=height))
