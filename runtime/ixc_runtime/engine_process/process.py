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

from ixc_cuda.device import DeviceRefused, check_device
from ixc_runtime.config import load_config, load_settings
from ixc_runtime.engine_process.channel import ChannelClosed, EngineChannel
from ixc_runtime.engine_process.core import EngineCore
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
from ixc_runtime.engine_process.planning import batch_limit, device_kind, make_plan
from ixc_runtime.engine_process.runner import MakeRunner, PlainRunner
from ixc_runtime.engine_process.user_adapters import read_adapter
from ixc_runtime.errors import (
    CheckpointInvalid,
    CheckpointUnsupported,
    EngineFault,
    FieldInvalid,
    MemoryLow,
    RuntimeFault,
)
from ixc_runtime.media.geometry import num_image_tokens
from ixc_runtime.model.decoder import Model
from ixc_runtime.model.loader import checkpoint_digest, load_model
from ixc_runtime.model_folder import free_host_bytes
from ixc_runtime.model_info import AdapterInfo, ModelInfo
from ixc_runtime.ops import Ops
from ixc_runtime.ops.cpu import CpuOps
from ixc_runtime.prompt.tokenizer import Tokenizer, load_tokenizer, resolve_roles
from ixc_runtime.request import BASE_ADAPTER

_log = logging.getLogger(__name__)

# What a model computes in where nobody says: exact on a CPU, fast on a GPU.
_DEFAULT_DTYPES = {"cpu": "float32", "cuda": "bfloat16"}


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
    ops = _choose_ops(config, folder)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    tell(Loading(LoadingStage.CHECKPOINT))
    model = load_model(
        folder,
        device=config.device,
        dtype=config.dtype or _DEFAULT_DTYPES[device_kind(config.device)],
        ops=ops,
        on_progress=_in_hundredths(tell),
    )
    digest = checkpoint_digest(folder)
    tell(Loading(LoadingStage.CACHE))
    core, context_limit = make_core(model, config, digest=digest)
    adapters = tuple(filter(None, (_take(core, source) for source in config.adapters)))
    return core, Ready(_model_info(config, model, digest, context_limit, adapters), core.plan)


def _choose_ops(config: EngineConfig, folder: Path) -> Ops:
    """Kernels of ours on a GPU in half precision, plain torch for all the rest.

    Raises FieldInvalid where a GPU is wanted and cannot be used, CheckpointUnsupported where there
    are no kernels for the model's sizes.
    """
    if config.device == "cpu":
        return CpuOps()
    kind, _, index = config.device.partition(":")
    if kind != "cuda" or not (index.isdecimal() or not index):
        raise FieldInvalid("device", f"device is {config.device}, allowed: cpu, cuda, cuda:N")
    device = int(index or 0)
    try:
        info = check_device(device)
    except DeviceRefused as refused:
        raise FieldInvalid("device", f"device is {config.device}: {refused}") from None
    _log.info("running on %s, compute capability %d.%d", info.name, *info.capability)
    # Streams, events, graphs and our kernels are the current device's.
    torch.cuda.set_device(device)
    if config.dtype == "float32":
        return CpuOps(name="plain torch")
    # Kernels need torch's CUDA build and CuPy: imported where a GPU is there.
    from ixc_cuda.kernel import compile_all
    from ixc_runtime.ops.cuda import CudaOps, unsupported_shapes

    model = load_config(folder)
    if reason := unsupported_shapes(model):
        raise CheckpointUnsupported(f"{reason}; in float32 the GPU computes by plain torch")
    compile_all(device)
    return CudaOps(model, max_sequences=batch_limit(config), device=config.device)


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
        adapter = read_adapter(source, core.model)
    except RuntimeFault as fault:
        if source.digest is None:
            raise
        _log.error("the adapter %s is not loaded again: %s", source.name, fault.message)
        return None
    core.add_adapter(adapter)
    return adapter.info


def make_core(
    model: Model, config: EngineConfig, *, digest: str, make_runner: MakeRunner | None = None
) -> tuple[EngineCore, int]:
    """An engine on a loaded model, and the context limit that its memory allows.

    `make_runner` takes the place of the runner that goes with the model's operations.
    """
    plan, context_limit = make_plan(
        config,
        model.config,
        backend=model.ops.name,
        dtype=_dtype_name(model.dtype),
        dtype_bytes=model.dtype.itemsize,
        weights_bytes=model.weights_bytes,
        adapters_bytes=model.adapters_bytes,
        free_bytes=_free_bytes(model.device),
    )
    core = EngineCore(
        model,
        plan,
        digest=digest,
        feature_bytes=config.feature_bytes,
        reuse_prefixes=config.reuse_prefixes,
        make_runner=make_runner or _runner_for(model),
        tower=_tower_for(model),
    )
    return core, context_limit


def _runner_for(model: Model) -> MakeRunner:
    if isinstance(model.ops, CpuOps):
        return PlainRunner
    from ixc_runtime.engine_process.cuda_runner import CudaRunner

    return CudaRunner


def _tower_for(model: Model) -> Tower | None:
    if model.vision is None or isinstance(model.ops, CpuOps):
        return model.vision
    return GraphedTower(model.vision)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cpu":
        return free_host_bytes()
    torch.cuda.empty_cache()  # what loading has left behind is free too
    free, _ = torch.cuda.mem_get_info(device)
    return free


def _model_info(
    config: EngineConfig,
    model: Model,
    digest: str,
    context_limit: int,
    user_adapters: tuple[AdapterInfo, ...],
) -> ModelInfo:
    folder = Path(config.model)
    settings = load_settings(folder)
    tokenizer = load_tokenizer(folder)
    _check_vocabulary(tokenizer, model.config.vocab_size)
    roles = resolve_roles(tokenizer, settings)
    name = config.name or folder.resolve().name
    quantization = model.config.quantization
    users = {each.name for each in user_adapters}
    return ModelInfo(
        name=name,
        display_name=settings.display_name or name,
        description=settings.description,
        digest=digest,
        context_limit=context_limit,
        native_context_limit=model.config.max_position_embeddings,
        vocab_size=model.config.vocab_size,
        num_layers=model.config.num_layers,
        adapters=(BASE_ADAPTER, *sorted(model.adapters - users), *sorted(users)),
        user_adapters=user_adapters,
        tile_size=model.tower.tile_size if model.tower else None,
        hd_num_single=settings.hd_num_single,
        hd_num_several=settings.hd_num_several,
        hd_num_max=settings.max_hd_num,
        # A column of single tiles is the dearest shape: each row has a separator.
        max_image_tokens=(
            num_image_tokens(1, settings.hd_num_single, model.tower.grid // 2) if model.tower else 0
        ),
        stop_token_ids=roles.stop_ids,
        default_sampling=settings.default_sampling,
        system_instruction=settings.system_instruction,
        dtype=_dtype_name(model.dtype),
        quantization=(
            f"awq-int{quantization.bits}-g{quantization.group_size}" if quantization else None
        ),
    )


def _check_vocabulary(tokenizer: Tokenizer, vocab_size: int) -> None:
    """Text must not become ids that the model has no embedding for. Unused control ids may lie
    beyond (the official tokenizer's do): no text reaches them.
    """
    beyond = range(vocab_size, tokenizer.vocab_size)
    if any(not tokenizer.is_control(token_id) for token_id in beyond):
        raise CheckpointInvalid(
            f"the tokenizer makes {tokenizer.vocab_size} ids, the model knows {vocab_size}: "
            "they do not belong together"
        )


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    # Ctrl-C reaches the whole process group, a supervisor's SIGTERM every process of a service;
    # the front end decides what they mean.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
