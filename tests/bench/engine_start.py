"""How long an engine takes to start: kernels compiled and found compiled, a checkpoint loaded."""

import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import torch

from ixc_runtime.engine_process.core import EngineCore
from ixc_runtime.engine_process.messages import EngineConfig, Loading, LoadingStage, Ready
from ixc_runtime.engine_process.process import build_engine

_BLOCK = 64 << 20


@dataclass(slots=True)
class _Stages:
    """When each stage began."""

    began: dict[LoadingStage, float] = field(default_factory=dict)

    def hear(self, loading: Loading) -> None:
        self.began.setdefault(loading.stage, time.perf_counter())


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Seconds from the first look at the checkpoint: all weights are there, requests can come.

    Its files were in the page cache, and kernels were compiled before.
    """

    weights: float
    ready: float


def timed_start(config: EngineConfig) -> tuple[EngineCore, Ready, Start]:
    _read_through(Path(config.model))
    stages = _Stages()
    core, ready = build_engine(config, stages.hear)
    if core.model.device.type == "cuda":
        torch.cuda.synchronize()
    began = stages.began[LoadingStage.CHECKPOINT]
    start = Start(
        weights=stages.began[LoadingStage.CACHE] - began, ready=time.perf_counter() - began
    )
    return core, ready, start


def kernel_seconds(device: int) -> tuple[float, float]:
    """To have every kernel of this GPU: compiled into an empty folder, then found there."""
    from ixc_cuda.kernel import compile_all

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, XDG_CACHE_HOME=folder),
    ):
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            compile_all(device)
            seconds.append(time.perf_counter() - began)
    return seconds[0], seconds[1]


def _read_through(folder: Path) -> None:
    buffer = bytearray(_BLOCK)
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass
