"""One answer under way, from the request to its last word.

    request ─► layout and price ─► submit ─► Started ─► PromptDone ─► Token … ─► Finished
                    │                            (from the engine, gathered in a mailbox)
                    ▼                                                   │
                Accepted                     PromptProcessed   TextDelta …   Completed

Knows text and stop strings, which the engine does not; knows nothing of sessions or gRPC.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from typing import Protocol, TypeVar

from ixc_runtime.admission import Admission
from ixc_runtime.engine_process.messages import (
    Cancel,
    Failed,
    Finished,
    PromptDone,
    Started,
    Token,
    Update,
)
from ixc_runtime.errors import QueueTimeout, fault_from_reason
from ixc_runtime.mailbox import Mailbox
from ixc_runtime.prompt.decoding import OutputText
from ixc_runtime.prompt.tokenizer import Tokenizer
from ixc_runtime.request import (
    Accepted,
    Completed,
    FinishReason,
    GenerationRequest,
    GenerationUpdate,
    PromptProcessed,
    PromptUsage,
    TextDelta,
    Timings,
    TokenLogprob,
    Usage,
)

_Result = TypeVar("_Result")


class GenerationHost(Protocol):
    """What a generation needs of the engine's front end."""

    tokenizer: Tokenizer

    async def admit(self, generation_id: str, request: GenerationRequest) -> Admission:
        """Lay the prompt out and price it; raises the fault that refuses it."""

    def submit(self, admission: Admission, mailbox: Mailbox[Update]) -> int:
        """Send it; its updates come to the mailbox. Returns its place in the queue."""

    def withdraw(self, generation_id: str, reason: FinishReason | None) -> None:
        """Forget the mailbox; with a reason, stop the sequence first."""

    def send_cancel(self, message: Cancel) -> None:
        """Stop a sequence; its Finished still comes."""


