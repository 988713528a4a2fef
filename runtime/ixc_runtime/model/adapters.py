"""Which rows of a step take which adapter: images' own (partial LoRA), and the task's.

The image adapter applies to the rows of image tokens, separators included, whatever the task. A
task adapter applies to every row of its sequence, image rows too. Both may meet in one row.
"""

from ixc_runtime.model.batch import StepBatch
from ixc_runtime.model.linear import Route

# Beside the names requests use: "web", "write", and those of adapters loaded later. The brackets
# keep it apart from all of them.
IMAGE = "(image)"


def plan_routes(batch: StepBatch, available: frozenset[str]) -> tuple[Route, ...]:
    """Routes of this step, task adapters first. An absent adapter is the caller's bug."""
    wanted = [(name, rows) for name, rows in batch.adapter_rows if rows.numel()]
    if IMAGE in available and batch.image_rows.numel():
        wanted.append((IMAGE, batch.image_rows))
    for name, _ in wanted:
        if name not in available:
            raise ValueError(f"adapter {name} is not loaded; {sorted(available)} are")
    return tuple(
        Route(adapter=name, rows=None if rows.numel() == batch.num_rows else rows)
        for name, rows in wanted
    )
