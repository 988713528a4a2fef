"""Long work on weights, each piece in a process of its own: begun, followed, stopped, proved.

    messages.py   what the process is told, and what it says
    progress.py   fraction and time left, from stages and items
    output.py     tensors into a staged folder, as safetensors
    preflight.py  what can be known of a job before any work
    verdict.py    whether its result is good enough
    work.py       the job itself: read, make, read back, compare, publish
    worker.py     `python -m ixc_runtime.jobs.worker FD`: the process around it
    host.py       the asyncio side: start one, hear from it, stop it

The arithmetic is `ixc_runtime.weights`, names and files are `ixc_runtime.models_root`. Of these
modules `output`, `work` and `worker` need torch; a front end imports the others.
"""

from ixc_runtime.jobs.host import JobProcess
from ixc_runtime.jobs.messages import (
    JobEvent,
    JobResult,
    JobSpec,
    Logged,
    MergeResult,
    MergeWork,
    Metric,
    Progress,
    QuantizeResult,
    QuantizeWork,
    Resumed,
    SampleSpec,
    Severity,
    recorded_result,
)

__all__ = [
    "JobEvent",
    "JobProcess",
    "JobResult",
    "JobSpec",
    "Logged",
    "MergeResult",
    "MergeWork",
    "Metric",
    "Progress",
    "QuantizeResult",
    "QuantizeWork",
    "Resumed",
    "SampleSpec",
    "Severity",
    "recorded_result",
]
