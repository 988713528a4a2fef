"""Every operation on files of a job, failing in every way: nothing torn, nothing lost, nothing else
touched, and the job can be done again.
"""

from pathlib import Path

import pytest
from msgspec.structs import replace

from ixc_runtime.jobs.messages import JobResult, JobSpec, QuantizeWork, SampleSpec
from ixc_runtime.jobs.work import run_job
from ixc_runtime.jobs.worker import Teller
from ixc_runtime.models_root import Disk
from tests.fakes.faulty_disk import Fault, FaultyDisk
from tests.fakes.interrupted_job import NoExchange, check_faults
from tests.fakes.tiny_models_root import LOOSE, SOURCE, write_models_root

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("disk_class", [FaultyDisk, NoExchange])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("fault", Fault)
def test_a_fault_at_every_operation(
    tmp_path: Path, fault: Fault, overwrite: bool, disk_class: type[FaultyDisk]
) -> None:
    """Of a job without arithmetic, with and without a model to replace."""
    done = check_faults(tmp_path, fault, range, overwrite=overwrite, disk_class=disk_class)
    assert done > 50
    print(f"{fault.value}: {done} operations")


@pytest.mark.parametrize("fault", Fault)
def test_a_fault_at_every_operation_of_a_merge(tmp_path: Path, fault: Fault) -> None:
    """The real job, on a tiny model: reading its inputs, writing shards, publishing."""

    def make_root(root: Path) -> Path:
        write_models_root(root, hidden=32, intermediate=32, heads=2, kv_heads=1, layers=1)
        (root / SOURCE).rename(root / "source")
        return root

    done = check_faults(
        tmp_path,
        fault,
        range,
        overwrite=False,
        disk_class=FaultyDisk,
        run=run_job,
        make_root=make_root,
    )
    assert done > 100
    print(f"{fault.value}: {done} operations")


@pytest.mark.parametrize("fault", Fault)
def test_a_fault_at_every_operation_of_a_quantisation(tmp_path: Path, fault: Fault) -> None:
    """The real job, search included; a layer that is finished is not rounded again."""
    sample = SampleSpec(text="A few words to calibrate with, said more than once or twice. " * 3)
    work = replace(QuantizeWork(samples=(sample,), group_size=32), **LOOSE)

    def make_root(root: Path) -> Path:
        sizes = {"hidden": 32, "intermediate": 32, "heads": 2, "kv_heads": 1, "tower": None}
        write_models_root(root, **sizes)
        (root / SOURCE).rename(root / "source")
        return root

    def quantise(spec: JobSpec, teller: Teller, disk: Disk | None) -> JobResult:
        return run_job(replace(spec, work=work), teller, disk)

    done = check_faults(
        tmp_path,
        fault,
        range,
        overwrite=False,
        disk_class=FaultyDisk,
        run=quantise,
        make_root=make_root,
    )
    assert done > 150
    print(f"{fault.value}: {done} operations")
