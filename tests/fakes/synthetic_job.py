"""A job without arithmetic: the process, the staged files and the publication are the real ones.

    monkeypatch.setattr("ixc_runtime.jobs.host.WORKER_MODULE", "tests.fakes.synthetic_job")

It writes three files. A file `hold-NAME` in the source's folder makes it wait before that step,
NAME being start, 1, 2, 3, publish or told; `die-NAME` makes it die there, and is removed by that
unless it says "always". It needs no torch, so it starts in a tenth of the time.
"""

import os
import time
from pathlib import Path

from ixc_runtime.jobs.messages import (
    JobResult,
    JobSpec,
    Metric,
    Resumed,
    recorded_result,
)
from ixc_runtime.jobs.progress import Meter, Stage
from ixc_runtime.jobs.worker import Teller, main
from ixc_runtime.models_root import Disk, Manifest, ModelsRoot
from ixc_runtime.models_root.manifest import Origin, verify_files
from ixc_runtime.models_root.staging import Mark

_LOOK_SECONDS = 0.005
STAGES = (Stage(name="writing", weight=1), Stage(name="publishing", weight=1))
RESULT = {
    "summary": {
        "merged": "web",
        "dtype": "float32",
        "num_tensors": 3,
        "num_merged": 2,
        "num_bytes": 30,
        "num_shards": 3,
        "num_resumed_shards": 0,
    },
    "figures": {
        "dtype": "float32",
        "text": {"positions": 9, "max_difference": 0.0, "scale": 1.0, "top1_agreement": 1.0},
        "image": None,
    },
}


def run_synthetic(spec: JobSpec, teller: Teller, disk: Disk | None = None) -> JobResult:
    root = ModelsRoot(Path(spec.root), disk)
    if (made := root.published(spec.job, spec.output)) is not None:
        return recorded_result(made)
    source = root.path / spec.source
    meter = Meter(STAGES, teller.tell, clock=time.monotonic)
    meter.begin(0)
    _wait(source, "start", teller)
    mark = Mark(job=spec.job, owner=spec.owner, output=spec.output, identity=repr(spec.work))
    root.check_output(spec.output, overwrite=spec.overwrite)
    with root.stage(mark) as staging:
        teller.tell(Resumed(kept_files=len(staging.files), kept_bytes=staging.num_bytes))
        for number, name in enumerate(("config.json", "a.bin", "b.bin"), start=1):
            _wait(source, str(number), teller)
            if not staging.has(name):
                staging.write(name, [b"{}" if name == "config.json" else name.encode() * 100])
            teller.tell(Metric(layer=name, name="size", value=1.0))
            meter.item(name, done=number, total=3)
            while (source / "deaf").exists():  # busy with something that cannot be interrupted
                time.sleep(_LOOK_SECONDS)
        verify_files(staging.disk, staging.model, staging.files)
        meter.begin(1)
        _wait(source, "publish", teller)
        replaced = root.check_output(spec.output, overwrite=spec.overwrite)
        manifest = Manifest(
            job=spec.job,
            kind="merge",
            model=spec.output,
            create_time="2026-01-01T00:00:00Z",
            made_with={},
            source=Origin(name=spec.source, files={}),
            settings={},
            result={**RESULT, "replaced": replaced},
            files=dict(staging.files),
        )
        result = recorded_result(root.publish(staging, manifest, overwrite=spec.overwrite))
        _wait(source, "told", teller)
        return result


def _wait(source: Path, step: str, teller: Teller) -> None:
    die = source / f"die-{step}"
    if die.exists():
        if die.read_text() != "always":
            die.unlink()
        os._exit(9)
    while (source / f"hold-{step}").exists():
        teller.check()
        time.sleep(_LOOK_SECONDS)
    teller.check()


if __name__ == "__main__":
    main(run_synthetic)
