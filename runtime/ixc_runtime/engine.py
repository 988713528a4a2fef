"""The engine as the service sees it: text and pictures in, streams of updates out.

    start ── supervises ──► engine process ◄── pixels ── media workers
      │                          ▲
      └─ generate ─ Generation ──┘   one mailbox per generation, one reader task for all

Lives in the front end: asyncio, no torch. Knows the tokenizer, the prompt's layout and the prices;
knows nothing of sessions or gRPC. When the engine process dies, or hangs and is killed for it,
running generations get EngineLost and a new process is started; this object stays.
"""

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ixc_runtime.config import IxcSettings, TowerShape, load_settings, read_tower_shape
from ixc_runtime.engine_process.link import EngineLink, open_link
from ixc_runtime.engine_process.messages import (
    Answer,
    Ask,
    Cancel,
    EngineConfig,
    Frame,
    FromEngine,
    ImageSlots,
    Pixels,
    PixelsFailed,
    PixelsNeeded,
    Ready,
    Submit,
    Token,
    Update,
)
from ixc_runtime.errors import (
    AdapterUnavailable,
    ContextOverflow,
    EngineLost,
    NotOffered,
    PromptEmpty,
    QueueFull,
    RuntimeFault,
    TokenIdOutOfVocab,
)
from ixc_runtime.generation import Admission, Generation
from ixc_runtime.mailbox import Mailbox
from ixc_runtime.media.desk import MediaDesk, MediaLimits
from ixc_runtime.media.geometry import ImageInfo
from ixc_runtime.media.price import MediaPrice, default_price
from ixc_runtime.media.video import VideoInfo
from ixc_runtime.model_info import EngineLoad, MemoryPlan, ModelInfo
from ixc_runtime.prompt.decoding import TextDecoder
from ixc_runtime.prompt.layout import ImageSpan, PromptLayout, lay_out
from ixc_runtime.prompt.tokenizer import Tokenizer, load_tokenizer, resolve_roles
from ixc_runtime.request import (
    Conversation,
    FinishReason,
    GenerationRequest,
    ImageSource,
    Prompt,
    PromptUsage,
    SamplingParams,
    TokenPrompt,
    VideoSource,
)
from ixc_runtime.sampling.settings import NEUTRAL, merged, violations
from ixc_runtime.watchdog import Watchdog

_log = logging.getLogger(__name__)
_RESTART_SECONDS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
STEP_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCount:
    """What a prompt would cost, before any of it is computed."""

    usage: PromptUsage
    images: tuple[ImageSpan, ...]
    context_limit: int


