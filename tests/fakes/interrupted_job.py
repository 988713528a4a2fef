"""A job under a disk that fails, and what must hold afterwards whatever it was that failed."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from ixc_runtime.errors import RuntimeFault
from ixc_runtime.jobs.messages import JobEvent, JobResult, JobSpec, MergeWork
from ixc_runtime.jobs.worker import Teller
from ixc_runtime.models_root import Disk, ModelsRoot
from tests.fakes.faulty_disk import Fault, FaultyDisk, Killed
from tests.fakes.synthetic_job import run_synthetic
from tests.fakes.tiny_models_root import tree

Run = Callable[[JobSpec, Teller, Disk | None], JobResult]
MakeRoot = Callable[[Path], Path]


class Quiet:
    """A Teller that can be told to cancel."""

    def __init__(self) -> None:
        self.events: list[JobEvent] = []

    def tell(self, event: JobEvent) -> None:
        self.events.append(event)

    def check(self) -> None:
        pass


def make(root: Path) -> Path:
    source = root / "source"
    source.mkdir(parents=True)
    (source / "config.json").write_text("{}")
    return root


def job(root: Path, *, output: str = "made", overwrite: bool = False, number: int = 1) -> JobSpec:
    return JobSpec(
        job=f"job-{number}",
        owner="us",
        root=str(root),
        source="source",
        output=output,
        overwrite=overwrite,
        work=MergeWork(task="web"),
        threads=1,
    )


def neighbours(root: Path) -> dict[str, bytes]:
    """All that is no business of the job's."""
    return {
        path: content
        for path, content in tree(root).items()
        if not path.startswith((".ixc-jobs/", "made/"))
    }


def verified(root: Path, name: str = "made") -> str | None:
    """The job that made the model of this name, which is whole; None if there is nothing."""
    if not (root / name).exists():
        return None
    return ModelsRoot(root).verify(name).job


def count_operations(
    root: Path,
    *,
    overwrite: bool = False,
    disk_class: type[FaultyDisk] = FaultyDisk,
    run: Run = run_synthetic,
) -> int:
    disk = disk_class()
    run(job(root, overwrite=overwrite, number=2), Quiet(), disk)
    return disk.num_operations


class NoExchange(FaultyDisk):
    """A file system on which folders cannot swap places, nor names be claimed."""

    def exchange(self, *arguments: object) -> bool:
        return False


def interrupt(
    root: Path, disk: FaultyDisk, *, overwrite: bool = False, run: Run = run_synthetic
) -> None:
    """The job under this disk, and then what its host does: discard if it failed, nothing if the
    machine is gone.
    """
    try:
        run(job(root, overwrite=overwrite, number=2), Quiet(), disk)
    except Killed:
        pass
    except (RuntimeFault, OSError):
        ModelsRoot(root).discard("job-2")


def check_faults(
    folder: Path,
    fault: Fault,
    operations: Callable[[int], Iterable[int]],
    *,
    overwrite: bool,
    disk_class: type[FaultyDisk],
    run: Run = run_synthetic,
    make_root: MakeRoot = make,
) -> int:
    """At each of `operations` (of so many) of a job: afterwards its name stands for nothing or for
    a whole model, nothing else has changed, and the job can be done again. Returns how many.
    """

    def fresh(name: str) -> Path:
        root = make_root(folder / name)
        if overwrite:
            run(job(root), Quiet(), None)
            ModelsRoot(root).discard("job-1")
        return root

    total = count_operations(fresh("count"), overwrite=overwrite, disk_class=disk_class, run=run)
    before_it = "job-1" if overwrite else None
    chosen = list(operations(total))
    for k in chosen:
        root = fresh(f"at-{k}")
        before = neighbours(root)
        disk = disk_class(fault, fail_at=k)
        interrupt(root, disk, overwrite=overwrite, run=run)
        where = f"{disk.failed} at {k}"
        ModelsRoot(root).recover("us", keep=frozenset({"job-2"}))
        assert verified(root) in (before_it, "job-2"), where
        assert neighbours(root) == before, where
        result = run(job(root, overwrite=overwrite, number=2), Quiet(), None)
        assert result.published.model == "made", where
        ModelsRoot(root).discard("job-2")
        assert verified(root) == "job-2", where
        assert neighbours(root) == before, where
        assert list((root / ".ixc-jobs").iterdir()) == [], where
        shutil.rmtree(root)
    return len(chosen)
