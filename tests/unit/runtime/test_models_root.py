"""The models root: what an interruption at any moment leaves behind."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ixc_runtime.errors import (
    CheckpointInvalid,
    DiskFault,
    DiskSpaceLow,
    JobCancelled,
    JobFault,
    ModelIdTaken,
)
from ixc_runtime.jobs.messages import JobSpec, MergeWork, Metric, Resumed
from ixc_runtime.models_root import MANIFEST_NAME, Disk, ModelsRoot
from tests.fakes.faulty_disk import Fault, FaultyDisk, Killed
from tests.fakes.interrupted_job import (
    NoExchange,
    Quiet,
    check_faults,
    count_operations,
    interrupt,
    job,
    make,
    verified,
)
from tests.fakes.synthetic_job import run_synthetic
from tests.fakes.tiny_models_root import tree


@pytest.mark.parametrize("disk_class", [FaultyDisk, NoExchange])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("fault", Fault)
def test_a_fault_at_an_operation(
    tmp_path: Path, fault: Fault, overwrite: bool, disk_class: type[FaultyDisk]
) -> None:
    """A sample of what tests/faults/test_job_faults.py does at every one."""
    first = 2 * list(Fault).index(fault) + overwrite
    done = check_faults(
        tmp_path,
        fault,
        lambda total: range(first, total, 13),
        overwrite=overwrite,
        disk_class=disk_class,
    )
    assert done >= 4


@pytest.mark.parametrize("fault", [Fault.KILL, Fault.LOSE])
def test_a_dead_job_that_nobody_takes_up(tmp_path: Path, fault: Fault) -> None:
    """Leaves nothing once the next start has cleared up, whenever it died."""
    total = count_operations(make(tmp_path / "count"))
    for k in range(fault is Fault.LOSE, total, 5):
        root = make(tmp_path / f"at-{k}")
        interrupt(root, FaultyDisk(fault, fail_at=k))
        ModelsRoot(root).recover("us")
        jobs = root / ".ixc-jobs"
        assert not jobs.exists() or list(jobs.iterdir()) == [], k
        assert verified(root) in (None, "job-2"), k


@pytest.mark.parametrize("fault", [Fault.KILL, Fault.EIO])
def test_clearing_up_that_is_interrupted(tmp_path: Path, fault: Fault) -> None:
    """Is done by the next start; the new model stays whole, whatever the moment."""

    def staged(name: str) -> Path:
        root = make(tmp_path / name)
        run_synthetic(job(root), Quiet())
        ModelsRoot(root).discard("job-1")
        run_synthetic(job(root, overwrite=True, number=2), Quiet())
        return root

    disk = FaultyDisk()
    ModelsRoot(staged("count"), disk).discard("job-2")
    for k in range(0, disk.num_operations, 2):
        root = staged(f"at-{k}")
        with pytest.raises((Killed, JobFault)):
            ModelsRoot(root, FaultyDisk(fault, fail_at=k)).discard("job-2")
        ModelsRoot(root).recover("us")
        assert list((root / ".ixc-jobs").iterdir()) == [], k
        assert verified(root) == "job-2", k


def test_what_an_interrupted_job_had_finished(tmp_path: Path) -> None:
    """Is taken over after its digest was checked; what does not read back is written anew."""
    root = make(tmp_path)
    models = ModelsRoot(root)
    with pytest.raises(JobCancelled):
        run_synthetic(job(root), Cancelling(after_files=2))
    kept = root / ".ixc-jobs" / "job-1" / "model"
    assert sorted(path.name for path in kept.iterdir()) == ["a.bin", "config.json"]
    (kept / "a.bin").write_bytes(b"not what was written")
    teller = Quiet()
    run_synthetic(job(root), teller)
    assert [event.kept_files for event in teller.events if isinstance(event, Resumed)] == [1]
    models.discard("job-1")
    assert verified(root) == "job-1"


class Cancelling(Quiet):
    """Cancels once so many files are finished."""

    def __init__(self, *, after_files: int) -> None:
        super().__init__()
        self._after_files = after_files

    def check(self) -> None:
        if sum(isinstance(event, Metric) for event in self.events) >= self._after_files:
            raise JobCancelled("cancelled")


def test_other_work_under_the_same_job(tmp_path: Path) -> None:
    """Nothing of it is taken over."""
    root = make(tmp_path)
    with pytest.raises(JobCancelled):
        run_synthetic(job(root), Cancelling(after_files=2))
    teller = Quiet()
    other = job(root)
    changed = JobSpec(
        **{
            **{f: getattr(other, f) for f in other.__struct_fields__},
            "work": MergeWork(task="write"),
        }
    )
    run_synthetic(changed, teller)
    assert [e.kept_files for e in teller.events if type(e).__name__ == "Resumed"] == [0]


def test_leftovers_of_others(tmp_path: Path) -> None:
    """Another server's jobs, jobs that a process is at, and what is not ours are left alone."""
    root = make(tmp_path)
    models = ModelsRoot(root)
    with pytest.raises(JobCancelled):
        run_synthetic(job(root), Cancelling(after_files=1))
    assert models.recover("somebody else") == []
    strange = root / ".ixc-jobs" / "strange"
    strange.mkdir()
    (strange / "thesis.txt").write_text("mine")
    assert models.recover("us") == ["job-1"]
    assert (strange / "thesis.txt").read_text() == "mine"
    assert [path.name for path in (root / ".ixc-jobs").iterdir()] == ["strange"]


