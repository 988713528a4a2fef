"""Start an engine and serve it over one connected socket: the body of the engine process.

    python -m ixc_runtime.engine_process.process FD

FD is an inherited, already connected Unix socket; nothing listens anywhere. The same `serve` runs
in a thread when an engine is embedded.
"""

import logging
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from ixc_runtime.checkpoint.shards import read_shards
from ixc_runtime.config import ModelConfig, load_config
from ixc_runtime.engine_process.channel import ChannelClosed, EngineChannel
from ixc_runtime.engine_process.core import EngineCore
from ixc_runtime.engine_process.description import describe
from ixc_runtime.engine_process.device import (
    choose_ops,
    chosen_dtype,
    claim,
    dtype_name,
    free_bytes,
    open_device,
)
from ixc_runtime.engine_process.graphed_tower import GraphedTower
from ixc_runtime.engine_process.images import Tower
from ixc_runtime.engine_process.loop import run_loop
from ixc_runtime.engine_process.messages import (
    AdapterSource,
    EngineConfig,
    Loading,
    LoadingStage,
    Ready,
    Start,
    StartFailed,
)
from ixc_runtime.engine_process.planning import (
    Memory,
    check_config,
    make_plan,
    require_memory,
    tiles_in_a_step,
)
from ixc_runtime.engine_process.runner import MakeRunner, PlainRunner
from ixc_runtime.engine_process.user_adapters import read_adapter
from ixc_runtime.errors import (
    EngineFault,
    MemoryLow,
    RuntimeFault,
)
from ixc_runtime.model.decoder import Model
from ixc_runtime.model.inventory import take_inventory
from ixc_runtime.model.loader import checkpoint_digest, load_model
from ixc_runtime.model_info import AdapterInfo
from ixc_runtime.ops.cpu import CpuOps

_log = logging.getLogger(__name__)


def serve(connection: socket.socket) -> None:
    """Load what the first message names, then run until told to stop or left alone."""
    channel = EngineChannel(connection)
    try:
        for message in channel.receive(wait=True):
            assert isinstance(message, Start), "the first message is Start"
            core = _start(message.config, channel)
            if core is not None:
                run_loop(core, channel)
    except ChannelClosed:
        pass  # the front end is gone, and with it everyone who could want an answer
    finally:
        connection.close()


def _start(config: EngineConfig, channel: EngineChannel) -> EngineCore | None:
    try:
        core, ready = build_engine(config, channel.send)
    except RuntimeFault as fault:
        failure = fault
    except ChannelClosed:
        raise
    except Exception:
        _log.exception("the engine could not start")
        failure = EngineFault("the engine could not start; its log says why")
    else:
        channel.send(ready)
        return core
    channel.send(
        StartFailed(reason=failure.reason, message=failure.message, metadata=dict(failure.metadata))
    )
    return None


def build_engine(
    config: EngineConfig, tell: Callable[[Loading], None] = lambda loading: None
) -> tuple[EngineCore, Ready]:
    """Load the model, plan the memory, take it. Raises a RuntimeFault that says what is wrong."""
    try:
        return _build_engine(config, tell)
    except torch.OutOfMemoryError:
        _log.exception("the engine does not fit")
        raise MemoryLow(
            f"the model needs more memory than is free on {config.device}", device=config.device
        ) from None


def _build_engine(
    config: EngineConfig, tell: Callable[[Loading], None]
) -> tuple[EngineCore, Ready]:
    folder = Path(config.model)
    tell(Loading(LoadingStage.KERNELS))
    open_device(config)
    model_config = load_config(folder)
    _require_memory(config, model_config, folder)
    ops = choose_ops(config, model_config)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    tell(Loading(LoadingStage.CHECKPOINT))
    model = load_model(
        folder,
        device=config.device,
        dtype=chosen_dtype(config),
        ops=ops,
        on_progress=_in_hundredths(tell),
    )
    digest = checkpoint_digest(folder)
    tell(Loading(LoadingStage.CACHE))
    core, context_limit = make_core(model, config, digest=digest)
    adapters = tuple(filter(None, (_take(core, source) for source in config.adapters)))
    return core, Ready(describe(config, model, digest, context_limit, adapters), core.plan)


def _require_memory(config: EngineConfig, model: ModelConfig, folder: Path) -> None:
    """Before weights are read, which takes minutes; by what the files' headers say they take.

    Raises MemoryLow, or what is wrong with the checkpoint.
    """
    inventory = take_inventory(model, read_shards(folder))
    dtype_bytes = chosen_dtype(config).itemsize
    require_memory(
        config,
        model,
        inventory.tower,
        dtype_bytes=dtype_bytes,
        weights_bytes=inventory.num_weights * dtype_bytes,
        free_bytes=free_bytes(config.device),
    )


def _in_hundredths(tell: Callable[[Loading], None]) -> Callable[[int, int], None]:
    """Thousands of tensors are read; their count is not worth as many messages."""
    told = -1

    def on_progress(done: int, total: int) -> None:
        nonlocal told
        if (hundredths := 100 * done // max(total, 1)) > told:
            told = hundredths
            tell(Loading(LoadingStage.WEIGHTS, done, total))

    return on_progress


def _take(core: EngineCore, source: AdapterSource) -> AdapterInfo | None:
    """An adapter that is to be there from the start.

    One that was there before a crash, which its digest tells, may have gone or changed since: then
    the engine does without it rather than not at all.
    """
    try:
        adapter = read_adapter(source, core.model, core.adapter_room)
        core.add_adapter(adapter)
    except RuntimeFault as fault:
        if source.digest is None:
            raise
        _log.error("the adapter %s is not loaded again: %s", source.name, fault.message)
        return None
    return adapter.info


def make_core(
    model: Model, config: EngineConfig, *, digest: str, make_runner: MakeRunner | None = None
) -> tuple[EngineCore, int]:
    """An engine on a loaded model, and the context limit that its memory allows.

    `make_runner` takes the place of the runner that goes with the model's operations.
    """
    check_config(config, model.config)
    # First of all: what its graphs take is no longer free for the cache.
    tower = _tower_for(model, config)
    memory = Memory(
        weights_bytes=model.weights_bytes,
        adapters_bytes=model.adapters_bytes,
        tower_bytes=tower.num_bytes if isinstance(tower, GraphedTower) else 0,
        free_bytes=free_bytes(model.device),
    )
    plan, context_limit = make_plan(
        config,
        model.config,
        memory,
        backend=model.ops.name,
        dtype=dtype_name(model.dtype),
        dtype_bytes=model.dtype.itemsize,
    )
    core = EngineCore(
        model,
        plan,
        digest=digest,
        feature_bytes=config.feature_bytes,
        reuse_prefixes=config.reuse_prefixes,
        make_runner=make_runner or _runner_for(model),
        tower=tower,
    )
    planned = plan.total_bytes - memory.weights_bytes - memory.tower_bytes
    claim(planned - (memory.free_bytes - free_bytes(model.device)), model.device)
    return core, context_limit


def _runner_for(model: Model) -> MakeRunner:
    if isinstance(model.ops, CpuOps):
        return PlainRunner
    from ixc_runtime.engine_process.cuda_runner import CudaRunner

    return CudaRunner


def _tower_for(model: Model, config: EngineConfig) -> Tower | None:
    if model.vision is None or isinstance(model.ops, CpuOps):
        return model.vision
    return GraphedTower(model.vision, most_tiles=tiles_in_a_step(config))


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    # Ctrl-C reaches the whole process group, a supervisor's SIGTERM every process of a service;
    # the front end decides what they mean.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
