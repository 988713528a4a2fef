"""What a stream of events adds up to, and where to take it up when it breaks.

`StreamState` is the whole logic of reading an answer, without any sending: the blocking and the
asyncio stream feed it messages and do what it says. It knows what has been received, whether the
answer is finished, and which call continues it.
"""

from collections import deque

from ixc.v1 import events_pb2
from ixc_client import _replies as replies
from ixc_client import _requests as requests
from ixc_client._errors import ClientClosed, IxcError, UsageError
from ixc_client._events import (
    Accepted,
    Answer,
    Completed,
    Delta,
    Event,
    PromptProcessed,
    TokenLogprob,
)
from ixc_client._methods import WATCH_GENERATION, Call
from ixc_client._settings import Retries
from ixc_client._status import error_from_status, may_retry


class StreamState:
    """An answer as far as it has been received.

    `begin` is the call that starts it, None for one that is only watched. Once the generation has
    a name, a WatchGeneration from the last sequence seen continues it: nothing is lost or doubled.
    """

    def __init__(
        self,
        begin: Call | None,
        *,
        retries: Retries,
        session: str = "",
        generation: str = "",
        after_sequence: int = 0,
    ) -> None:
        self._begin = begin
        self._retries = retries
        self._failures = 0  # in a row, without an event between them
        self._text: list[str] = []
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._completed: Completed | None = None
        self._ready: deque[Event] = deque()
        self.session = session
        self.request_id: str = begin[1].request_id if begin is not None else ""
        self.generation = generation
        self.last_sequence = after_sequence
        self.accepted: Accepted | None = None
        self.prompt: PromptProcessed | None = None
        self.error: IxcError | None = None

    @property
    def finished(self) -> bool:
        return self._completed is not None or self.error is not None

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def owned(self) -> bool:
        """Whether this reader began the generation, and so is the one to stop it."""
        return self._begin is not None

    def next_call(self) -> Call:
        """What to send for the next event: the request itself, or a watch of what it began."""
        if self._begin is not None and not self.generation:
            return self._begin
        output = self._begin[1].output if self._begin is not None else None
        return WATCH_GENERATION, requests.watch(self.generation, self.last_sequence, output)

    def failed(self, error: IxcError) -> float:
        """Seconds to wait before `next_call` is worth another try; raises when it is not."""
        self._failures += 1
        delay = self._retries.delay(self._failures, error.retry_after_seconds)
        if delay is None or not may_retry(error):
            raise self._final(error)
        return delay

    def pop(self) -> Event | None:
        """The next event for the reader, of those taken in."""
        return self._ready.popleft() if self._ready else None

    def take(self, event: events_pb2.GenerationEvent) -> None:
        """Takes one event in. Raises what a `failed` event reports."""
        self._failures = 0
        kind = event.WhichOneof("event")
        if kind == "heartbeat":
            self._ready.append(replies.heartbeat(event.heartbeat))
        elif kind == "draining":
            self._ready.append(replies.draining(event.draining))
        elif event.sequence > self.last_sequence:  # else replayed: seen before the stream broke
            self.last_sequence = event.sequence
            self._take_logged(event, kind)

    def _take_logged(self, event: events_pb2.GenerationEvent, kind: str | None) -> None:
        match kind:
            case "accepted":
                self._accept(event.accepted)
            case "prompt_processed":
                self.prompt = replies.prompt_processed(event.prompt_processed)
                self._ready.append(self.prompt)
            case "delta":
                self._append(replies.delta(event.delta, event.sequence))
            case "snapshot":
                self._accept(event.snapshot.accepted)
                self._catch_up(event.snapshot, event.sequence)
            case "completed":
                if event.completed.text:  # whole at the end: no deltas came, or not all of them
                    self._catch_up(event.completed, event.sequence)
                self._completed = replies.completed(event.completed)
                self._ready.append(self._completed)
            case "failed":
                raise self._final(error_from_status(event.failed.status))
            # Anything else is newer than this client, and passed over.

    def abandon(self) -> None:
        """The reader has left; what comes after is of no interest."""
        if not self.finished:
            self.error = ClientClosed("the stream was closed before the answer was finished")

    def answer(self) -> Answer:
        if self.error is not None:
            raise self.error
        if self._completed is None:
            raise UsageError("the answer is not finished; read the stream to its end first")
        done = self._completed
        accepted = self.accepted or Accepted(generation=self.generation, session=self.session)
        return Answer(
            text=self.text,
            finish_reason=done.finish_reason,
            matched_stop=done.matched_stop,
            usage=done.usage,
            timings=done.timings,
            generation=self.generation,
            request_id=self.request_id,
            session=accepted.session,
            turn=done.turn,
            turn_index=accepted.turn_index,
            model=accepted.model,
            weights_digest=accepted.weights_digest,
            adapter=accepted.adapter,
            token_ids=tuple(self._token_ids),
            logprobs=tuple(self._logprobs),
            sampling=accepted.sampling,
            deduplicated=accepted.deduplicated,
        )

    def _accept(self, message: events_pb2.GenerationAccepted) -> None:
        self.accepted = replies.accepted(message)
        self.generation = self.accepted.generation
        self._ready.append(self.accepted)

    def _append(self, delta: Delta) -> None:
        self._text.append(delta.text)
        self._token_ids.extend(delta.token_ids)
        self._logprobs.extend(delta.logprobs)
        self._ready.append(delta)

    def _catch_up(
        self, message: events_pb2.Snapshot | events_pb2.GenerationCompleted, sequence: int
    ) -> None:
        """A text from its beginning: what the reader lacks of it becomes one delta."""
        logprobs = message.logprobs if isinstance(message, events_pb2.GenerationCompleted) else ()
        ids = message.token_ids[len(self._token_ids) :]
        self._append(
            Delta(
                text=message.text[len(self.text) :],
                sequence=sequence,
                token_ids=tuple(ids),
                logprobs=tuple(map(replies.token_logprob, logprobs[len(self._logprobs) :])),
                token_count=len(ids),
            )
        )

    def _final(self, error: IxcError) -> IxcError:
        error.attempts = max(1, self._failures)
        error.request_id = self.request_id or None
        error.generation = self.generation or None
        self.error = error
        return error
