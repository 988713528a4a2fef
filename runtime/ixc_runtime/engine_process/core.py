"""The engine without its socket: submit, cancel, supply pixels, step.

Synchronous and single-threaded, so that tests can drive it step by step. Knows ids and pages,
nothing of text, of gRPC or of the process it runs in. What is in a step is in `steps.py`.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from functools import partial

from ixc_runtime.engine_process.adapter_room import AdapterRoom
from ixc_runtime.engine_process.images import EncodedImages, Tower
from ixc_runtime.engine_process.messages import Pixels, PixelsFailed, Submit, Update
from ixc_runtime.engine_process.moments import moment
from ixc_runtime.engine_process.runner import MakeRunner, PlainRunner
from ixc_runtime.engine_process.steps import Steps
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
from ixc_runtime.scheduler.scheduler import Scheduler
from ixc_runtime.scheduler.sequence import Sequence, SequenceTimes

_log = logging.getLogger(__name__)


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
        self._steps = Steps(
            self.scheduler,
            self._images,
            self._runner,
            tiles_per_step=plan.tiles_per_step,
            clock=clock,
        )
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
            self._steps.refuse(request.sequence_id, fault)
        except Exception:
            _log.exception("a request could not be taken in")
            unknown = EngineFault("the engine could not take the request in")
            self._steps.refuse(request.sequence_id, unknown)

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
            if adapter.pairs is not None:  # else the room is another reading's
                self.adapter_room.give_back(info)
            raise
        self._user_adapters[info.name] = info

    def remove_adapter(self, name: str) -> None:
        """A user's. Sequences that still ask for it fail; an unknown name is gone already."""
        info = self._user_adapters.pop(name, None)
        if info is None:
            return
        for sequence in [each for each in self.scheduler if each.request.adapter == name]:
            self._steps.fail(sequence, _unavailable(name))
        self._runner.drop_adapter(name)
        self.adapter_room.give_back(info)

    def cancel(self, sequence_id: str, reason: FinishReason) -> None:
        """End a sequence wherever it is; unknown ids have ended by themselves."""
        sequence = self.scheduler.find(sequence_id)
        if sequence is not None:
            self._steps.finish(sequence, reason)

    def supply(self, pixels: Pixels) -> None:
        now = self._clock()
        try:
            self._images.supply(pixels)
        except RuntimeFault as fault:
            self._fail_wanting(pixels.key, fault)
            return
        except Exception as error:
            self._steps.give_up(
                self.scheduler.wanting(pixels.key), error, "pixels could not be taken in"
            )
            return
        for sequence in self.scheduler.wanting(pixels.key):
            sequence.times.media = now - sequence.times.pixels_wanted

    def pixels_failed(self, failure: PixelsFailed) -> None:
        fault = fault_from_reason(failure.reason, failure.message, failure.metadata)
        self._fail_wanting(failure.key, fault)

    def _fail_wanting(self, key: bytes, fault: RuntimeFault) -> None:
        for sequence in self.scheduler.wanting(key):
            self._steps.fail(sequence, fault)

    @property
    def load(self) -> EngineLoad:
        cache = self.scheduler.cache
        return EngineLoad(
            running=self.scheduler.num_running,
            waiting=self.scheduler.num_waiting,
            pages_used=cache.num_used,
            pages_indexed=cache.num_indexed,
            pages_total=cache.num_pages,
            num_steps=self._steps.num_launched,
        )

    def check_integrity(self) -> list[str]:
        return self.scheduler.check_integrity()

    # ---- the step

    def step(self) -> tuple[list[Update], bool]:
        """What happened since the last call, and whether there was anything to do; when there was
        not, nothing will change until the next message.
        """
        return self._steps.run_one()


def _unavailable(adapter: str) -> AdapterUnavailable:
    return AdapterUnavailable(f"the adapter {adapter!r} has been unloaded", adapter=adapter)
