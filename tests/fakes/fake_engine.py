"""A scripted engine with the interface of `ixc_runtime.Engine`: no model, no process, no waiting.

A byte is a token. An answer is "You said: " and the last user text, or what a Script says; its
pace is that of the test, which may hold a generation at a place and let it go. A prompt's tokens
count as cached as far as an earlier prompt or answer began alike.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from ixc_runtime import (
    Accepted,
    AdapterInfo,
    Completed,
    Conversation,
    EngineLoad,
    FinishReason,
    GenerationRequest,
    GenerationUpdate,
    ImageInfo,
    ImagePart,
    ImageSource,
    Loading,
    LoadingStage,
    MediaPrice,
    MemoryPlan,
    ModelInfo,
    Prompt,
    PromptCount,
    PromptProcessed,
    PromptUsage,
    Role,
    SamplingParams,
    TextDelta,
    TextPart,
    Timings,
    TokenLogprob,
    TokenPrompt,
    TokensPart,
    Usage,
    VideoInfo,
    VideoPart,
    VideoSource,
    merged_sampling,
)
from ixc_runtime.errors import AdapterUnavailable, ContextOverflow, EngineLost, MediaUndecodable
from ixc_runtime.prompt.layout import ImageSpan

VOCAB_SIZE = 256
CONTEXT_LIMIT = 4096
IMAGE_TOKENS = 10
VIDEO_TOKENS = 20
IMAGE = ImageInfo(width=64, height=32, format="PNG")
VIDEO = VideoInfo(width=32, height=64, num_frames=50, fps=25.0, format="MP4", codec="H.264")
DEFAULT_SAMPLING = SamplingParams(
    temperature=1.0,
    top_p=0.8,
    top_k=50,
    min_p=0.0,
    repetition_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    max_output_tokens=1024,
    min_output_tokens=0,
    ignore_eos=False,
)
INFO = ModelInfo(
    name="fake",
    display_name="A fake",
    description="Says what you said.",
    digest="f" * 64,
    context_limit=CONTEXT_LIMIT,
    native_context_limit=CONTEXT_LIMIT,
    vocab_size=VOCAB_SIZE,
    num_layers=1,
    adapters=("base", "web"),
    tile_size=32,
    hd_num_single=4,
    hd_num_several=1,
    hd_num_max=9,
    max_image_tokens=IMAGE_TOKENS,
    stop_token_ids=(0,),
    default_sampling=DEFAULT_SAMPLING,
    system_instruction=None,
    dtype="float32",
    quantization=None,
)
PLAN = MemoryPlan(
    device="cpu",
    backend="none",
    weights_bytes=1000,
    adapters_bytes=100,
    kv_bytes=1 << 20,
    kv_dtype="float32",
    page_size=16,
    num_pages=256,
    bytes_per_token=256,
    max_batch=8,
    max_step_tokens=64,
    tiles_per_step=4,
    queue_limit=32,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One answer: its deltas, what befalls it, and where it waits for `FakeEngine.release`.

    `hold_at` counts updates sent before the wait: 0 is before Accepted, 1 before PromptProcessed,
    2 before the first delta. `fault` is raised after `fault_at` updates.
    """

    deltas: tuple[str, ...]
    finish_reason: FinishReason = FinishReason.STOP
    hold_at: int | None = None
    fault: Exception | None = None
    fault_at: int = 0


