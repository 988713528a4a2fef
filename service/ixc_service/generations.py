"""All generations of this server: starting, finding, cancelling and at last forgetting them.

    find ── same request id? ──► the earlier run
    start ─► task: job.prepare ─► engine ─► log … ─► job.finish ─► terminal event ─► job.release
                       │ refused: the run is forgotten, as if it had never been
A job is what differs between Generate and Chat. Knows neither.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from ixc_runtime import (
    Accepted,
    Completed,
    FinishReason,
    PromptUsage,
    TextDelta,
    Timings,
    Usage,
)
from ixc_runtime.errors import EngineFault, ServerDraining
from ixc_service.engine_port import GenerationPort
from ixc_service.errors import GenerationNotFound, RequestIdReused
from ixc_service.event_log import CommittedTurn, EventLog, Failed, Finished
from ixc_service.identifiers import generation_name, new_id
from ixc_service.limits import Limits
from ixc_service.log_events import emit
from ixc_service.moments import Clock
from ixc_service.run import Run, RunSpec
from ixc_service.status import FaultDesk
from ixc_service.store import RequestKey

# One front end writes some 10,000 messages a second with one core. Beyond a share of that, tokens
# gather for longer rather than streams wait for one another.
_MESSAGES_A_SECOND = 5_000
# Whatever the reader who began a run asks for, its tokens become text after so long: others may
# watch it too, and stop sequences are looked for in text.
_LONGEST_ASKED_SECONDS = 0.05
_log = logging.getLogger(__name__)


class Job(Protocol):
    """The parts of a run that depend on who asked."""

    async def prepare(self) -> GenerationPort:
        """Waits for its turn and asks its model's engine; raises the fault that refuses it."""
        ...

    async def finish(self, completed: Completed) -> CommittedTurn | None:
        """Makes the outcome durable; the terminal event comes after it."""
        ...

    def release(self) -> None:
        """Gives back what `prepare` took. Called once, whatever happened."""
        ...


@dataclass(frozen=True, slots=True)
class _Earlier:
    digest: bytes
    run: Run


