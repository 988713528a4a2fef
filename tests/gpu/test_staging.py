"""Arrays on their way to a busy device: many steps are staged before it comes to the first."""

import torch

from ixc_cuda.staging import Staging

_CYCLES = 100_000_000  # some 50 ms


def test_every_step_reads_what_was_staged_for_it() -> None:
    """Although the buffers take turns, and the device is far behind."""
    target = torch.zeros(1 << 16, dtype=torch.uint8, device="cuda")
    staging = Staging(target)
    torch.cuda._sleep(_CYCLES)  # type: ignore[no-untyped-call]
    read = []
    for step in range(20):
        staging.begin()[:] = step
        staging.copy()
        read.append(target.clone())

    for step, each in enumerate(read):
        assert each.unique().tolist() == [step]
