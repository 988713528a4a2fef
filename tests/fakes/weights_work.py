"""What work on weights needs around it, at its plainest: a folder, an ear, passages to run."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ixc_runtime.weights.walk import Passage


class FolderOutput:
    """Writes into a folder as it is. `fail_at`: the disk is full when that shard is written."""

    def __init__(self, folder: Path, *, fail_at: str | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.written: list[str] = []
        self._fail_at = fail_at

    def write_shard(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        if name == self._fail_at:
            raise OSError(28, "No space left on device")
        assert all(tensor.device.type == "cpu" for tensor in tensors.values())
        save_file(dict(tensors), self.folder / name, {"format": "pt"})
        self.written.append(name)

    def write_json(self, name: str, document: object) -> None:
        (self.folder / name).write_text(json.dumps(document))

    def copy(self, source: Path) -> None:
        shutil.copy(source, self.folder / source.name)

    def has_shard(self, name: str) -> bool:
        return (self.folder / name).is_file()


class Notes:
    """A Report that remembers."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int, int]] = []
        self.items: list[tuple[str, int, int]] = []
        self.metrics: dict[tuple[str, str], float] = {}

    def stage(self, name: str, *, index: int, count: int) -> None:
        self.stages.append((name, index, count))

    def item(self, name: str, *, done: int, total: int) -> None:
        self.items.append((name, done, total))

    def metric(self, *, layer: str, name: str, value: float) -> None:
        self.metrics[layer, name] = value

    def log(self, text: str) -> None:
        pass


def digests(folder: Path) -> dict[str, str]:
    """Every file's name and SHA-256."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def text_passage(length: int, *, vocab: int, seed: int = 0, adapter: str = "base") -> Passage:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocab, (length,), generator=generator).tolist()
    return Passage(token_ids=tuple(ids), adapter=adapter, judged=slice(0, length - 1))


def image_passage(
    length: int, *, vocab: int, tile_size: int, grid: int, seed: int = 0, adapter: str = "base"
) -> Passage:
    """One tile of noise, then random tokens, all but the last of which are judged."""
    text = text_passage(length, vocab=vocab, seed=seed).token_ids
    generator = torch.Generator().manual_seed(seed)
    canvas = torch.randint(
        0, 256, (tile_size, tile_size, 3), dtype=torch.uint8, generator=generator
    )
    side = grid // 2
    num_image = 2 * side * side + 1 + 2 * side
    return Passage(
        token_ids=(*[-1] * num_image, *text),
        canvases=(canvas,),
        adapter=adapter,
        judged=slice(num_image, num_image + length - 1),
    )


def tiny_passages(*, vocab: int = 320, adapter: str = "base") -> tuple[Passage, ...]:
    """For the checkpoints of `tiny_checkpoint`, whose tiles are 4 x 4 patches of 14 pixels."""
    return (
        text_passage(40, vocab=vocab, seed=1, adapter=adapter),
        text_passage(23, vocab=vocab, seed=2, adapter=adapter),
        image_passage(20, vocab=vocab, tile_size=56, grid=4, seed=3, adapter=adapter),
    )