class Generations:
    def __init__(
        self,
        *,
        clock: Clock,
        limits: Limits,
        faults: FaultDesk,
        retained_bytes: int,
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._faults = faults
        self._retained_bytes = retained_bytes
        self._runs: dict[str, Run] = {}  # oldest first, for ids are ordered by time
        self._requests: dict[tuple[str, str, str], _Earlier] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.drain_deadline: float | None = None  # monotonic; set once the server is to stop

    # ---- finding

    def find_request(self, key: RequestKey | None) -> Run | None:
        """The run of an earlier request with this key; raises if that request was another one."""
        if key is None:
            return None
        earlier = self._requests.get((key.owner, key.method, key.request_id))
        if earlier is None:
            return None
        if earlier.digest != key.digest:
            raise RequestIdReused(
                "this request_id came before with another request", request_id=key.request_id
            )
        return earlier.run

    def get(self, owner: str, run_id: str) -> Run:
        run = self._runs.get(run_id)
        if run is None or run.spec.owner != owner:
            raise GenerationNotFound(generation_name(run_id))
        return run

    def newest_first(self, owner: str, *, before: str | None = None) -> Iterable[Run]:
        for run_id in reversed(self._runs):
            run = self._runs[run_id]
            if run.spec.owner == owner and (before is None or run_id < before):
                yield run

    @property
    def num_detached(self) -> int:
        return sum(run.is_detached for run in self._runs.values())

    def gathering_seconds(self, run: Run) -> float:
        """For how long a run's tokens gather before they become a delta; 0: not at all."""
        asked = min(run.flush_interval_seconds, _LONGEST_ASKED_SECONDS)
        return max(asked, len(self._tasks) / _MESSAGES_A_SECOND) if asked else 0.0

    # ---- running

    def new_run(self, spec: RunSpec) -> Run:
        now = self._clock.now()
        run_id = new_id(now)
        log = EventLog(
            generation_name(run_id),
            max_events=self._limits.max_event_log_events,
            max_bytes=self._limits.max_event_log_bytes,
        )
        run = Run(run_id, spec, log, now)
        run.may_detach = lambda: self.num_detached <= self._limits.max_detached_generations
        return run

    def start(self, run: Run, key: RequestKey | None, job: Job) -> None:
        """Registers the run and sets it going. Between `find_request` and this: no await."""
        self._runs[run.id] = run
        if key is not None:
            place = (key.owner, key.method, key.request_id)
            assert place not in self._requests, "find_request comes first"
            self._requests[place] = _Earlier(key.digest, run)
        task = asyncio.create_task(self._drive(run, key, job), name=f"generation {run.id}")
        self._tasks[run.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(run.id, None))

    async def _drive(self, run: Run, key: RequestKey | None, job: Job) -> None:
        try:
            outcome: Finished | Failed = await self._run_job(run, job)
        except asyncio.CancelledError:
            outcome = self._failure(run, ServerDraining("the server has stopped"))
        except Exception as error:
            outcome = self._failure(run, error)
        finally:
            # Before the end is told: whoever hears of it may ask for the next turn at once.
            job.release()
        run.end_time = self._clock.now()
        if isinstance(outcome, Failed):
            self._fail(run, key, outcome)
        else:
            run.append(outcome)
        self._log_end(run)

    async def _run_job(self, run: Run, job: Job) -> Finished:
        generation = await self._prepared(run, job)
        if generation is None:
            return self._unstarted(run)
        run.stop_by(generation.cancel)
        completed: Completed | None = None
        async for update in generation:
            if isinstance(update, Completed):
                completed = update
            else:
                run.append(update)
            if isinstance(update, TextDelta) and (seconds := self.gathering_seconds(run)):
                await generation.gather(seconds)
        if completed is None:
            raise EngineFault("the engine's updates ended without Completed")
        if run.accepted is None:
            return self._unstarted(run)
        return Finished(completed=completed, turn=await job.finish(completed))

    async def _prepared(self, run: Run, job: Job) -> GenerationPort | None:
        """The engine's answer to come; None if the run was cancelled before it was asked for."""
        preparing = asyncio.ensure_future(job.prepare())

        def stop(_: FinishReason) -> None:
            preparing.cancel()

        run.stop_by(stop)
        try:
            generation = await preparing
        except asyncio.CancelledError:
            if run.cancel_reason is None:
                raise
            return None
        return None if run.cancel_reason else generation

    def _unstarted(self, run: Run) -> Finished:
        """Cancelled before it was priced: a normal end all the same."""
        usage = PromptUsage(prompt_tokens=0, image_tokens=0, num_images=0)
        nothing = Usage(prompt_tokens=0, image_tokens=0, cached_tokens=0, output_tokens=0)
        run.append(Accepted(usage=usage, queue_position=0, sampling=run.spec.sampling))
        reason = run.cancel_reason or FinishReason.CANCELLED
        return Finished(completed=Completed(finish_reason=reason, usage=nothing, timings=Timings()))

    def _failure(self, run: Run, error: BaseException) -> Failed:
        return Failed(fault=self._faults.presentable(error, during=f"generation {run.id}"))

    def _fail(self, run: Run, key: RequestKey | None, failed: Failed) -> None:
        # The same request may be sent again, and then runs anew.
        if key is not None:
            del self._requests[key.owner, key.method, key.request_id]
        if run.accepted is None:
            del self._runs[run.id]
            run.refuse(failed.fault)
        else:
            run.append(failed)

    def _log_end(self, run: Run) -> None:
        emit(
            _log,
            "generation_ended",
            generation=run.id,
            session=run.spec.session_id or "",
            state=run.state.value if run.accepted else "refused",
            finish=run.completed.finish_reason.value if run.completed else "",
            prompt_tokens=run.usage.prompt_tokens,
            cached_tokens=run.usage.cached_tokens,
            output_tokens=run.usage.output_tokens,
        )

    async def cancel(self, run: Run) -> None:
        """Stops a run and waits until it is over."""
        run.cancel()
        await self.ended(run)

    async def ended(self, run: Run) -> None:
        """Waits until a run is over and has given everything back."""
        if task := self._tasks.get(run.id):
            await asyncio.wait({task})

    # ---- ending

    def announce_drain(self, deadline: float) -> None:
        """From now on every stream tells its reader that the server will stop."""
        self.drain_deadline = deadline
        for run in self._runs.values():
            run.log.wake_readers()

    async def finish_all(self, seconds: float, hurry: asyncio.Event) -> None:
        """Lets running generations end; those still there after `seconds`, or as soon as there is
        a hurry, fail.
        """
        if self._tasks:
            ended = asyncio.ensure_future(asyncio.wait(tuple(self._tasks.values())))
            hurried = asyncio.ensure_future(hurry.wait())
            await asyncio.wait(
                {ended, hurried}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            ended.cancel()
            hurried.cancel()
        for task in (late := tuple(self._tasks.values())):
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def forget_old(self) -> int:
        """Drops ended runs past their time, then the oldest beyond the memory set aside."""
        ended = [run for run in self._runs.values() if run.end_time is not None]
        horizon = self._clock.now() - self._limits.generation_retention_seconds
        excess = sum(run.log.num_bytes for run in ended) - self._retained_bytes
        stale = set()
        for run in ended:
            if run.num_readers == 0 and ((run.end_time or 0.0) <= horizon or excess > 0):
                stale.add(run.id)
                excess -= run.log.num_bytes
                del self._runs[run.id]
        self._requests = {
            place: earlier
            for place, earlier in self._requests.items()
            if earlier.run.id not in stale
        }
        return len(stale)
