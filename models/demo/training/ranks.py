"""One training run by several processes, each with a GPU and pictures of its own.

Started by `python -m torch.distributed.run`, every process computes the gradients of its own
batches; they are averaged, so that all take the same step. Whatever is decided by a clock (the
rate, when to evaluate, when to stop) is decided by the first rank's, or one would wait for another
for ever. Started without it there is one rank, and nothing here does anything.

Knows nothing of what is trained. Numbers travel by gloo between the processors and gradients by
NCCL between the GPUs, so that agreeing on the time does not wait for a GPU.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Which of how many processes this is."""

    index: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.index == 0

    def agree(self, value: float) -> float:
        """The first rank's value, on all of them."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        distributed.broadcast(shared, 0)
        return float(shared)

    def total(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the ranks."""
        if self.count == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(shared)
        return [float(value) for value in shared]

    @torch.no_grad()
    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """One exchange for all parameters; one that got no gradient here counts as zero."""
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        _spread(flat.div_(self.count), gradients)

    @torch.no_grad()
    def align(self, parameters: Sequence[nn.Parameter]) -> None:
        """The first rank's parameters, to the bit, on all of them."""
        if self.count == 1:
            return
        flat = torch.cat([parameter.flatten() for parameter in parameters])
        distributed.broadcast(flat, 0)
        _spread(flat, parameters)


def join_ranks() -> tuple[Ranks, torch.device]:
    """This process's rank, from what its launcher set in the environment, and its device."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if count == 1:
        return Ranks(), device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        distributed.init_process_group("cpu:gloo,cuda:nccl")
    else:
        distributed.init_process_group("gloo")
    return Ranks(index=distributed.get_rank(), count=count), device


def leave_ranks(ranks: Ranks) -> None:
    if ranks.count > 1:
        distributed.destroy_process_group()


def _spread(flat: Tensor, parts: Sequence[Tensor]) -> None:
    """The pieces of `flat` back into the tensors they came from."""
    pieces = torch.split(flat, [part.numel() for part in parts])
    shaped = [piece.view_as(part) for piece, part in zip(pieces, parts, strict=True)]
    torch._foreach_copy_(list(parts), shaped)
