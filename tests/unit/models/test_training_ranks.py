"""Training by two processes: they stay the same, and do what one would with both their batches."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, multiprocessing, nn
from torch.nn import functional

from models.demo.training.batches import Batch
from models.demo.training.loop import ALONE, Group, Plan, run
from models.demo.training.ranks import Ranks, join_ranks, leave_ranks

STEPS = 6
PLAN = Plan(total_seconds=1.0, stop_seconds=1.0, batches_per_step=1, log_every=10**6)


def batch_of(seed: int) -> Batch:
    """Eight numbers in, one out: what the toy learns hides in the ids and targets."""
    ids = torch.randint(0, 9, (16, 8), generator=torch.Generator().manual_seed(seed))
    none = torch.zeros(0, dtype=torch.long)
    return Batch(
        token_ids=ids, positions=none, targets=ids.sum(1), weights=torch.ones(16), image=None,
        cells=none, letters=none, tasks=("toy",) * 16,
    )  # fmt: skip


def joined(batches: list[Batch]) -> Batch:
    return dataclasses.replace(
        batches[0],
        token_ids=torch.cat([one.token_ids for one in batches]),
        targets=torch.cat([one.targets for one in batches]),
        tasks=sum((one.tasks for one in batches), ()),
    )


class Clock:
    """Stands still until the steps are done, then is far beyond the plan's end."""

    def __init__(self) -> None:
        self.batches_given = 0

    def monotonic(self) -> float:
        return 1000.0 if self.batches_given >= STEPS else 0.3


def train(ranks: Ranks, folder: Path, patch: pytest.MonkeyPatch) -> nn.Module:
    torch.manual_seed(1 + ranks.index)  # unlike starts: the first rank's is everybody's
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
    clock = Clock()
    patch.setattr("models.demo.training.loop.time", clock)

    def data() -> Iterator[Batch]:
        for step in range(10**6):
            every = [batch_of(2 * step + rank) for rank in range(2)]
            yield every[ranks.index] if ranks.count == 2 else joined(every)

    def loss(batch: Batch) -> Tensor:
        clock.batches_given += 1
        found = model(batch.token_ids.float())[:, 0]
        return functional.mse_loss(found, batch.targets.float())

    groups = [
        Group(modules=(model[0],), rate=1e-2, by_muon=True),
        Group(modules=(model[2],), rate=1e-2),
    ]
    done = run(PLAN, groups, data(), loss, checkpoint=folder / "run", ranks=ranks)
    assert done.steps == STEPS
    return model


def one_of_two(index: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": f"{index}", "LOCAL_RANK": f"{index}", "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": (folder / "port").read_text()}
    ranks, _ = join_ranks()
    with pytest.MonkeyPatch.context() as patch:
        model = train(ranks, folder, patch)
    assert ranks.total([index + 1.0]) == [3.0]
    torch.save(model.state_dict(), folder / f"{index}.pt")
    leave_ranks(ranks)


def test_two_ranks_take_the_steps_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit-equal to each other after some steps, and near one process with the joined batches."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    (tmp_path / "port").write_text(f"{free_port()}")
    (tmp_path / "alone").mkdir()
    alone = train(ALONE, tmp_path / "alone", monkeypatch).state_dict()
    monkeypatch.undo()
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    multiprocessing.spawn(one_of_two, (tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f"{index}.pt") for index in range(2))
    for name, expected in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], expected, atol=2e-3, rtol=2e-3)


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was being written when it was killed is not taken for a checkpoint."""
    trained = train(ALONE, tmp_path, monkeypatch)
    (tmp_path / "run" / "part-99-0.safetensors").write_bytes(b"half a file")
    (tmp_path / "run" / "progress.new").write_text("{")
    fresh = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
    groups = [Group(modules=(fresh[0], fresh[2]), rate=1e-2)]
    done = run(PLAN, groups, iter(()), lambda _: torch.zeros(()), checkpoint=tmp_path / "run")
    assert done.steps == STEPS
    for name, expected in trained.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], expected)


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
