"""What an operation runs: a job in a process of its own, or the start of a model.

Both are one interface, so that the queue, the log and the streams need not know which it is.
"""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from ixc_runtime import Loading, LoadingStage
from ixc_runtime.errors import JobCancelled
from ixc_runtime.jobs import (
    JobEvent,
    JobProcess,
    JobResult,
    JobSpec,
    Progress,
    recorded_result,
)
from ixc_runtime.models_root import ModelsRoot
from ixc_service.moments import Clock
from ixc_service.operations.records import JobOutcome, LoadOrder, LoadOutcome, Outcome


class Work(Protocol):
    async def run(self, tell: Callable[[JobEvent], None]) -> Outcome:
        """Does it. Raises the fault that ends it, JobCancelled after a cancel, or WorkerLost.

        Cancelled from outside it stops where it stands, and may be run again later.
        """
        ...

    def cancel(self) -> None:
        """Asks it to stop; may be called at any time, also before `run`."""
        ...

    async def clear(self) -> None:
        """Removes what work that came to nothing has left, and what only the work needed."""
        ...


class JobWork:
    """MergeLora or Quantize. `folder` holds what came with the request: samples' pictures."""

    def __init__(self, spec: JobSpec, folder: Path) -> None:
        self._spec = spec
        self._folder = folder
        self._process: JobProcess | None = None
        self._is_cancelled = False

    async def run(self, tell: Callable[[JobEvent], None]) -> Outcome:
        process = self._process = JobProcess(self._spec)
        try:
            if self._is_cancelled:
                raise JobCancelled("cancelled before it began")
            return JobOutcome(result=await process.run(tell))
        except JobCancelled:
            made = await asyncio.to_thread(self._published)
            if made is None:
                raise
            return JobOutcome(result=made)  # it was too late

    def _published(self) -> JobResult | None:
        """What the process published before it was stopped."""
        made = ModelsRoot(Path(self._spec.root)).published(self._spec.job, self._spec.output)
        return None if made is None else recorded_result(made)

    def cancel(self) -> None:
        self._is_cancelled = True
        if self._process is not None:
            self._process.cancel()

    async def clear(self) -> None:
        await asyncio.to_thread(self._clear)

    def _clear(self) -> None:
        ModelsRoot(Path(self._spec.root)).discard(self._spec.job)
        shutil.rmtree(self._folder, ignore_errors=True)


class LoadModel(Protocol):
    """`ModelDesk.load`."""

    async def __call__(
        self, model_id: str, *, make_default: bool, on_loading: Callable[[Loading], None]
    ) -> object: ...


# Weights: reading them takes nearly all of the time.
_STAGE_ENDS = {
    LoadingStage.KERNELS: (0.0, 0.01),
    LoadingStage.CHECKPOINT: (0.01, 0.02),
    LoadingStage.WEIGHTS: (0.02, 0.95),
    LoadingStage.CACHE: (0.95, 1.0),
}


class LoadWork:
    def __init__(self, order: LoadOrder, load: LoadModel, clock: Clock) -> None:
        self._order = order
        self._load = load
        self._clock = clock
        self._task: asyncio.Task[object] | None = None
        self._is_cancelled = False

    async def run(self, tell: Callable[[JobEvent], None]) -> Outcome:
        if self._is_cancelled:
            raise JobCancelled("cancelled before it began")
        began = self._clock.monotonic()
        order = self._order

        def heard(loading: Loading) -> None:
            tell(self._progress(loading, self._clock.monotonic() - began))

        self._task = asyncio.ensure_future(
            self._load(order.model_id, make_default=order.make_default, on_loading=heard)
        )
        try:
            await self._task
        except asyncio.CancelledError:
            if not self._is_cancelled:
                self._task.cancel()
                raise
            raise JobCancelled("the model is not loaded") from None
        return LoadOutcome(model_id=order.model_id)

    def cancel(self) -> None:
        self._is_cancelled = True
        if self._task is not None:
            self._task.cancel()

    async def clear(self) -> None:
        """A start that was broken off leaves nothing."""

    def _progress(self, loading: Loading, elapsed: float) -> Progress:
        first, last = _STAGE_ENDS[loading.stage]
        part = loading.done / loading.total if loading.total else 0.0
        return Progress(
            stage=loading.stage.value,
            stage_index=list(LoadingStage).index(loading.stage),
            stage_count=len(LoadingStage),
            fraction=first + part * (last - first),
            done=loading.done,
            total=loading.total,
            elapsed_seconds=elapsed,
        )


def with_load(outcome: Outcome, operation_id: str | None) -> Outcome:
    """The outcome, naming the operation that loads what was made."""
    if isinstance(outcome, LoadOutcome) or operation_id is None:
        return outcome
    return msgspec.structs.replace(outcome, load_operation=operation_id)
