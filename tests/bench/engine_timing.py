"""An EngineCore driven step by step against the clock: full batches, prompts, pictures.

Prompts are random ids that nobody else has, so that nothing is found in the cache that should be
computed; where a cell goes on from another's prompt it says so.
"""

import itertools
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ixc_runtime.engine_process.core import EngineCore
from ixc_runtime.engine_process.messages import (
    Failed,
    Finished,
    ImageSlots,
    Pixels,
    PixelsNeeded,
    PromptDone,
    Submit,
    Token,
    Update,
)
from ixc_runtime.media.geometry import num_image_tokens
from ixc_runtime.prompt.layout import IMAGE_TOKEN
from ixc_runtime.request import BASE_ADAPTER, FinishReason, SamplingParams
from ixc_runtime.sampling.settings import NEUTRAL, merged

# Decode steps before the clock starts: graphs are captured, everyone is past the prompt.
WARM_UP = 8
QUESTION_TOKENS = 32
ANSWER_TOKENS = 8


class DoesNotFit(Exception):
    """The memory plan has no room for what a cell asks."""


class TimedEngine:
    def __init__(
        self, core: EngineCore, *, context_limit: int, sampling: SamplingParams, repeats: int
    ) -> None:
        self.core = core
        self._context_limit = context_limit
        self._sampling = replace(merged(sampling, replace(NEUTRAL, seed=0)), ignore_eos=True)
        self._repeats = repeats
        self._numbers = itertools.count()
        self._pixels: dict[bytes, Pixels] = {}

    def decode(self, batch: int, context: int, tokens: int) -> list[float]:
        """Tokens a second of the whole batch, in `repeats` windows of one stretch of decoding."""
        # While the last prompts are computed, the first sequences generate already.
        filling = batch * context // self.core.plan.max_step_tokens + 2
        most = filling + WARM_UP + tokens
        self._check_room(batch, context + most)
        names = [
            self._submit(self._prompt(context, context, place), most) for place in range(batch)
        ]
        self._until(Token, names)
        for _ in range(WARM_UP):
            self._step()
        rates = []
        window = max(tokens // self._repeats, 1)
        for _ in range(self._repeats):
            began, counted = time.perf_counter(), 0
            for _ in range(window):
                counted += sum(isinstance(update, Token) for update in self._step())
            rates.append(counted / (time.perf_counter() - began))
        self._end(names)
        return rates

    def prefill(self, tokens: int, count: int, *, warm_up: int, repeats: int) -> list[float]:
        """Seconds from the moment `count` prompts are there to the last one's first token."""
        self._check_room(count, tokens + 1)
        seconds = []
        for _ in range(warm_up + repeats):
            prompts = [self._prompt(tokens, next(self._numbers), -1) for _ in range(count)]
            began = time.perf_counter()
            names = [self._submit(prompt, 1) for prompt in prompts]
            self._until(Token, names)
            seconds.append(time.perf_counter() - began)
            self._end(names)
        return seconds[warm_up:]

    def picture(self, wide: int, high: int) -> tuple[list[float], list[float], int]:
        """Seconds to the first token of a question about a new picture, then of a second question
        behind its answer; and the first prompt's tokens.
        """
        tower = self.core.model.tower
        if tower is None:
            raise DoesNotFit("the model sees no pictures")
        num_tokens = num_image_tokens(wide, high, tower.grid // 2)
        self._check_room(1, num_tokens + 3 * QUESTION_TOKENS + 2 * ANSWER_TOKENS)
        first, second = [], []
        for _ in range(self._repeats + 1):
            number = next(self._numbers)
            image = ImageSlots(
                key=number.to_bytes(32, "little"),
                start=1,
                num_tokens=num_tokens,
                tiles_wide=wide,
                tiles_high=high,
            )
            self._lay_out_pixels(image, tower.tile_size)
            prompt = [1, *[IMAGE_TOKEN] * num_tokens, *self._prompt(QUESTION_TOKENS, number, 0)]
            seconds, answer = self._asked(prompt, image)
            first.append(seconds)
            prompt += [*answer, *self._prompt(QUESTION_TOKENS, number, 1)]
            second.append(self._asked(prompt, image)[0])
        return first[1:], second[1:], num_tokens + 1 + QUESTION_TOKENS

    # ---- requests

    def _asked(self, prompt: list[int], image: ImageSlots) -> tuple[float, list[int]]:
        """Seconds to the first token, and the whole answer."""
        began = time.perf_counter()
        name = self._submit(prompt, ANSWER_TOKENS, image)
        updates = self._until(Token, [name])
        seconds = time.perf_counter() - began
        updates += self._until(Finished, [name], updates)
        return seconds, [update.token_id for update in updates if isinstance(update, Token)]

    def _submit(self, prompt: list[int], max_output: int, *images: ImageSlots) -> str:
        name = str(next(self._numbers))
        self.core.submit(
            Submit(
                sequence_id=name,
                token_ids=prompt,
                images=list(images),
                adapter=BASE_ADAPTER,
                scope="",
                sampling=replace(self._sampling, max_output_tokens=max_output, seed=int(name)),
                stop_token_ids=[],
                bad_word_ids=[],
                top_logprobs=None,
            )
        )
        return name

    def _prompt(self, tokens: int, *seed: int) -> list[int]:
        """Ids behind the control tokens; the same seed gives the same."""
        generator = np.random.default_rng([part + 1 for part in seed])
        vocab = self.core.model.config.vocab_size
        ids: list[int] = generator.integers(min(300, vocab // 2), vocab, tokens).tolist()
        return ids

    def _lay_out_pixels(self, image: ImageSlots, tile_size: int) -> None:
        """In memory, where media workers put them too; the engine deletes the file."""
        width, height = image.tiles_wide * tile_size, image.tiles_high * tile_size
        folder = Path("/dev/shm")
        with tempfile.NamedTemporaryFile(
            delete=False, dir=folder if folder.is_dir() else None
        ) as file:
            generator = np.random.default_rng(int.from_bytes(image.key, "little"))
            file.write(generator.bytes(3 * width * height))
        self._pixels[image.key] = Pixels(key=image.key, path=file.name, width=width, height=height)

    def _check_room(self, batch: int, tokens: int) -> None:
        plan = self.core.plan
        pages = batch * -(-tokens // plan.page_size)
        if batch > plan.max_batch:
            raise DoesNotFit(f"does not fit: {batch} sequences, at most {plan.max_batch}")
        if tokens > self._context_limit:
            raise DoesNotFit(f"does not fit: {tokens} tokens, at most {self._context_limit}")
        if pages > plan.num_pages:
            raise DoesNotFit(
                f"does not fit: {pages * plan.page_size:,} tokens in the cache, "
                f"room for {plan.capacity_tokens:,}"
            )

    # ---- steps

    def _step(self) -> list[Update]:
        updates, _ = self.core.step()
        for update in updates:
            if isinstance(update, PixelsNeeded):
                self.core.supply(self._pixels.pop(update.key))
            elif isinstance(update, Failed):
                raise RuntimeError(f"a sequence failed: {update.reason}: {update.message}")
        return updates

    def _until(
        self,
        kind: type[Token | PromptDone | Finished],
        names: Collection[str],
        heard: Sequence[Update] = (),
    ) -> list[Update]:
        """Step until each of them has had such an update, counting those heard already."""
        missing = set(names) - {each.sequence_id for each in heard if isinstance(each, kind)}
        updates: list[Update] = []
        while missing:
            new = self._step()
            missing -= {update.sequence_id for update in new if isinstance(update, kind)}
            updates += new
        return updates

    def _end(self, names: Sequence[str]) -> None:
        """Cancel what still runs, and let the engine come to rest."""
        for name in names:
            self.core.cancel(name, FinishReason.CANCELLED)
        while self.core.step()[1]:
            pass
