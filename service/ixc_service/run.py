"""One generation under way or just ended: its log, its readers, and what its leaving them means.

A run belongs to the server. Streams are its readers; when the last one leaves, the run's policy
decides: stop, go on for a while, or go on to the end. Knows no sessions and no protobuf.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from ixc_runtime import (
    Accepted,
    Completed,
    FinishReason,
    ModelInfo,
    PromptProcessed,
    SamplingParams,
    Usage,
)
from ixc_runtime.errors import RuntimeFault
from ixc_service.errors import SlowConsumer
from ixc_service.event_log import EventLog, Failed, Finished, Update


class OnDisconnect(Enum):
    CANCEL = "cancel"
    GRACE = "grace"
    CONTINUE = "continue"


class RunState(Enum):
    PENDING = "pending"
    DECODING = "decoding"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


_CANCELLED = {FinishReason.CANCELLED, FinishReason.INTERRUPTED}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """What is known of a run before it starts. `sends_token_ids`: its events show them.

    `model` is the one that answers, as it was when the run began: it may have gone since.
    """

    owner: str
    model: ModelInfo
    request_id: str = ""
    adapter: str
    labels: dict[str, str] = field(default_factory=dict)
    session_id: str | None = None
    on_disconnect: OnDisconnect
    resume_grace_seconds: float
    sampling: SamplingParams  # as asked; the effective values come with Accepted
    sends_token_ids: bool = False


class Run:
    def __init__(self, run_id: str, spec: RunSpec, log: EventLog, now: float) -> None:
        self.id = run_id
        self.spec = spec
        self.log = log
        self.create_time = now
        self.end_time: float | None = None
        self.flush_interval_seconds = 0.0  # as whoever began it wants its deltas
        self.turn_index = 0  # set by a chat once it knows
        self.num_readers = 0
        self.is_discarded = False
        self.cancel_reason: FinishReason | None = None
        self.may_detach: Callable[[], bool] = lambda: True
        self.accepted: Accepted | None = None
        self.processed: PromptProcessed | None = None
        self.num_output_tokens = 0
        self._stop: Callable[[FinishReason], None] = lambda reason: None
        self._grace: asyncio.TimerHandle | None = None
        self._admission: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._admission.add_done_callback(_mark_retrieved)

    # ---- what happens to it

    def append(self, update: Update) -> None:
        self.log.append(update)
        match update:
            case Accepted():
                self.accepted = update
                if not self._admission.done():
                    self._admission.set_result(None)
            case PromptProcessed():
                self.processed = update
            case Finished() | Failed():
                self._end_grace()
            case _:
                self.num_output_tokens += len(update.token_ids)

    def refuse(self, fault: RuntimeFault) -> None:
        """It never was admitted: nobody hears of it but those who asked."""
        assert self.accepted is None, "an admitted run fails in its log"
        self._end_grace()
        self._admission.set_exception(fault)

    async def admitted(self) -> None:
        """Waits for its first event; raises the fault if it was refused."""
        await asyncio.shield(self._admission)

    def cancel(self, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Stops it within one step, at whatever stage. The first reason counts."""
        if self.cancel_reason is None and not self.is_over:
            self.cancel_reason = reason
            self._stop(reason)

    def discard(self) -> None:
        """Stops it, and nothing of it is to be kept."""
        self.is_discarded = True
        self.cancel()

    def stop_by(self, stop: Callable[[FinishReason], None]) -> None:
        """How the stage it is in now is stopped."""
        self._stop = stop

    # ---- who reads it

    @contextlib.contextmanager
    def reader(self) -> Iterator[None]:
        """Counts as somebody watching."""
        self.num_readers += 1
        self._end_grace()
        try:
            yield
        except SlowConsumer:
            # Not gone but slow: the run is untouched, as if it had a grace period.
            self._leave(OnDisconnect.GRACE)
            raise
        except BaseException:
            self._leave(self.spec.on_disconnect)
            raise
        else:
            self._leave(self.spec.on_disconnect)

    def _leave(self, policy: OnDisconnect) -> None:
        self.num_readers -= 1
        if self.num_readers or self.is_over:
            return
        if policy is OnDisconnect.CONTINUE and self.may_detach():
            return
        if policy is OnDisconnect.GRACE:
            loop = asyncio.get_running_loop()
            self._grace = loop.call_later(self.spec.resume_grace_seconds, self.cancel)
        else:
            self.cancel()

    def _end_grace(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    # ---- what can be said of it

    @property
    def is_over(self) -> bool:
        refused = self._admission.done() and self._admission.exception() is not None
        return self.log.terminal is not None or refused

    @property
    def is_detached(self) -> bool:
        return self.num_readers == 0 and not self.is_over

    @property
    def completed(self) -> Completed | None:
        terminal = self.log.terminal
        return terminal.completed if isinstance(terminal, Finished) else None

    @property
    def state(self) -> RunState:
        match self.log.terminal:
            case Failed():
                return RunState.FAILED
            case Finished(completed=completed):
                is_cancelled = completed.finish_reason in _CANCELLED
                return RunState.CANCELLED if is_cancelled else RunState.COMPLETED
        return RunState.PENDING if self.processed is None else RunState.DECODING

    @property
    def usage(self) -> Usage:
        """Final once it is completed; what is known so far before."""
        if self.completed:
            return self.completed.usage
        prompt = self.accepted.usage if self.accepted else None
        return Usage(
            prompt_tokens=prompt.prompt_tokens if prompt else 0,
            image_tokens=prompt.image_tokens if prompt else 0,
            video_tokens=prompt.video_tokens if prompt else 0,
            cached_tokens=self.processed.cached_tokens if self.processed else 0,
            output_tokens=self.num_output_tokens,
        )


def _mark_retrieved(future: asyncio.Future[None]) -> None:
    """A refusal that nobody waits for any more is no news to the event loop."""
    if not future.cancelled():
        future.exception()
