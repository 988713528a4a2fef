"""Every operation on files of a job, failing in every way: nothing torn, nothing lost, nothing else
touched, and the job can be done again.
"""

from pathlib import Path

import pytest

from ixc_runtime.jobs.work import run_job
from tests.fakes.faulty_disk import Fault, FaultyDisk
from tests.fakes.interrupted_job import NoExchange, check_faults
from tests.fakes.tiny_models_root import SOURCE, write_models_root

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
