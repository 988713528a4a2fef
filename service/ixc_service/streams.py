"""Runs as gRPC streams: metadata once admitted, then a delivery written to the call."""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message
from grpc.aio import ServicerContext

from ixc.v1.events_pb2 import GenerationEvent
from ixc_service.delivery import Delivery, Notice, Pace, View
from ixc_service.event_log import Event
from ixc_service.generations import Generations, Job
from ixc_service.identifiers import generation_name, session_name
from ixc_service.moments import Clock
from ixc_service.run import OnDisconnect, Run, RunSpec
from ixc_service.store import LOCAL_OWNER, RequestKey
from ixc_service.translate.events import event_message
from ixc_service.validate.requests import check_cursor

Context = ServicerContext[Any, Any]
Wrap = Callable[[GenerationEvent], Message]

# Fields of a request that two sendings of the same request may differ in.
_NOT_COMPARED = ("request_id", "after_sequence")


def request_key(method: str, request: Message) -> RequestKey | None:
    """By what a repeated request is known; None if the caller gave no id."""
    request_id: str = getattr(request, "request_id")  # noqa: B009 - of several message types
    if not request_id:
        return None
    canonical = type(request)()
    canonical.CopyFrom(request)
    for name in _NOT_COMPARED:
        if name in canonical.DESCRIPTOR.fields_by_name:
            canonical.ClearField(name)
    digest = hashlib.sha256(canonical.SerializeToString(deterministic=True)).digest()
    return RequestKey(owner=LOCAL_OWNER, method=method, request_id=request_id, digest=digest)


def start_by(context: Context, spec: RunSpec, clock: Clock) -> float | None:
    """When a run must have started to be of use to its caller; None: whenever it can.

    A deadline that passes is a broken stream, which some runs are to outlive.
    """
    left = context.time_remaining()
    if left is None or spec.on_disconnect is OnDisconnect.CONTINUE:
        return None
    return clock.monotonic() + float(left)


class Streams:
    def __init__(
        self,
        generations: Generations,
        *,
        clock: Clock,
        pace: Pace,
        instance: str,
    ) -> None:
        self._generations = generations
        self._clock = clock
        self._pace = pace
        self._instance = instance

    def knows(self, key: RequestKey | None) -> bool:
        """Whether a run of this request is there to attach to."""
        return self._generations.find_request(key) is not None

    def begin(
        self,
        key: RequestKey | None,
        spec: RunSpec,
        view: View,
        make_job: Callable[[Run], Job],
    ) -> tuple[Run, View]:
        """The run of this request, begun now or attached to, and the view that fits it."""
        if run := self._generations.find_request(key):
            return run, dataclasses.replace(view, is_deduplicated=True)
        run = self._generations.new_run(spec)
        run.flush_interval_seconds = view.flush_interval_seconds
        self._generations.start(run, key, make_job(run))
        return run, dataclasses.replace(view, after_sequence=0)

    async def send(self, run: Run, view: View, context: Context, wrap: Wrap) -> None:
        """Streams the run to its end. Counts as a reader from the first moment."""
        with run.reader():
            await run.admitted()
            check_cursor(view.after_sequence, run.log.last_sequence)
            await context.send_initial_metadata(self._metadata(run.id, run.spec.session_id))

            async def write(item: Event | Notice, cursor: int) -> None:
                await context.write(wrap(event_message(item, cursor, run, view)))

            delivery = Delivery(
                run,
                view,
                write,
                generations=self._generations,
                clock=self._clock,
                pace=self._pace,
            )
            await delivery.run_to_end()

    async def send_all(
        self,
        events: list[GenerationEvent],
        context: Context,
        wrap: Wrap,
        *,
        generation_id: str,
        session_id: str,
    ) -> None:
        """Streams events that need no run: a committed turn told once more."""
        await context.send_initial_metadata(self._metadata(generation_id, session_id))
        for event in events:
            await context.write(wrap(event))

    def _metadata(self, generation_id: str, session_id: str | None) -> tuple[tuple[str, str], ...]:
        metadata = [
            ("x-generation", generation_name(generation_id)),
            ("x-instance", self._instance),
        ]
        if session_id:
            metadata.append(("x-session-id", session_name(session_id)))
        return tuple(metadata)
