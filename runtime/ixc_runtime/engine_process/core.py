"""The engine without its socket: submit, cancel, supply pixels, step.

Synchronous and single-threaded, so that tests can drive it step by step. Knows ids and pages,
nothing of text, of gRPC or of the process it runs in.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from ixc_runtime.engine_process.adapter_room import AdapterRoom
from ixc_runtime.engine_process.images import EncodedImages, Tower
from ixc_runtime.engine_process.messages import (
    Failed,
    Finished,
    Pixels,
    PixelsFailed,
    PixelsNeeded,
    PromptDone,
    Started,
    Submit,
    Token,
    Update,
)
from ixc_runtime.engine_process.moments import moment
from ixc_runtime.engine_process.runner import LaunchedStep, MakeRunner, PlainRunner
from ixc_runtime.engine_process.user_adapters import ReadAdapter
from ixc_runtime.errors import (
    AdapterIdTaken,
    AdapterUnavailable,
    EngineFault,
    KvCacheFull,
    RuntimeFault,
    fault_from_reason,
)
from ixc_runtime.host_memory import free_host_bytes
from ixc_runtime.kv_cache.cache import KvCache
from ixc_runtime.model.decoder import Model
from ixc_runtime.model.kv_arena import KvArena
from ixc_runtime.model.rope import rotary_base
from ixc_runtime.model_info import AdapterInfo, EngineLoad, MemoryPlan
from ixc_runtime.request import BASE_ADAPTER, FinishReason
from ixc_runtime.sampling.sampler import SampledToken
from ixc_runtime.scheduler.scheduler import Chunk, Scheduler
from ixc_runtime.scheduler.sequence import Sequence, SequenceTimes

_log = logging.getLogger(__name__)


class _Step(NamedTuple):
    chunks: list[Chunk]
    launched: LaunchedStep


class EngineCore:
    """One model, one arena, one batch. Every method leaves the accounts consistent.

    `tower` encodes pictures in place of the model's own `vision`.
    """

    def __init__(
        self,
        model: Model,
        plan: MemoryPlan,
        *,
        digest: str,
        feature_bytes: int,
        reuse_prefixes: bool = True,
        make_runner: MakeRunner = PlainRunner,
        tower: Tower | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.model = model
        self.plan = plan
        self._digest = digest
        self._clock = clock
        arena = KvArena(
            model.config,
            num_pages=plan.num_pages,
            page_size=plan.page_size,
            dtype=model.dtype,
            device=model.device,
        )
        cache = KvCache(
            num_pages=plan.num_pages,
            page_size=plan.page_size,
            copy_page=arena.copy_page,
            reuse_prefixes=reuse_prefixes,
        )
        self.scheduler = Scheduler(
            cache, max_batch=plan.max_batch, max_step_tokens=plan.max_step_tokens
        )
        self._images = EncodedImages(
            tower or model.vision,
            budget_bytes=feature_bytes,
            moment=partial(moment, model.device),
        )
        self._runner = make_runner(model, arena, self._images, plan=plan)
        self._on_its_way: _Step | None = None
        self._num_steps = 0
        self._updates: list[Update] = []
        self.adapter_room = AdapterRoom(
            plan.device, limit=plan.adapter_room_bytes, free_bytes=free_host_bytes
        )
        self._user_adapters: dict[str, AdapterInfo] = {}

    # ---- what may happen between steps

    def submit(self, request: Submit) -> None:
        """Queue a sequence. The front end has checked and priced it; what is wrong with it all the
        same fails it alone.
        """
        try:
            self.scheduler.submit(self._sequence(request))
        except RuntimeFault as fault:
            self._updates.append(_failed(request.sequence_id, fault))
        except Exception:
            _log.exception("a request could not be taken in")
            unknown = EngineFault("the engine could not take the request in")
            self._updates.append(_failed(request.sequence_id, unknown))

    def _sequence(self, request: Submit) -> Sequence:
        if request.adapter not in {BASE_ADAPTER, *self.model.adapters}:
            raise _unavailable(request.adapter)
        base = rotary_base(self.model.config, len(request.token_ids))
        sequence = Sequence(
            request=request,
            namespace=self._namespace(request, base),
            rotary_base=base,
            times=SequenceTimes(submitted=self._clock()),
        )
        if not sequence.num_prompt:
            raise EngineFault("a prompt without tokens was sent")
        if sequence.max_slots > self.plan.capacity_tokens:
            raise KvCacheFull(
                f"the request may take {sequence.max_slots} slots, "
                f"the cache has {self.plan.capacity_tokens}"
            )
        return sequence

    def _namespace(self, request: Submit, base: float) -> bytes:
        """All that cached values depend on besides the tokens before them.

        A user's adapter counts by its digest: the same name may come back with other weights.
        """
        user = self._user_adapters.get(request.adapter)
        adapter = user.digest if user else request.adapter
        parts = (self._digest, adapter, request.scope, repr(base), self.plan.kv_dtype)
        return hashlib.sha256("\0".join(parts).encode()).digest()

    def add_adapter(self, adapter: ReadAdapter) -> None:
        """From now on sequences may ask for it. The same under the same name is there already.

        Raises AdapterIdTaken, or what keeps the device from taking it; its room is free then.
        """
        info = adapter.info
        if self._user_adapters.get(info.name) == info:
            return
        try:
            if info.name in {BASE_ADAPTER, *self.model.adapters}:
                message = f"another adapter is loaded as {info.name!r}"
                raise AdapterIdTaken(message, adapter=info.name)
            if adapter.pairs is None:
                raise _unavailable(info.name)
            self._runner.take_adapter(info.name, adapter.pairs)
        except BaseException:
            self.adapter_room.give_back(info)
            raise
        self._user_adapters[info.name] = info

    def remove_adapter(self, name: str) -> None:
        """A user's. Sequences that still ask for it fail; an unknown name is gone already."""
        info = self._user_adapters.pop(name, None)
        if info is None:
            return
        for sequence in [each for each in self.scheduler if each.request.adapter == name]:
            self._fail(sequence, _unavailable(name))
        self._runner.drop_adapter(name)
        self.adapter_room.give_back(info)

    def cancel(self, sequence_id: str, reason: FinishReason) -> None:
        """End a sequence wherever it is; unknown ids have ended by themselves."""
        sequence = self.scheduler.find(sequence_id)
        if sequence is not None:
            self._remove(sequence)
            self._updates.append(Finished(sequence_id=sequence_id, reason=reason))

    def supply(self, pixels: Pixels) -> None:
        now = self._clock()
        try:
            self._images.supply(pixels)
        except RuntimeFault as fault:
            self._fail_wanting(pixels.key, fault)
            return
        except Exception as error:
            self._give_up(self._wanting(pixels.key), error, "pixels could not be taken in")
            return
        for sequence in self._wanting(pixels.key):
            sequence.times.media = now - sequence.times.pixels_wanted

    def pixels_failed(self, failure: PixelsFailed) -> None:
        fault = fault_from_reason(failure.reason, failure.message, failure.metadata)
        self._fail_wanting(failure.key, fault)

    def _wanting(self, key: bytes) -> list[Sequence]:
        return [
            sequence
            for sequence in self.scheduler
            if sequence.table is not None
            and any(image.key == key for image in sequence.missing_images)
        ]

    def _fail_wanting(self, key: bytes, fault: RuntimeFault) -> None:
        for sequence in self._wanting(key):
            self._fail(sequence, fault)

    @property
    def load(self) -> EngineLoad:
        cache = self.scheduler.cache
        return EngineLoad(
            running=self.scheduler.num_running,
            waiting=self.scheduler.num_waiting,
            pages_used=cache.num_used,
            pages_indexed=cache.num_indexed,
            pages_total=cache.num_pages,
            num_steps=self._num_steps,
        )

    def check_integrity(self) -> list[str]:
        return self.scheduler.check_integrity()

    # ---- the step

    def step(self) -> tuple[list[Update], bool]:
        """Admit, encode some tiles, launch one batch, take in the one before it.

        A runner that runs ahead has two steps on their way at times, so that the device never waits
        for us; its tokens land one call later. Returns what happened since the last call, and
        whether there was anything to do; when there was not, nothing will change until the next
        message.

        No request can end the engine: what goes wrong fails those that it went wrong for.
        """
        was_on_its_way = self._on_its_way is not None
        self._admit()
        num_tiles = self._encode()
        chunks = self.scheduler.plan(self._images.has)
        launched = self._launch(chunks)
        self._land()
        self._on_its_way = launched
        if not self._runner.runs_ahead:
            self._land()
        updates, self._updates = self._updates, []
        return updates, bool(chunks or was_on_its_way or num_tiles or updates)

    def _admit(self) -> None:
        while (sequence := self.scheduler.first_waiting) is not None:
            try:
                if self.scheduler.admit() is None:
                    return
                self._begin(sequence)
            except Exception as error:
                self._give_up([sequence], error, "the engine could not start the request")

    def _encode(self) -> int:
        """The number of tiles."""
        num_tiles, failures = self._images.encode(self.plan.tiles_per_step)
        for key, error in failures:
            self._give_up(self._wanting(key), error, "a picture could not be encoded")
        return num_tiles

    def _begin(self, sequence: Sequence) -> None:
        now = self._clock()
        sequence.times.started = sequence.times.pixels_wanted = now
        self._updates.append(
            Started(
                sequence_id=sequence.sequence_id,
                queue_seconds=now - sequence.times.submitted,
                cached_tokens=sequence.num_computed,
            )
        )
        for image in sequence.missing_images:
            if self._images.want(image):
                self._updates.append(PixelsNeeded(image.key))
            sequence.wanted_images.append(image.key)
            sequence.encoded_tiles += 1 + image.tiles_wide * image.tiles_high

    def _launch(self, chunks: list[Chunk]) -> _Step | None:
        if not chunks:
            return None
        self._num_steps += 1
        try:
            launched = self._runner.launch(chunks)
        except Exception as error:
            self._give_up_step(chunks, error)
            return None
        for chunk in chunks:
            self.scheduler.launched(chunk)
        return _Step(chunks, launched)

    def _land(self) -> None:
        """Take in what the launched step has brought, if there is one."""
        step, self._on_its_way = self._on_its_way, None
        if step is None:
            return
        try:
            tokens = iter(step.launched.tokens())
        except Exception as error:
            self._give_up_step(step.chunks, error)
            return
        for chunk in step.chunks:
            sampled = next(tokens) if chunk.yields_token else None
            if chunk.sequence.table is None:
                continue  # it ended while the step was on its way
            if chunk.yields_token and sampled is None:
                # Its pages may hold what is not finite either: they are not to be found again.
                self._fail(chunk.sequence, EngineFault("the model's output is not finite"))
                continue
            self.scheduler.landed(chunk)
            if chunk.ends_prompt:
                self._finish_prompt(chunk.sequence)
            if sampled is not None:
                self._accept(chunk, sampled)

    def _give_up_step(self, chunks: list[Chunk], error: Exception) -> None:
        """Whose fault it was cannot be told from here; the accounts are untouched."""
        running = [chunk.sequence for chunk in chunks if chunk.sequence.table is not None]
        self._give_up(running, error, "a step of the engine failed")

    def _give_up(self, sequences: Iterable[Sequence], error: Exception, message: str) -> None:
        """Fail them for what went wrong. Raises it where no later step could do better: this
        process is then of no use, and whoever started it starts another.
        """
        _log.error(message, exc_info=error)
        if not self._runner.is_usable():
            raise error
        for sequence in sequences:
            self._fail(sequence, EngineFault(message))

    def _finish_prompt(self, sequence: Sequence) -> None:
        times = sequence.times
        times.vision = sum(self._images.seconds(key) for key in sequence.wanted_images)
        self._release_images(sequence)
        self._updates.append(
            PromptDone(
                sequence_id=sequence.sequence_id,
                encoded_tiles=sequence.encoded_tiles,
                media_seconds=times.media,
                vision_seconds=times.vision,
                prefill_seconds=self._clock() - times.started - times.media - times.vision,
            )
        )

    def _accept(self, chunk: Chunk, sampled: SampledToken) -> None:
        """The token behind the chunk: take it in, unless it ends the answer."""
        sequence = chunk.sequence
        if sampled.token_id in sequence.request.stop_token_ids:
            self._finish(sequence, FinishReason.STOP, stop_token_id=sampled.token_id)
            return
        sequence.land(chunk.stop, sampled.token_id)
        self._updates.append(Token(sequence.sequence_id, sampled.token_id, sampled.logprob))
        if chunk.stop + 1 - sequence.num_prompt >= sequence.max_output:
            self._finish(sequence, FinishReason.MAX_TOKENS)

    def _finish(
        self, sequence: Sequence, reason: FinishReason, *, stop_token_id: int | None = None
    ) -> None:
        self._remove(sequence)
        self._updates.append(
            Finished(sequence_id=sequence.sequence_id, reason=reason, stop_token_id=stop_token_id)
        )

    def _fail(self, sequence: Sequence, fault: RuntimeFault) -> None:
        self._remove(sequence)
        self._updates.append(_failed(sequence.sequence_id, fault))

    def _remove(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)
        self._release_images(sequence)

    def _release_images(self, sequence: Sequence) -> None:
        self._images.release(sequence.wanted_images)
        sequence.wanted_images.clear()


def _failed(sequence_id: str, fault: RuntimeFault) -> Failed:
    return Failed(
        sequence_id=sequence_id,
        reason=fault.reason,
        message=fault.message,
        metadata=dict(fault.metadata),
    )


def _unavailable(adapter: str) -> AdapterUnavailable:
    return AdapterUnavailable(f"the adapter {adapter!r} has been unloaded", adapter=adapter)