@dataclass
class FakeEngine:
    info: ModelInfo = INFO
    plan: MemoryPlan = PLAN
    is_alive: bool = True
    load: EngineLoad = field(default_factory=lambda: EngineLoad(pages_total=PLAN.num_pages))
    scripts: deque[Script] = field(default_factory=deque)
    requests: list[GenerationRequest] = field(default_factory=list)
    cancelled: list[FinishReason] = field(default_factory=list)
    is_closed: bool = False
    examined: list[ImageSource | VideoSource] = field(default_factory=list)
    examination: Exception | None = None  # what comes of the next ones, instead of a size
    adapter_fault: Exception | None = None  # what comes of the next adapter

    def __post_init__(self) -> None:
        self.release = asyncio.Event()
        self.was_asked = asyncio.Event()
        self.may_examine = asyncio.Event()
        self.may_examine.set()
        self._listeners: list[Callable[[bool], None]] = []
        self._seen: list[tuple[int, ...]] = []

    # ---- what tests do

    def will_say(
        self,
        *deltas: str,
        hold_at: int | None = None,
        fault: Exception | None = None,
        fault_at: int = 0,
        finish_reason: FinishReason = FinishReason.STOP,
    ) -> None:
        """The next answer that has no script yet."""
        self.scripts.append(
            Script(
                deltas=deltas,
                hold_at=hold_at,
                fault=fault,
                fault_at=fault_at,
                finish_reason=finish_reason,
            )
        )

    def die(self) -> None:
        """As when the engine process ends."""
        self.is_alive = False
        for listener in self._listeners:
            listener(False)

    def come_back(self) -> None:
        self.is_alive = True
        for listener in self._listeners:
            listener(True)

    # ---- what the service asks

    def on_change(self, listener: Callable[[bool], None]) -> None:
        self._listeners.append(listener)

    def generate(self, request: GenerationRequest) -> "FakeGeneration":
        self.requests.append(request)
        self.was_asked.set()
        said = self.scripts.popleft() if self.scripts else Script(deltas=_echo(request.prompt))
        return FakeGeneration(self, request, said)

    async def count(self, prompt: Prompt) -> PromptCount:
        return PromptCount(
            usage=_usage(prompt),
            images=tuple(_span(part) for part in _images(prompt)),
            context_limit=self.info.context_limit,
        )

    async def examine(self, source: ImageSource | VideoSource) -> ImageInfo | VideoInfo:
        """Bytes with "broken" in them are that."""
        self.examined.append(source)
        await self.may_examine.wait()
        if self.examination is not None:
            raise self.examination
        if b"broken" in source.path.read_bytes():
            raise MediaUndecodable("it is broken")
        return VIDEO if isinstance(source, VideoSource) else IMAGE

    def price(self, info: ImageInfo | VideoInfo) -> MediaPrice:
        if isinstance(info, VideoInfo):
            return MediaPrice(tiles_wide=2, tiles_high=1, num_tokens=VIDEO_TOKENS, num_frames=2)
        return MediaPrice(tiles_wide=2, tiles_high=1, num_tokens=IMAGE_TOKENS)

    def tokenize(self, text: str) -> list[int]:
        return list(text.encode())

    def detokenize(self, token_ids: list[int]) -> str:
        return bytes(token_ids).decode(errors="replace")

    async def load_adapter(self, name: str, folder: Path) -> AdapterInfo:
        if self.adapter_fault is not None:
            raise self.adapter_fault
        adapter = AdapterInfo(name=name, digest=folder.name, rank=1, num_bytes=1)
        self._show((*self._users_but(name), adapter))
        return adapter

    def unload_adapter(self, name: str, *, seconds: float) -> None:
        if name not in {each.name for each in self.info.user_adapters}:
            raise AdapterUnavailable("no such adapter", adapter=name)
        self._show(self._users_but(name))

    def _users_but(self, name: str) -> tuple[AdapterInfo, ...]:
        return tuple(each for each in self.info.user_adapters if each.name != name)

    def _show(self, users: tuple[AdapterInfo, ...]) -> None:
        before = {each.name for each in self.info.user_adapters}
        own = [name for name in self.info.adapters if name not in before]
        self.info = msgspec.structs.replace(
            self.info, adapters=(*own, *(each.name for each in users)), user_adapters=users
        )

    async def close(self) -> None:
        self.is_closed = True

    def num_cached(self, token_ids: tuple[int, ...]) -> int:
        """How much of a prompt an earlier one began with."""
        return max((_common(token_ids, earlier) for earlier in self._seen), default=0)

    def remember(self, token_ids: tuple[int, ...]) -> None:
        self._seen.append(token_ids)


@dataclass
class FakeStarter:
    """Starts models that are loaded at run time: each gets an engine of its own."""

    engines: dict[str, FakeEngine] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)  # where the name's own will not do
    fault: Exception | None = None  # what comes of the next start

    def __post_init__(self) -> None:
        self.was_asked = asyncio.Event()
        self.may_start = asyncio.Event()
        self.may_start.set()

    async def __call__(
        self, folder: Path, model_id: str, on_loading: Callable[[Loading], None]
    ) -> FakeEngine:
        self.was_asked.set()
        on_loading(Loading(LoadingStage.WEIGHTS, 1, 2))
        await self.may_start.wait()
        if self.fault is not None:
            raise self.fault
        on_loading(Loading(LoadingStage.CACHE))
        digest = self.digests.get(model_id) or hashlib.sha256(model_id.encode()).hexdigest()
        engine = FakeEngine(info=msgspec.structs.replace(INFO, name=model_id, digest=digest))
        self.engines[model_id] = engine
        return engine


