"""The engine as the service sees it: text and pictures in, streams of updates out.

    start ── supervises ──► engine process ◄── pixels ── media workers
      │                          ▲
      └─ generate ─ Generation ──┘   one mailbox per generation, one reader task for all

Lives in the front end: asyncio, no torch. Knows who waits for what from the engine process; knows
nothing of sessions or gRPC. When that process dies, or hangs and is killed for it, running
generations get EngineLost and a new process is started; this object stays.
"""

from collections.abc import Callable
from pathlib import Path

import msgspec

from ixc_runtime.adapter_desk import AdapterDesk
from ixc_runtime.admission import Admission, AdmissionDesk, PromptCount
from ixc_runtime.engine_process.link import EngineLink, open_link
from ixc_runtime.engine_process.messages import (
    Answer,
    Cancel,
    EngineConfig,
    Failed,
    Finished,
    Frame,
    Loading,
    PixelsNeeded,
    Query,
    Ready,
    Started,
    Token,
    Update,
)
from ixc_runtime.errors import EngineLost, QueueFull
from ixc_runtime.generation import Generation
from ixc_runtime.mailbox import Mailbox
from ixc_runtime.media.desk import MediaDesk, MediaLimits
from ixc_runtime.media.geometry import ImageInfo
from ixc_runtime.media.price import MediaPrice
from ixc_runtime.media.video import VideoInfo
from ixc_runtime.model_info import AdapterInfo, EngineLoad, MemoryPlan, ModelInfo
from ixc_runtime.places import Places
from ixc_runtime.prompt.decoding import TextDecoder
from ixc_runtime.prompt.layout import ImageSpan
from ixc_runtime.prompt.tokenizer import Tokenizer
from ixc_runtime.request import (
    FinishReason,
    GenerationRequest,
    ImageSource,
    Prompt,
    VideoSource,
)
from ixc_runtime.supervisor import Supervisor

