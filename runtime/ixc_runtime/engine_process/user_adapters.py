"""Users' adapters in the engine: read beside the steps, for their files are large; put in between.

One thread reads one adapter after the other. What it brings is handed over when the loop asks for
it, so that the model changes only between steps. Who may use which adapter is the front end's
business.
"""

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ixc_runtime.engine_process.messages import AdapterSource
from ixc_runtime.errors import CheckpointInvalid
from ixc_runtime.model.decoder import LayerPairs, Model
from ixc_runtime.model_info import AdapterInfo
from ixc_runtime.ops import LowRankPair
from ixc_runtime.weights.peft import load_peft_adapter


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAdapter:
    info: AdapterInfo
    pairs: tuple[LayerPairs, ...]


def read_adapter(source: AdapterSource, model: Model) -> ReadAdapter:
    """Raises CheckpointError, saying what is wrong, if this model cannot run what is there."""
    with torch.inference_mode():
        pairs = load_peft_adapter(
            Path(source.folder), model.config, dtype=model.dtype, device=model.device
        )
        digest = _digest(pairs)
    if source.digest not in (None, digest):
        raise CheckpointInvalid(
            f"the adapter is not what it was: its digest is {digest[:16]}, "
            f"{(source.digest or '')[:16]} is due"
        )
    every = [pair for of_layer in pairs for pair in of_layer.values()]
    info = AdapterInfo(
        name=source.name,
        digest=digest,
        rank=max(block.up.shape[1] for pair in every for block in pair.blocks),
        num_bytes=sum(pair.num_bytes for pair in every),
    )
    return ReadAdapter(info=info, pairs=pairs)


def _digest(pairs: tuple[LayerPairs, ...]) -> str:
    """SHA-256 (hex) over what the model computes with: what is cached depends on nothing else.

    Taken of the tensors and not of the files, which could change between two readings.
    """
    digest = hashlib.sha256()
    for layer, of_layer in enumerate(pairs):
        for name, pair in sorted(of_layer.items()):
            digest.update(f"{layer}\0{name}\0".encode())
            for start, tensor in _tensors(pair):
                digest.update(f"{start}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
                digest.update(tensor.contiguous().cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors(pair: LowRankPair) -> Iterator[tuple[int, Tensor]]:
    """Each with the first output it goes to."""
    yield 0, pair.down
    for block in pair.blocks:
        yield block.first_output, block.up


class AdapterReader:
    """`begin` any number; `finished` gives those that are read, in that order, with their keys."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ixc-adapters")
        self._pending: deque[tuple[int, Future[ReadAdapter]]] = deque()

    @property
    def is_reading(self) -> bool:
        return bool(self._pending)

    def begin(self, key: int, source: AdapterSource) -> None:
        self._pending.append((key, self._thread.submit(read_adapter, source, self._model)))

    def finished(self) -> list[tuple[int, Future[ReadAdapter]]]:
        done = []
        while self._pending and self._pending[0][1].done():
            done.append(self._pending.popleft())
        return done

    def close(self) -> None:
        """What is being read is read to its end, for nobody."""
        self._thread.shutdown(wait=False, cancel_futures=True)