class FakeGeneration:
    def __init__(self, engine: FakeEngine, request: GenerationRequest, script: Script) -> None:
        self._engine = engine
        self._request = request
        self._script = script
        self._wish = asyncio.Event()
        self._reason: FinishReason | None = None
        self._num_sent = 0

    def cancel(self, reason: FinishReason = FinishReason.CANCELLED) -> None:
        if self._reason is None:
            self._reason = reason
            self._engine.cancelled.append(reason)
            self._wish.set()

    async def gather(self, seconds: float) -> None:
        """A script's deltas come as they stand."""

    async def __aiter__(self) -> AsyncIterator[GenerationUpdate]:
        prompt = prompt_ids(self._request.prompt)
        usage = _usage(self._request.prompt)
        cached = self._engine.num_cached(prompt)
        sent: list[int] = []

        def completed(reason: FinishReason) -> Completed:
            return Completed(
                finish_reason=reason,
                usage=Usage(
                    prompt_tokens=usage.prompt_tokens,
                    image_tokens=usage.image_tokens,
                    video_tokens=usage.video_tokens,
                    cached_tokens=cached,
                    output_tokens=len(sent),
                ),
                timings=Timings(total_seconds=1.5),
                matched_stop_token_id=0 if reason is FinishReason.STOP else None,
            )

        if not await self._goes_on():
            yield completed(self._reason or FinishReason.CANCELLED)
            return
        self._admit(usage)
        sampling = merged_sampling(self._request.sampling, DEFAULT_SAMPLING)
        if sampling.seed is None:
            sampling = replace(sampling, seed=7)
        yield Accepted(usage=usage, queue_position=0, sampling=sampling)
        self._num_sent += 1
        updates: list[GenerationUpdate] = [
            PromptProcessed(usage=usage, cached_tokens=cached, encoded_tiles=0)
        ]
        updates += [self._delta(text) for text in self._script.deltas]
        for update in updates:
            if not await self._goes_on():
                yield completed(self._reason or FinishReason.CANCELLED)
                return
            if isinstance(update, TextDelta):
                sent.extend(update.token_ids)
            yield update
            self._num_sent += 1
        if not await self._goes_on():
            yield completed(self._reason or FinishReason.CANCELLED)
            return
        self._engine.remember((*prompt, *sent))
        yield completed(self._script.finish_reason)

    def _admit(self, usage: PromptUsage) -> None:
        if not self._engine.is_alive:
            raise EngineLost("the engine is down")
        if self._request.adapter not in self._engine.info.adapters:
            raise AdapterUnavailable("no such adapter", adapter=self._request.adapter)
        if usage.prompt_tokens >= self._engine.info.context_limit:
            raise ContextOverflow(
                "too long",
                promptTokens=usage.prompt_tokens,
                contextLimit=self._engine.info.context_limit,
            )

    async def _goes_on(self) -> bool:
        """Waits where the script says so; raises its fault; False once cancelled."""
        if self._script.hold_at == self._num_sent and not self._wish.is_set():
            waits = [
                asyncio.ensure_future(event.wait()) for event in (self._wish, self._engine.release)
            ]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        if self._script.fault is not None and self._script.fault_at == self._num_sent:
            raise self._script.fault
        if not self._engine.is_alive and self._num_sent:
            raise EngineLost("the engine is down")
        return not self._wish.is_set()

    def _delta(self, text: str) -> TextDelta:
        token_ids = tuple(text.encode())
        top = self._request.output.top_logprobs
        logprobs = (
            ()
            if top is None
            else tuple(
                TokenLogprob(
                    token_id=each, logprob=-0.5, top=tuple((n, -1.0 - n) for n in range(top))
                )
                for each in token_ids
            )
        )
        return TextDelta(text=text, token_ids=token_ids, logprobs=logprobs)


def prompt_ids(prompt: Prompt) -> tuple[int, ...]:
    """The prompt as this fake lays it out: roles as control bytes, pictures as runs of 255."""
    if isinstance(prompt, TokenPrompt):
        return prompt.token_ids
    ids = list((prompt.system_instruction or "").encode())
    for message in prompt.messages:
        ids.append({Role.USER: 1, Role.ASSISTANT: 2, Role.SYSTEM: 3}[message.role])
        for part in message.parts:
            match part:
                case TextPart(text=text):
                    ids += text.encode()
                case TokensPart(token_ids=token_ids):
                    ids += token_ids
                case ImagePart():
                    ids += [255] * IMAGE_TOKENS
                case VideoPart():
                    ids += [254] * VIDEO_TOKENS
    return (*ids, 2)


def _echo(prompt: Prompt) -> tuple[str, ...]:
    if isinstance(prompt, TokenPrompt):
        return ("ids ", str(len(prompt.token_ids)))
    texts = [part.text for part in prompt.messages[-1].parts if isinstance(part, TextPart)]
    words = f"You said: {''.join(texts)}".split(" ")
    return tuple(word if index == 0 else f" {word}" for index, word in enumerate(words))


def _images(prompt: Prompt) -> list[ImagePart | VideoPart]:
    if not isinstance(prompt, Conversation):
        return []
    parts = (part for message in prompt.messages for part in message.parts)
    return [part for part in parts if isinstance(part, ImagePart | VideoPart)]


def _usage(prompt: Prompt) -> PromptUsage:
    num_images = sum(isinstance(part, ImagePart) for part in _images(prompt))
    num_videos = len(_images(prompt)) - num_images
    return PromptUsage(
        prompt_tokens=len(prompt_ids(prompt)),
        image_tokens=num_images * IMAGE_TOKENS,
        num_images=num_images,
        video_tokens=num_videos * VIDEO_TOKENS,
        num_videos=num_videos,
    )


def _span(part: ImagePart | VideoPart) -> ImageSpan:
    is_video = isinstance(part, VideoPart)
    info = VIDEO if is_video else IMAGE
    return ImageSpan(
        source=part.source,
        width=info.width,
        height=info.height,
        hd_num=None if is_video else 4,
        frames=(0, 25) if is_video else (),
        tiles_wide=2,
        tiles_high=1,
        start=0,
        num_tokens=VIDEO_TOKENS if is_video else IMAGE_TOKENS,
        key=part.source.digest.encode(),
    )


def _common(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    pairs = zip(left, right, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