class Engine:
    """Made by `Engine.start`; `close` ends everything it started."""

    def __init__(
        self,
        config: EngineConfig,
        link: EngineLink,
        ready: Ready,
        desk: MediaDesk,
        *,
        in_process: bool,
        step_timeout_seconds: float | None,
    ) -> None:
        folder = Path(config.model)
        self.info: ModelInfo = ready.info
        self.plan: MemoryPlan = ready.plan
        self.tokenizer: Tokenizer = load_tokenizer(folder)
        self._config = config
        self._in_process = in_process
        self._settings: IxcSettings = load_settings(folder)
        self._roles = resolve_roles(self.tokenizer, self._settings)
        self._tower = read_tower_shape(folder)
        self._desk = desk
        self._link: EngineLink | None = link
        self._mailboxes: dict[str, Mailbox[Update]] = {}
        self._images: dict[str, tuple[ImageSpan, ...]] = {}
        self._questions: dict[int, asyncio.Future[Answer]] = {}
        self._question_ids = itertools.count()
        self._latest_load = EngineLoad(pages_total=ready.plan.num_pages)
        self._listeners: list[Callable[[bool], None]] = []
        self._watchdog = Watchdog(step_timeout_seconds) if step_timeout_seconds else None
        self._supervisor = asyncio.create_task(self._supervise(), name="engine supervisor")

    @classmethod
    async def start(
        cls,
        config: EngineConfig,
        *,
        in_process: bool = False,
        num_media_workers: int = 1,
        media: MediaLimits | None = None,
        step_timeout_seconds: float | None = STEP_TIMEOUT_SECONDS,
    ) -> "Engine":
        """Start the engine and wait until it is ready.

        An engine process that has work and says nothing for `step_timeout_seconds` is killed and
        replaced; None waits for ever. A thread cannot be killed, and is not watched.
        Raises CheckpointError, KvCacheFull or FieldInvalid, saying what is wrong, if it cannot be.
        """
        link, ready = await open_link(config, in_process=in_process)
        try:
            desk = await MediaDesk.open(num_workers=num_media_workers, limits=media)
        except BaseException:
            await link.close()
            raise
        return cls(
            config,
            link,
            ready,
            desk,
            in_process=in_process,
            step_timeout_seconds=step_timeout_seconds,
        )

    async def close(self) -> None:
        """Stop everything; generations still running get EngineLost."""
        self._supervisor.cancel()
        await asyncio.gather(self._supervisor, return_exceptions=True)
        self._lose_everything()
        link, self._link = self._link, None
        if link is not None:
            await link.close()
        await self._desk.close()

    # ---- what the service asks

    @property
    def is_alive(self) -> bool:
        return self._link is not None

    @property
    def process_id(self) -> int | None:
        """Of the engine process; None while it restarts, or when it is a thread of this one."""
        return self._link.process_id if self._link else None

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """Call `listener(is_alive)` whenever the engine goes down or comes back."""
        self._listeners.append(listener)

    def generate(self, request: GenerationRequest) -> Generation:
        """One answer; nothing happens until it is iterated."""
        return Generation(self, request)

    async def count(self, prompt: Prompt) -> PromptCount:
        """The price of a prompt, even of one that is too long to be answered."""
        layout = await self._lay_out(prompt)
        return PromptCount(
            usage=_usage(layout), images=layout.images, context_limit=self.info.context_limit
        )

    async def examine(self, source: ImageSource | VideoSource) -> ImageInfo | VideoInfo:
        """What a picture or clip is; raises the fault that a prompt with it would get."""
        self._require_tower()
        return await self._desk.examine(source)

    def price(self, info: ImageInfo | VideoInfo) -> MediaPrice:
        """What it costs as the only one of a message, without any settings."""
        return default_price(info, self._require_tower(), hd_num=self._settings.hd_num_single)

    def tokenize(self, text: str) -> list[int]:
        """Ids of a text on its own; control tokens cannot come out."""
        return self.tokenizer.encode(text)

    def detokenize(self, token_ids: list[int]) -> str:
        """The text of these ids; control tokens have none."""
        self._check_ids(token_ids)
        decoder = TextDecoder(self.tokenizer)
        return decoder.push(token_ids) + decoder.finish()

    @property
    def load(self) -> EngineLoad:
        """As of the engine's latest frame."""
        return self._latest_load

    async def check_integrity(self) -> list[str]:
        """What is wrong with the engine's page accounts, now; empty when all is well."""
        return (await self._ask("integrity")).violations

    async def fresh_load(self) -> EngineLoad:
        """The load at this moment, asked of the engine."""
        return (await self._ask("load")).load

    async def _ask(self, question: str) -> Answer:
        link = self._require_link()
        question_id = next(self._question_ids)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._questions[question_id] = future
        link.send(Ask(question_id, question))
        return await future

    # ---- what a generation asks (GenerationHost)

    async def admit(self, generation_id: str, request: GenerationRequest) -> Admission:
        """Check, lay out and price a request. Raises the fault that refuses it."""
        self._check_queue()
        if request.adapter not in self.info.adapters:
            raise AdapterUnavailable(
                f"this model has no adapter {request.adapter!r}",
                adapter=request.adapter,
                available=",".join(self.info.adapters),
            )
        wrong = violations(request.sampling, vocab_size=self.info.vocab_size)
        if wrong:
            raise wrong[0]
        layout = await self._lay_out(request.prompt)
        self._check_length(layout)
        sampling, is_context_bound = self._effective_sampling(request.sampling, layout)
        return Admission(
            submit=self._submission(generation_id, request, layout, sampling),
            layout=layout,
            usage=_usage(layout),
            queue_position=max(0, len(self._mailboxes) - self.plan.max_batch + 1),
            is_context_bound=is_context_bound,
        )

    def submit(self, admission: Admission, mailbox: Mailbox[Update]) -> None:
        # Checked again: others may have been admitted while this one's images were measured.
        self._check_queue()
        link = self._require_link()
        generation_id = admission.submit.sequence_id
        self._mailboxes[generation_id] = mailbox
        self._images[generation_id] = admission.layout.images
        link.send(admission.submit)

    def withdraw(self, generation_id: str, reason: FinishReason | None) -> None:
        self._images.pop(generation_id, None)
        if self._mailboxes.pop(generation_id, None) is not None and reason is not None:
            self.send_cancel(Cancel(generation_id, reason))

    def send_cancel(self, message: Cancel) -> None:
        if self._link is not None:
            self._link.send(message)

    def _check_queue(self) -> None:
        depth, limit = len(self._mailboxes), self.plan.max_batch + self.plan.queue_limit
        if depth >= limit:
            raise QueueFull(
                f"{depth} requests are under way, the limit is {limit}", depth=depth, limit=limit
            )

    async def _lay_out(self, prompt: Prompt) -> PromptLayout:
        if isinstance(prompt, TokenPrompt):
            self._check_ids(prompt.token_ids)
            if not prompt.token_ids:
                raise PromptEmpty("the prompt has no tokens")
            return PromptLayout(token_ids=prompt.token_ids, images=())
        layout = await self._lay_out_conversation(prompt)
        # Answers kept from another model's sessions could hold ids that this one does not have.
        self._check_ids((max(layout.token_ids),))
        return layout

    def _check_length(self, layout: PromptLayout) -> None:
        length, limit = len(layout.token_ids), self.info.context_limit
        if length >= limit:
            raise ContextOverflow(
                f"the prompt has {length} tokens, the context limit is {limit} with the answer",
                promptTokens=length,
                contextLimit=limit,
            )

    async def _lay_out_conversation(self, conversation: Conversation) -> PromptLayout:
        media_info = await self._desk.measure(conversation) if self._tower else {}
        # A long prompt takes long to tokenise, and other streams share this thread.
        return await asyncio.to_thread(
            lay_out,
            conversation,
            tokenizer=self.tokenizer,
            roles=self._roles,
            settings=self._settings,
            tower=self._tower,
            media_info=media_info,
        )

    def _require_tower(self) -> TowerShape:
        if self._tower is None:
            raise NotOffered(
                "this model takes no images: its checkpoint has no image tower", feature="images"
            )
        return self._tower

    def _check_ids(self, token_ids: list[int] | tuple[int, ...]) -> None:
        for token_id in token_ids:
            if not 0 <= token_id < self.info.vocab_size:
                raise TokenIdOutOfVocab(
                    f"token id {token_id} is beyond the vocabulary of {self.info.vocab_size}",
                    tokenId=token_id,
                    vocabSize=self.info.vocab_size,
                )

    def _effective_sampling(
        self, asked: SamplingParams, layout: PromptLayout
    ) -> tuple[SamplingParams, bool]:
        """Every setting filled in, and whether the context bounds the answer."""
        sampling = merged(asked, self.info.default_sampling, NEUTRAL)
        room = self.info.context_limit - len(layout.token_ids)
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
        stops = () if sampling.ignore_eos else self.info.stop_token_ids
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
            stop_token_ids=[*stops, *sampling.stop_token_ids],
            bad_word_ids=self._bad_word_ids(sampling.bad_words),
            top_logprobs=request.output.top_logprobs,
        )

    def _bad_word_ids(self, words: tuple[str, ...]) -> list[list[int]]:
        """Each word as it is spelt at the start of a text and after a space."""
        spellings = [self.tokenizer.encode(each) for word in words for each in (word, f" {word}")]
        return [ids for ids in spellings if ids]

    # ---- the engine's side

    def _require_link(self) -> EngineLink:
        if self._link is None:
            raise EngineLost("the engine is restarting")
        return self._link

    async def _supervise(self) -> None:
        """Read from the engine for ever; when it dies, tell everyone and start another."""
        while True:
            link = self._link
            assert link is not None, "set before each round"
            try:
                async with self._watched(link):
                    while True:
                        message = await link.receive()
                        if self._watchdog is not None:
                            self._watchdog.heard()
                        self._dispatch(message)
            except EngineLost:
                _log.error("the engine process has ended; restarting it")
            self._link = None
            self._lose_everything()
            self._desk.engine_lost()
            self._announce(False)
            await link.close()
            self._link = await self._restart()
            self._announce(True)

    @contextlib.asynccontextmanager
    async def _watched(self, link: EngineLink) -> AsyncIterator[None]:
        """Kill this engine if it hangs meanwhile; its link then ends as if it had crashed."""
        if self._watchdog is None or link.process_id is None:
            yield
            return
        watching = asyncio.create_task(self._kill_when_hung(self._watchdog, link))
        try:
            yield
        finally:
            watching.cancel()

    async def _kill_when_hung(self, watchdog: Watchdog, link: EngineLink) -> None:
        await watchdog.until_hung(
            is_owed=lambda: bool(self._mailboxes or self._questions),
            ask=lambda: link.send(Ask(next(self._question_ids), "load")),
        )
        _log.error("the engine has been silent over a step for %g s; killing it", watchdog.seconds)
        link.kill()

    async def _restart(self) -> EngineLink:
        for attempt in itertools.count():
            await asyncio.sleep(_RESTART_SECONDS[min(attempt, len(_RESTART_SECONDS) - 1)])
            try:
                link, _ = await open_link(self._config, in_process=self._in_process)
            except RuntimeFault as fault:
                _log.error("the engine did not start again: %s", fault.message)
            else:
                return link
        raise AssertionError("unreachable")

    def _announce(self, is_alive: bool) -> None:
        for listener in self._listeners:
            listener(is_alive)

    def _lose_everything(self) -> None:
        fault = EngineLost("the engine process ended while this was under way")
        for mailbox in self._mailboxes.values():
            mailbox.fail(fault)
        for future in self._questions.values():
            if not future.done():
                future.set_exception(fault)
        self._mailboxes.clear()
        self._images.clear()
        self._questions.clear()

    def _dispatch(self, message: FromEngine) -> None:
        match message:
            case Frame(updates, load):
                self._latest_load = load
                for update in updates:
                    if isinstance(update, PixelsNeeded):
                        self._render(update.key)
                    elif mailbox := self._mailboxes.get(update.sequence_id):
                        mailbox.put(update, is_urgent=not isinstance(update, Token))
            case Answer(question_id=question_id):
                self._latest_load = message.load
                future = self._questions.pop(question_id, None)
                if future is not None and not future.done():
                    future.set_result(message)
            case _:
                raise AssertionError("Ready and StartFailed come first, once")

    def _render(self, key: bytes) -> None:
        """Have a media worker make the pixels; the engine hears of them, or of the failure.

        When no generation has the image any more, the engine is about to hear of their end.
        """
        spans = (span for spans in self._images.values() for span in spans if span.key == key)
        if (span := next(spans, None)) is not None and self._tower is not None:
            self._desk.render(span, self._tower.tile_size, answer=self._send_if_alive)

    def _send_if_alive(self, message: Pixels | PixelsFailed) -> None:
        if self._link is not None:
            self._link.send(message)


def _usage(layout: PromptLayout) -> PromptUsage:
    return PromptUsage(
        prompt_tokens=len(layout.token_ids),
        image_tokens=layout.num_image_tokens,
        num_images=sum(not span.is_video for span in layout.images),
        video_tokens=layout.num_video_tokens,
        num_videos=sum(span.is_video for span in layout.images),
    )
