# ruff: noqa: N802 - the contract names these methods
"""GenerationService: single prompts, and every generation that runs or has just ended."""

import logging
from itertools import islice

from ixc.v1 import generation_pb2
from ixc.v1 import generation_service_pb2 as pb
from ixc.v1.events_pb2 import GenerationEvent
from ixc.v1.generation_service_pb2_grpc import GenerationServiceServicer
from ixc_service.generations import Generations
from ixc_service.identifiers import id_of
from ixc_service.jobs import Desk, GenerateJob
from ixc_service.log_events import emit
from ixc_service.paging import decode_token, encode_token, page_size
from ixc_service.run import OnDisconnect, Run
from ixc_service.store import LOCAL_OWNER
from ixc_service.streams import Context, Streams, request_key, start_by
from ixc_service.translate import events, requests, resources
from ixc_service.validate import requests as checks

_log = logging.getLogger(__name__)


class GenerationServicer(GenerationServiceServicer):
    def __init__(
        self,
        generations: Generations,
        streams: Streams,
        *,
        desk: Desk,
        flush_seconds: float,
    ) -> None:
        self._generations = generations
        self._streams = streams
        self._desk = desk
        self._limits = desk.limits
        self._flush_seconds = flush_seconds

    # A coroutine that writes, which the stub's type does not know: it can be told when a write
    # takes too long, a generator cannot.
    async def Generate(self, request: pb.GenerateRequest, context: Context) -> None:  # type: ignore[override]
        models = self._desk.models
        model = models.facts(request.model)
        checks.check_generate(request, self._limits, model)
        asked = requests.generation_request(request, model, self._limits, self._desk.media)
        attachments = requests.attachments(requests.contents_of(request.prompt))
        spec = requests.run_spec(
            request, OnDisconnect.CANCEL, self._limits, model=model, labels=dict(request.labels)
        )
        deadline = start_by(context, spec, self._desk.clock)
        key = request_key("Generate", request)
        served = models.find_named(request.model)
        # An earlier run of this request is there to attach to, even if its model has gone.
        if served is None and not self._streams.knows(key):
            raise await models.absence(request.model)

        def job(_: Run) -> GenerateJob:
            assert served is not None, "an earlier run is attached to"
            return GenerateJob(
                LOCAL_OWNER, served, asked, attachments, self._desk, start_by=deadline
            )

        run, view = self._streams.begin(
            key,
            spec,
            requests.view(request.output, request.after_sequence, self._flush_seconds),
            job,
        )
        await self._streams.send(run, view, context, _generate_response)

    async def WatchGeneration(  # type: ignore[override]
        self, request: pb.WatchGenerationRequest, context: Context
    ) -> None:
        checks.check_watch(request)
        run = self._find(request.name)
        view = requests.view(
            request,
            request.after_sequence,
            self._flush_seconds,
            allows_snapshot=request.allow_snapshot,
        )
        await self._streams.send(run, view, context, _watch_response)

    async def GetGeneration(
        self, request: pb.GetGenerationRequest, context: Context
    ) -> pb.GetGenerationResponse:
        checks.check_name(request.name, "generations")
        return pb.GetGenerationResponse(generation=self._message(self._find(request.name)))

    async def ListGenerations(
        self, request: pb.ListGenerationsRequest, context: Context
    ) -> pb.ListGenerationsResponse:
        checks.check_list_generations(request)
        identity = ("generations", request.session, tuple(request.states))
        before = decode_token(request.page_token, str, *identity)
        size = page_size(request.page_size, self._limits.max_page_size)
        session_id = id_of(request.session, "sessions")
        found = (
            run
            for run in self._generations.newest_first(LOCAL_OWNER, before=before)
            if session_id in {None, run.spec.session_id}
            and (not request.states or events.STATES[run.state] in request.states)
        )
        page = list(islice(found, size + 1))
        more = len(page) > size
        return pb.ListGenerationsResponse(
            generations=[self._message(run, with_text=False) for run in page[:size]],
            next_page_token=encode_token(page[size - 1].id, *identity) if more else "",
        )

    async def CancelGeneration(
        self, request: pb.CancelGenerationRequest, context: Context
    ) -> pb.CancelGenerationResponse:
        checks.check_cancel(request)
        run = self._find(request.name)
        emit(_log, "cancel_asked", generation=run.id, has_reason=bool(request.reason))
        await self._generations.cancel(run)
        return pb.CancelGenerationResponse(generation=self._message(run))

    def _find(self, name: str) -> Run:
        return self._generations.get(LOCAL_OWNER, id_of(name, "generations") or "")

    def _message(self, run: Run, *, with_text: bool = True) -> generation_pb2.Generation:
        return resources.generation_message(run, self._limits, with_text=with_text)


def _generate_response(event: GenerationEvent) -> pb.GenerateResponse:
    return pb.GenerateResponse(event=event)


def _watch_response(event: GenerationEvent) -> pb.WatchGenerationResponse:
    return pb.WatchGenerationResponse(event=event)
