"""From a request to what the engine is sent: laid out, priced, checked, every setting filled in.

Knows the model's tokenizer, limits and defaults, and where the sizes of pictures come from; knows
neither the engine's state nor how an answer goes on.
"""

import asyncio
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

from ixc_runtime.config import TowerShape, load_settings, read_tower_shape
from ixc_runtime.engine_process.messages import ImageSlots, Submit
from ixc_runtime.errors import (
    ContextOverflow,
    FieldInvalid,
    NotOffered,
    PromptEmpty,
    TokenIdOutOfVocab,
)
from ixc_runtime.media.desk import MediaDesk
from ixc_runtime.media.geometry import ImageInfo
from ixc_runtime.media.price import MediaPrice, default_price
from ixc_runtime.media.video import VideoInfo
from ixc_runtime.model_info import ModelInfo
from ixc_runtime.prompt.layout import ImageSpan, PromptLayout, lay_out
from ixc_runtime.prompt.tokenizer import load_tokenizer, resolve_roles
from ixc_runtime.request import (
    Conversation,
    GenerationRequest,
    Prompt,
    PromptUsage,
    SamplingParams,
    TokenPrompt,
)
from ixc_runtime.sampling.settings import MOST_EDITS, NEUTRAL, merged, violations


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """A priced request: what is sent to the engine, and what the front end needs to remember.

    `is_context_bound`: the answer may be cut by the context's end rather than by the caller.
    """

    submit: Submit
    layout: PromptLayout
    usage: PromptUsage
    is_context_bound: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCount:
    """What a prompt would cost, before any of it is computed."""

    usage: PromptUsage
    images: tuple[ImageSpan, ...]
    context_limit: int