STEP_TIMEOUT_SECONDS = 60.0


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
        self.plan: MemoryPlan = ready.plan
        # A restarted engine is to have what this one has: requests are checked against it.
        config = msgspec.structs.replace(
            config,
            kv_bytes=self.plan.kv_bytes,
            adapter_bytes=self.plan.adapter_room_bytes,
        )
        self._desk = desk
        self._admissions = AdmissionDesk(Path(config.model), ready.info, desk)
        self.tokenizer: Tokenizer = self._admissions.tokenizer
        self._mailboxes: dict[str, Mailbox[Update]] = {}
        self._images: dict[str, tuple[ImageSpan, ...]] = {}
        self._places = Places()
        self._latest_load = EngineLoad(pages_total=ready.plan.num_pages)
        self._is_closed = False
        self._supervisor = Supervisor(
            config,
            link,
            in_process=in_process,
            step_timeout_seconds=step_timeout_seconds,
            hear=self._hear,
            lose=self._lose,
            is_owed=lambda: bool(self._mailboxes),
            welcome=self._welcome,
        )
        self._adapters = AdapterDesk(self._supervisor, ready.info)

    @classmethod
    async def start(
        cls,
        config: EngineConfig,
        *,
        in_process: bool = False,
        num_media_workers: int = 1,
        media: MediaLimits | None = None,
        step_timeout_seconds: float | None = STEP_TIMEOUT_SECONDS,
        on_loading: Callable[[Loading], None] = lambda loading: None,
    ) -> "Engine":
        """Start the engine and wait until it is ready; `on_loading` hears how far it is.

        An engine process that has work and says nothing for `step_timeout_seconds` is killed and
        replaced; None waits for ever. A thread cannot be killed, and is not watched.
        Raises CheckpointError, KvCacheFull or FieldInvalid, saying what is wrong, if it cannot be.
        """
        link, ready = await open_link(config, in_process=in_process, on_loading=on_loading)
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
        """Stop everything; generations still running get EngineLost. Safe to repeat."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._adapters.close()
        await self._supervisor.close()
        await self._desk.close()

    # ---- what the service asks

    @property
    def info(self) -> ModelInfo:
        """The model, with the adapters that can be asked for now."""
        return self._adapters.info

    @property
    def is_alive(self) -> bool:
        return self._supervisor.is_alive

    @property
    def process_id(self) -> int | None:
        """Of the engine process; None while it restarts, or when it is a thread of this one."""
        return self._supervisor.process_id

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """Call `listener(is_alive)` whenever the engine goes down or comes back."""
        self._supervisor.on_change(listener)

    def generate(self, request: GenerationRequest) -> Generation:
        """One answer; nothing happens until it is iterated."""
        return Generation(self, request)

    async def count(self, prompt: Prompt) -> PromptCount:
        """The price of a prompt, even of one that is too long to be answered."""
        return await self._admissions.count(prompt)

    async def examine(self, source: ImageSource | VideoSource) -> ImageInfo | VideoInfo:
        """What a picture or clip is; raises the fault that a prompt with it would get."""
        self._admissions.require_tower()
        return await self._desk.examine(source)

    def price(self, info: ImageInfo | VideoInfo) -> MediaPrice:
        """What it costs as the only one of a message, without any settings."""
        return self._admissions.price(info)

    def tokenize(self, text: str) -> list[int]:
        """Ids of a text on its own; control tokens cannot come out."""
        return self.tokenizer.encode(text)

    def detokenize(self, token_ids: list[int]) -> str:
        """The text of these ids; control tokens have none."""
        self._admissions.check_ids(token_ids)
        decoder = TextDecoder(self.tokenizer)
        return decoder.push(token_ids) + decoder.finish()

    @property
    def load(self) -> EngineLoad:
        """As of the engine's latest frame."""
        return self._latest_load

    async def check_integrity(self) -> list[str]:
        """What is wrong with the engine's page accounts, now; empty when all is well."""
        return (await self._ask(Query.INTEGRITY)).violations

    async def fresh_load(self) -> EngineLoad:
        """The load at this moment, asked of the engine."""
        return (await self._ask(Query.LOAD)).load

    async def load_adapter(self, name: str, folder: Path) -> AdapterInfo:
        """Take a user's adapter, a folder in PEFT layout, under a name. See AdapterDesk.load."""
        return await self._adapters.load(name, folder)

    def unload_adapter(self, name: str, *, seconds: float) -> None:
        """Let one go that came so; `seconds` for those that use it. See AdapterDesk.unload."""
        self._adapters.unload(name, seconds=seconds)

    async def _ask(self, question: Query) -> Answer:
        answer = await self._supervisor.ask(question)
        self._latest_load = answer.load
        return answer

    # ---- what a generation asks (GenerationHost)

    async def admit(self, generation_id: str, request: GenerationRequest) -> Admission:
        """Check, lay out and price a request. Raises the fault that refuses it."""
        self._check_queue()
        self._check_wait(request)
        self._adapters.require(request.adapter)
        return await self._admissions.admit(generation_id, request)

    def submit(self, admission: Admission, mailbox: Mailbox[Update]) -> int:
        """Send it; returns its place in the queue, 0 if it need not wait."""
        # Checked again: others may have been admitted while this one's images were measured.
        self._check_queue()
        generation_id = admission.submit.sequence_id
        self._adapters.require(admission.submit.adapter)
        self._supervisor.send(admission.submit)
        self._adapters.enter(generation_id, admission.submit.adapter)
        self._mailboxes[generation_id] = mailbox
        self._images[generation_id] = admission.layout.images
        self._places.sent(generation_id)
        return max(0, len(self._mailboxes) - self.plan.max_batch)

    def withdraw(self, generation_id: str, reason: FinishReason | None) -> None:
        self._images.pop(generation_id, None)
        self._places.ended(generation_id)
        self._adapters.leave(generation_id)
        if self._mailboxes.pop(generation_id, None) is not None and reason is not None:
            self.send_cancel(Cancel(generation_id, reason))

    def send_cancel(self, message: Cancel) -> None:
        self._supervisor.send_if_alive(message)

    def _check_queue(self) -> None:
        depth, limit = len(self._mailboxes), self.plan.max_batch + self.plan.queue_limit
        if depth >= limit:
            raise QueueFull(
                f"{depth} requests are under way, the limit is {limit}",
                retry_after_seconds=self._places.wait_seconds(self.plan.max_batch) or None,
                depth=depth,
                limit=limit,
            )

    def _check_wait(self, request: GenerationRequest) -> None:
        """Refuses now what would only wait in vain."""
        bounds = (request.queue_timeout_seconds, request.start_within_seconds)
        allowed = min((bound for bound in bounds if bound is not None), default=float("inf"))
        wait = self._places.wait_seconds(self.plan.max_batch)
        if wait > allowed:
            raise QueueFull(
                f"the wait for a place in the batch is some {wait:.1f} s, "
                f"the request allows {allowed:.1f} s",
                retry_after_seconds=wait - allowed,
                depth=len(self._mailboxes),
                wait_seconds=f"{wait:.1f}",
            )

    # ---- what the engine says

    def _hear(self, frame: Frame) -> None:
        self._latest_load = frame.load
        self._places.kept_waiting(frame.load.waiting)
        for update in frame.updates:
            if isinstance(update, Token):  # nearly all of them are
                if mailbox := self._mailboxes.get(update.sequence_id):
                    mailbox.put(update, is_urgent=False)
            elif isinstance(update, PixelsNeeded):
                self._render(update.key)
            else:
                if isinstance(update, Started):
                    self._places.started(update.sequence_id)
                elif isinstance(update, Finished | Failed):
                    self._places.ended(update.sequence_id)
                if mailbox := self._mailboxes.get(update.sequence_id):
                    mailbox.put(update)

    def _render(self, key: bytes) -> None:
        """Have a media worker make the pixels; the engine hears of them, or of the failure.

        When no generation has the image any more, the engine is about to hear of their end.
        """
        spans = (span for spans in self._images.values() for span in spans if span.key == key)
        tower = self._admissions.tower
        if (span := next(spans, None)) is not None and tower is not None:
            self._desk.render(span, tower.tile_size, answer=self._supervisor.send_if_alive)

    def _welcome(self, ready: Ready) -> None:
        self._adapters.restarted(ready)

    def _lose(self, fault: EngineLost) -> None:
        for mailbox in self._mailboxes.values():
            mailbox.fail(fault)
        self._mailboxes.clear()
        self._images.clear()
        self._places.clear()
        self._adapters.everyone_left()
        self._desk.engine_lost()
