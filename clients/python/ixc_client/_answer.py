"""What a stream of events adds up to, and where to take it up when it breaks.

`StreamState` is the whole logic of reading an answer, without any sending: the blocking and the
asyncio stream feed it messages and do what it says. It knows what has been received, whether the
answer is finished, and which call continues it.
"""

from collections import deque
from dataclasses import replace

from ixc.v1 import events_pb2
from ixc_client import _event_replies as replies
from ixc_client import _requests as requests
from ixc_client._errors import (
    AnswerLost,
    ClientClosed,
    GenerationNotFound,
    IxcError,
    UsageError,
)
from ixc_client._events import (
    Accepted,
    Answer,
    Completed,
    Delta,
    Event,
    FinishReason,
    PromptProcessed,
    Timings,
    TokenLogprob,
    Usage,
)
from ixc_client._methods import WATCH_GENERATION, Call
from ixc_client._settings import Retries
from ixc_client._status import error_from_status, may_retry


class StreamState:
    """An answer as far as it has been received.

    `begin` is the call that starts it, None for one that is only watched. Once the generation has
    a name, a WatchGeneration from the last sequence seen continues it: nothing is lost or doubled.
    A server that has forgotten the generation, as after a restart, is sent the same request again
    under the same id. It tells a committed turn once more, and else answers anew. What the reader
    was shown before is left out, and has to be what the new answer begins with.
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
        self._shown: list[Delta] = []  # to the reader, over all beginnings
        self._told = ""  # what was shown before the latest beginning
        self._num_told = 0  # tokens of it
        self._num_chars = 0  # since then
        self._num_tokens = 0
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
        is_forgotten = isinstance(error, GenerationNotFound) and bool(self.request_id)
        if delay is None or not (is_forgotten or may_retry(error)):
            raise self._final(error)
        if is_forgotten:
            self._begin_again()
        return delay

    def pop(self, *, is_shown: bool) -> Event | None:
        """The next event, of those taken in; `is_shown` if the reader gets to see it."""
        event = self._ready.popleft() if self._ready else None
        if is_shown and isinstance(event, Delta):
            self._shown.append(event)
        return event

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
                self._complete(replies.completed(event.completed))
            case "failed":
                raise self._final(error_from_status(event.failed.status))
            # Anything else is newer than this client, and passed over.

    def stop_unsent(self) -> None:
        """It was cancelled before the server heard of it."""
        self._complete(
            Completed(finish_reason=FinishReason.CANCELLED, usage=Usage(), timings=Timings())
        )

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
        if (new := self._beyond_told(delta)) is not None:
            self._ready.append(new)
        self._text.append(delta.text)
        self._token_ids.extend(delta.token_ids)
        self._logprobs.extend(delta.logprobs)
        self._num_chars += len(delta.text)
        self._num_tokens += delta.token_count

    def _beyond_told(self, delta: Delta) -> Delta | None:
        """What of it the reader does not have; None if that is nothing. Raises AnswerLost."""
        told = self._told[self._num_chars :]
        num_chars = min(len(told), len(delta.text))
        num_tokens = min(max(0, self._num_told - self._num_tokens), delta.token_count)
        if told[:num_chars] != delta.text[:num_chars]:
            raise self._lost()
        if not num_chars and not num_tokens:
            return delta
        if num_chars == len(delta.text) and num_tokens == delta.token_count:
            return None
        return replace(
            delta,
            text=delta.text[num_chars:],
            token_ids=delta.token_ids[num_tokens:],
            logprobs=delta.logprobs[num_tokens:],
            token_count=delta.token_count - num_tokens,
        )

    def _begin_again(self) -> None:
        self._told = "".join(delta.text for delta in self._shown)
        self._num_told = sum(delta.token_count for delta in self._shown)
        self._num_chars = self._num_tokens = 0
        for kept in (self._text, self._token_ids, self._logprobs, self._ready):
            kept.clear()
        self.generation, self.last_sequence = "", 0
        self.accepted = self.prompt = None

    def _complete(self, completed: Completed) -> None:
        is_cut_short = completed.finish_reason is FinishReason.CANCELLED
        if self._num_chars < len(self._told) and not is_cut_short:
            raise self._lost()
        self._completed = completed
        self._ready.append(completed)

    def _lost(self) -> IxcError:
        return self._final(
            AnswerLost(
                "the server was restarted within the answer, and the same request is now answered "
                "otherwise than what was read"
            )
        )

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