class Generation:
    """Iterate once to run it. Leaving the loop early stops the engine's work too."""

    def __init__(self, host: GenerationHost, request: GenerationRequest) -> None:
        self.id = secrets.token_hex(8)
        self._host = host
        self._request = request
        self._mailbox: Mailbox[Update] = Mailbox()
        self._cancelled: FinishReason | None = None
        self._cancel_wish = asyncio.Event()
        self._is_submitted = False
        self._has_more = False  # updates read and not yet yielded

    def cancel(self, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Stop at the next step, at whatever stage; the iterator then ends with Completed.

        May be called again, and after the end: the first reason counts.
        """
        if self._cancelled is not None:
            return
        self._cancelled = reason
        self._cancel_wish.set()
        if self._is_submitted:
            self._host.send_cancel(Cancel(self.id, reason))

    async def gather(self, seconds: float) -> None:
        """Between two updates: let tokens gather, so that fewer and larger deltas come.

        Cut short by anything that is not a token, the end above all.
        """
        if not self._has_more:
            await self._mailbox.pause(seconds)

    async def __aiter__(self) -> AsyncIterator[GenerationUpdate]:
        began = asyncio.get_running_loop().time()
        admission = await self._admitted()
        if admission is None:
            accepted, completed = self._cancelled_before_admission()
            yield accepted
            yield completed
            return
        queue_position = self._host.submit(admission, self._mailbox)
        self._is_submitted = True
        timers = self._start_timers(began)
        is_over = False
        try:
            yield Accepted(
                usage=admission.usage,
                queue_position=queue_position,
                sampling=admission.submit.sampling,
            )
            transcript = _Transcript(self._request, admission, self._host.tokenizer, began)
            while not is_over:
                updates = transcript.read(await self._mailbox.take())
                for number, update in enumerate(updates, 1):
                    self._has_more = number < len(updates)
                    is_over = isinstance(update, Completed)
                    yield update
                if transcript.has_started and "queue" in timers:
                    timers.pop("queue").cancel()
        finally:
            for timer in timers.values():
                timer.cancel()
            # A matched stop string ends the answer here before the engine knows.
            self._host.withdraw(self.id, FinishReason.CANCELLED)

    async def _admitted(self) -> Admission | None:
        """None when it was cancelled first. Waiting for media workers is waiting in the queue."""
        try:
            async with asyncio.timeout(self._request.queue_timeout_seconds):
                return await self._unless_cancelled(self._host.admit(self.id, self._request))
        except TimeoutError:
            raise self._queue_timeout() from None

    async def _unless_cancelled(self, work: Awaitable[_Result]) -> _Result | None:
        """The result, or None when `cancel` came first or at the same time."""
        wish = asyncio.ensure_future(self._cancel_wish.wait())
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({wish, task}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                return None
            result = task.result()
            # A cancel after the result and before this line has reached nobody else.
            return None if self._cancelled is not None else result
        finally:
            wish.cancel()
            task.cancel()

    def _cancelled_before_admission(self) -> tuple[Accepted, Completed]:
        """Nothing was priced and nothing computed, but the stream has its shape."""
        assert self._cancelled is not None, "only a cancel ends the wait without a result"
        nothing = PromptUsage(prompt_tokens=0, image_tokens=0, num_images=0)
        usage = Usage(prompt_tokens=0, image_tokens=0, cached_tokens=0, output_tokens=0)
        return (
            Accepted(usage=nothing, queue_position=0, sampling=self._request.sampling),
            Completed(finish_reason=self._cancelled, usage=usage, timings=Timings()),
        )

    def _start_timers(self, began: float) -> dict[str, asyncio.TimerHandle]:
        loop = asyncio.get_running_loop()
        timers = {}
        if (seconds := self._request.queue_timeout_seconds) is not None:
            timers["queue"] = loop.call_at(began + seconds, self._give_up_queueing)
        if (seconds := self._request.generation_timeout_seconds) is not None:
            timers["generation"] = loop.call_later(seconds, self.cancel, FinishReason.TIMEOUT)
        return timers

    def _give_up_queueing(self) -> None:
        if self._mailbox.is_empty:  # else Started is in it, and waits for this loop
            self._mailbox.fail(self._queue_timeout())

    def _queue_timeout(self) -> QueueTimeout:
        seconds = f"{self._request.queue_timeout_seconds:g}"
        return QueueTimeout(f"the request waited {seconds} s for its turn", timeoutSeconds=seconds)


class _Transcript:
    """Turns the engine's updates into the caller's: ids into text, stop strings into an end."""

    def __init__(
        self,
        request: GenerationRequest,
        admission: Admission,
        tokenizer: Tokenizer,
        began: float,
    ) -> None:
        settings = admission.submit.sampling
        self._text = OutputText(
            tokenizer,
            settings.stop_sequences,
            include_stop=request.output.include_stop,
            min_tokens=settings.min_output_tokens or 0,
        )
        self._admission = admission
        self._began = began
        self._timings = Timings()
        self._first_token_at = 0.0
        self._cached_tokens = 0
        self._num_output = 0
        self._encoded_tiles = 0
        self.has_started = False

    def read(self, updates: list[Update]) -> list[GenerationUpdate]:
        """What the caller hears of these; ends with Completed when the answer has ended.

        Raises the fault that the engine reports.
        """
        heard: list[GenerationUpdate] = []
        tokens: list[Token] = []
        for update in updates:
            match update:
                case Token():
                    tokens.append(update)
                case Started():
                    self._start(update)
                case PromptDone():
                    heard.append(self._process_prompt(update))
                case Finished():
                    return [*heard, *self._deltas(tokens), *self._finish(update)]
                case Failed(reason=reason, message=message, metadata=metadata):
                    raise fault_from_reason(reason, message, metadata)
        heard += self._deltas(tokens)
        if self._text.matched is not None:
            heard.append(self._complete(FinishReason.STOP_SEQUENCE))
        return heard

    def _start(self, update: Started) -> None:
        self.has_started = True
        self._cached_tokens = update.cached_tokens
        self._timings = replace(self._timings, queue_seconds=update.queue_seconds)

    def _process_prompt(self, update: PromptDone) -> PromptProcessed:
        self._timings = replace(
            self._timings,
            media_seconds=update.media_seconds,
            vision_seconds=update.vision_seconds,
            prefill_seconds=update.prefill_seconds,
        )
        return PromptProcessed(
            usage=self._admission.usage,
            cached_tokens=self._cached_tokens,
            encoded_tiles=update.encoded_tiles,
        )

    def _deltas(self, tokens: list[Token]) -> list[TextDelta]:
        """One delta for all of them; tokens past a matched stop sequence are dropped."""
        if not tokens or self._text.matched is not None:
            return []
        if self._num_output == 0:
            self._first_token_at = asyncio.get_running_loop().time()
        emitted = self._text.push([token.token_id for token in tokens])
        kept = tokens[: emitted.num_ids_consumed]
        self._num_output += len(kept)
        logprobs = tuple(token.logprob for token in kept if token.logprob is not None)
        return [self._delta(emitted.text, tuple(token.token_id for token in kept), logprobs)]

    def _delta(
        self, text: str, token_ids: tuple[int, ...], logprobs: tuple[TokenLogprob, ...] = ()
    ) -> TextDelta:
        return TextDelta(text=text, token_ids=token_ids, logprobs=logprobs)

    def _finish(self, update: Finished) -> list[GenerationUpdate]:
        if self._text.matched is not None:
            return [self._complete(FinishReason.STOP_SEQUENCE)]
        reason = update.reason
        if reason is FinishReason.MAX_TOKENS and self._admission.is_context_bound:
            reason = FinishReason.CONTEXT_LIMIT
        flushed = self._text.finish()
        if flushed.matched is not None:
            completed = self._complete(FinishReason.STOP_SEQUENCE)
        else:
            completed = self._complete(reason, stop_token_id=update.stop_token_id)
        return [self._delta(flushed.text, ()), completed] if flushed.text else [completed]

    def _complete(self, reason: FinishReason, *, stop_token_id: int | None = None) -> Completed:
        now = asyncio.get_running_loop().time()
        first = self._first_token_at or now
        return Completed(
            finish_reason=reason,
            usage=Usage(
                prompt_tokens=self._admission.usage.prompt_tokens,
                image_tokens=self._admission.usage.image_tokens,
                video_tokens=self._admission.usage.video_tokens,
                cached_tokens=self._cached_tokens,
                output_tokens=self._num_output,
            ),
            timings=replace(
                self._timings,
                first_token_seconds=first - self._began if self._num_output else 0.0,
                decode_seconds=now - first,
                total_seconds=now - self._began,
            ),
            matched_stop_sequence=self._text.matched,
            matched_stop_token_id=stop_token_id,
        )