class AdmissionDesk:
    """One model's; `folder` is its checkpoint, of which the tokenizer and the settings are read."""

    def __init__(self, folder: Path, info: ModelInfo, desk: MediaDesk) -> None:
        self.tokenizer = load_tokenizer(folder)
        self.tower: TowerShape | None = read_tower_shape(folder)
        self._settings = load_settings(folder)
        self._roles = resolve_roles(self.tokenizer, self._settings)
        self._info = info
        self._desk = desk

    async def admit(self, generation_id: str, request: GenerationRequest) -> Admission:
        """Raises the fault that refuses it."""
        wrong = violations(request.sampling, vocab_size=self._info.vocab_size)
        if wrong:
            raise wrong[0]
        self._check_logprobs(request.output.top_logprobs)
        layout = await self._lay_out(request.prompt)
        self._check_length(layout)
        sampling, is_context_bound = self._effective_sampling(request.sampling, layout)
        return Admission(
            submit=self._submission(generation_id, request, layout, sampling),
            layout=layout,
            usage=_usage(layout),
            is_context_bound=is_context_bound,
        )

    async def count(self, prompt: Prompt) -> PromptCount:
        """The price of a prompt, even of one that is too long to be answered."""
        layout = await self._lay_out(prompt)
        return PromptCount(
            usage=_usage(layout), images=layout.images, context_limit=self._info.context_limit
        )

    def price(self, info: ImageInfo | VideoInfo) -> MediaPrice:
        """What a picture or clip costs as the only one of a message, without any settings."""
        return default_price(info, self.require_tower(), hd_num=self._settings.hd_num_single)

    def require_tower(self) -> TowerShape:
        if self.tower is None:
            raise NotOffered(
                "this model takes no images: its checkpoint has no image tower", feature="images"
            )
        return self.tower

    def check_ids(self, token_ids: list[int] | tuple[int, ...]) -> None:
        for token_id in token_ids:
            if not 0 <= token_id < self._info.vocab_size:
                raise TokenIdOutOfVocab(
                    f"token id {token_id} is beyond the vocabulary of {self._info.vocab_size}",
                    tokenId=token_id,
                    vocabSize=self._info.vocab_size,
                )

    # ---- the prompt

    async def _lay_out(self, prompt: Prompt) -> PromptLayout:
        if isinstance(prompt, TokenPrompt):
            self.check_ids(prompt.token_ids)
            if not prompt.token_ids:
                raise PromptEmpty("the prompt has no tokens")
            return PromptLayout(token_ids=prompt.token_ids, images=())
        layout = await self._lay_out_conversation(prompt)
        # Answers kept from another model's sessions could hold ids that this one does not have.
        self.check_ids((max(layout.token_ids),))
        return layout

    async def _lay_out_conversation(self, conversation: Conversation) -> PromptLayout:
        media_info = await self._desk.measure(conversation) if self.tower else {}
        # A long prompt takes long to tokenise, and other streams share this thread.
        return await asyncio.to_thread(
            lay_out,
            conversation,
            tokenizer=self.tokenizer,
            roles=self._roles,
            settings=self._settings,
            tower=self.tower,
            media_info=media_info,
        )

    def _check_length(self, layout: PromptLayout) -> None:
        length, limit = len(layout.token_ids), self._info.context_limit
        if length >= limit:
            raise ContextOverflow(
                f"the prompt has {length} tokens, the context limit is {limit} with the answer",
                promptTokens=length,
                contextLimit=limit,
            )

    # ---- the settings

    def _check_logprobs(self, count: int | None) -> None:
        limit = self._info.vocab_size
        if count is not None and not 0 <= count <= limit:
            message = f"top_logprobs is {count}, allowed: [0, {limit}]"
            raise FieldInvalid("output.top_logprobs", message)

    def _effective_sampling(
        self, asked: SamplingParams, layout: PromptLayout
    ) -> tuple[SamplingParams, bool]:
        """Every setting filled in, and whether the context bounds the answer."""
        sampling = merged(asked, self._info.default_sampling, NEUTRAL)
        room = self._info.context_limit - len(layout.token_ids)
        wanted = sampling.max_output_tokens or room
        return replace(
            sampling,
            max_output_tokens=min(wanted, room),
            seed=secrets.randbits(64) if sampling.seed is None else sampling.seed,
        ), wanted >= room

    def _submission(
        self,
        generation_id: str,
        request: GenerationRequest,
        layout: PromptLayout,
        sampling: SamplingParams,
    ) -> Submit:
        stops = () if sampling.ignore_eos else self._info.stop_token_ids
        stop_token_ids = [*stops, *sampling.stop_token_ids]
        bad_word_ids = self._bad_word_ids(sampling.bad_words)
        num_edits = len(sampling.logit_bias) + len(bad_word_ids) + len(stop_token_ids)
        if num_edits > MOST_EDITS:
            raise FieldInvalid(
                "sampling",
                f"{num_edits} biases, stops and spellings of bad words, allowed: {MOST_EDITS}",
            )
        return Submit(
            sequence_id=generation_id,
            token_ids=list(layout.token_ids),
            images=[
                ImageSlots(
                    key=span.key,
                    start=span.start,
                    num_tokens=span.num_tokens,
                    tiles_wide=span.tiles_wide,
                    tiles_high=span.tiles_high,
                )
                for span in layout.images
            ],
            adapter=request.adapter,
            scope=request.scope,
            sampling=sampling,
            stop_token_ids=stop_token_ids,
            bad_word_ids=bad_word_ids,
            top_logprobs=request.output.top_logprobs,
        )

    def _bad_word_ids(self, words: tuple[str, ...]) -> list[list[int]]:
        """Each word as it is spelt at the start of a text and after a space."""
        spellings = [self.tokenizer.encode(each) for word in words for each in (word, f" {word}")]
        return [ids for ids in spellings if ids]


def _usage(layout: PromptLayout) -> PromptUsage:
    return PromptUsage(
        prompt_tokens=len(layout.token_ids),
        image_tokens=layout.num_image_tokens,
        num_images=sum(not span.is_video for span in layout.images),
        video_tokens=layout.num_video_tokens,
        num_videos=sum(span.is_video for span in layout.images),
    )
