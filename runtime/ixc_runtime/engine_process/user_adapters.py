"""Users' adapters in the engine: read beside the steps, for their files are large; put in between.

One thread reads one adapter after the other. What it brings is handed over when the loop asks for
it, so that the model changes only between steps. Who may use which adapter is the front end's
business.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ixc_runtime.byte_sizes import size_text
from ixc_runtime.engine_process.adapter_room import AdapterRoom
from ixc_runtime.engine_process.messages import AdapterSource
from ixc_runtime.errors import CheckpointInvalid, MemoryLow
from ixc_runtime.host_memory import free_host_bytes
from ixc_runtime.model.decoder import LayerPairs, Model
from ixc_runtime.model_info import AdapterInfo
from ixc_runtime.ops import LowRankPair
from ixc_runtime.weights.peft import WEIGHTS_NAME, load_peft_adapter


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAdapter:
    """`pairs` are on the model's device and have their room there; None: it was there already."""

    info: AdapterInfo
    pairs: tuple[LayerPairs, ...] | None


def read_adapter(source: AdapterSource, model: Model, room: AdapterRoom) -> ReadAdapter:
    """Raises CheckpointError, saying what is wrong, if this model cannot run what is there, and
    MemoryLow if it has no room. It is read and examined on the host; the device gets what fits.
    """
    folder = Path(source.folder)
    _require_host_memory(folder)
    with torch.inference_mode():
        pairs = load_peft_adapter(folder, model.config, dtype=model.dtype)
        digest = _digest(pairs)
        if source.digest not in (None, digest):
            raise CheckpointInvalid(
                f"the adapter is not what it was: its digest is {digest[:16]}, "
                f"{(source.digest or '')[:16]} is due"
            )
        rank = max(
            block.up.shape[1]
            for of_layer in pairs
            for pair in of_layer.values()
            for block in pair.blocks
        )
        pairs = _of_every(pairs, model.ops.low_rank_pair)
        info = AdapterInfo(
            name=source.name,
            digest=digest,
            rank=rank,
            num_bytes=sum(pair.num_bytes for of_layer in pairs for pair in of_layer.values()),
        )
        if not room.take(info):
            return ReadAdapter(info=info, pairs=None)
        try:
            return ReadAdapter(info=info, pairs=_of_every(pairs, partial(_moved, model.device)))
        except BaseException as error:
            room.give_back(info)
            if not isinstance(error, torch.OutOfMemoryError):
                raise
            raise MemoryLow(
                f"the adapter takes {size_text(info.num_bytes)}, more than is free of "
                f"{model.device}",
                required=info.num_bytes,
            ) from None


def _require_host_memory(folder: Path) -> None:
    """By the size of its file; what is wrong with it is found when it is read."""
    weights = folder / WEIGHTS_NAME
    required, free = weights.stat().st_size if weights.is_file() else 0, free_host_bytes()
    if required > free:
        raise MemoryLow(
            f"the adapter takes {size_text(required)}; {size_text(free)} are free of the host",
            required=required,
            free=free,
        )


def _of_every(
    pairs: tuple[LayerPairs, ...], change: Callable[[LowRankPair], LowRankPair]
) -> tuple[LayerPairs, ...]:
    return tuple({name: change(pair) for name, pair in of_layer.items()} for of_layer in pairs)


def _moved(device: torch.device, pair: LowRankPair) -> LowRankPair:
    return LowRankPair(
        down=pair.down.to(device),
        blocks=tuple(replace(block, up=block.up.to(device)) for block in pair.blocks),
    )


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

    def __init__(self, model: Model, room: AdapterRoom) -> None:
        self._model = model
        self._room = room
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ixc-adapters")
        self._pending: deque[tuple[int, Future[ReadAdapter]]] = deque()

    @property
    def is_reading(self) -> bool:
        return bool(self._pending)

    def begin(self, key: int, source: AdapterSource) -> None:
        self._pending.append(
            (key, self._thread.submit(read_adapter, source, self._model, self._room))
        )

    def finished(self) -> list[tuple[int, Future[ReadAdapter]]]:
        done = []
        while self._pending and self._pending[0][1].done():
            done.append(self._pending.popleft())
        return done

    def close(self) -> None:
        """What is being read is read to its end, for nobody."""
        self._thread.shutdown(wait=False, cancel_futures=True)