def test_a_job_that_a_process_is_at(tmp_path: Path) -> None:
    """Is not cleared away under it."""
    root = make(tmp_path)

    class Looking(Quiet):
        def check(self) -> None:
            if self.events and isinstance(self.events[-1], Metric):
                assert ModelsRoot(root).recover("us") == []

    run_synthetic(job(root), Looking())
    assert verified(root) == "job-1"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda made: (made / "notes.txt").write_text("mine"),
        lambda made: (made / "a.bin").write_bytes(b"changed"),
        lambda made: (made / "a.bin").unlink(),
        lambda made: (made / "ixc-manifest.json").unlink(),
        lambda made: (made / "ixc-manifest.json").write_text("{}"),
        lambda made: (made / "sub").mkdir(),
    ],
    ids=["a file added", "one changed", "one gone", "no manifest", "another manifest", "a folder"],
)
def test_a_model_that_is_not_as_we_made_it(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    """Is not replaced: something in it may be somebody's."""
    root = make(tmp_path)
    run_synthetic(job(root), Quiet())
    ModelsRoot(root).discard("job-1")
    spoil(root / "made")
    before = tree(root / "made")
    with pytest.raises(ModelIdTaken):
        run_synthetic(job(root, overwrite=True, number=2), Quiet())
    ModelsRoot(root).discard("job-2")
    assert tree(root / "made") == before


def test_files_put_into_a_model_while_it_is_replaced(tmp_path: Path) -> None:
    """Are not deleted with it."""
    root = make(tmp_path)
    run_synthetic(job(root), Quiet())
    ModelsRoot(root).discard("job-1")
    run_synthetic(job(root, overwrite=True, number=2), Quiet())
    late = root / ".ixc-jobs" / "job-2" / "model" / "late.txt"
    late.write_text("mine")
    ModelsRoot(root).discard("job-2")
    assert late.read_text() == "mine"
    assert [path.name for path in late.parent.iterdir()] == ["late.txt"]


def test_a_model_that_appears_at_the_last_moment(tmp_path: Path) -> None:
    """Keeps the name; the job does not claim to have published."""
    root = make(tmp_path)
    staged = root / ".ixc-jobs" / "job-1" / "model" / MANIFEST_NAME

    class Rival(Disk):
        """Somebody takes the name as soon as it was seen to be free for the finished model."""

        def stat(self, folder: int, name: str) -> os.stat_result | None:
            found = super().stat(folder, name)
            if name == "made" and found is None and staged.exists():
                (root / "made").mkdir()
            return found

    with pytest.raises(ModelIdTaken):
        run_synthetic(job(root), Quiet(), Rival())
    ModelsRoot(root).discard("job-1")
    assert list((root / "made").iterdir()) == []


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    """Does not hide the models beside it."""

    class Closed(Disk):
        def open_folder(self, parent: int, name: str) -> int:
            if name == "closed":
                raise PermissionError(errno.EACCES, "closed")
            return super().open_folder(parent, name)

    root = make(tmp_path)
    (root / "closed").mkdir()
    assert [model.model_id for model in ModelsRoot(root, Closed()).models()] == ["source"]


def test_a_manifest_that_leads_out_of_its_folder(tmp_path: Path) -> None:
    """Is not followed: neither size nor digest of that file is told."""
    root = make(tmp_path)
    run_synthetic(job(root), Quiet())
    (root / "secret").write_text("a secret")
    path = root / "made" / MANIFEST_NAME
    path.write_bytes(path.read_bytes().replace(b"a.bin", b"../secret"))
    with pytest.raises(CheckpointInvalid, match="1 files of"):
        ModelsRoot(root).verify("made")


def test_too_little_space(tmp_path: Path) -> None:
    """Is said before anything is written, with both figures."""

    class SmallDisk(Disk):
        def free_bytes(self, folder: int) -> int:
            return 1 << 30

    models = ModelsRoot(make(tmp_path), SmallDisk())
    models.check_space(1 << 29)
    with pytest.raises(DiskSpaceLow) as raised:
        models.check_space(1 << 30)
    assert int(raised.value.metadata["required"]) > int(raised.value.metadata["free"]) == 1 << 30


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    """Is a fault of the disk, and names no path."""
    with pytest.raises(DiskFault) as raised:
        ModelsRoot(tmp_path / "none").models()
    assert str(tmp_path) not in str(raised.value)
