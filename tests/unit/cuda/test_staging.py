"""Arrays on their way to one place on the device, with that place on a CPU."""

import torch

from ixc_cuda.staging import Staging


def test_what_was_filled_in_arrives() -> None:
    """All of it, or its first bytes; what lies behind those stays what it was."""
    target = torch.zeros(6, dtype=torch.uint8)
    staging = Staging(target)
    staging.begin()[:] = range(1, 7)
    staging.copy()
    assert target.tolist() == [1, 2, 3, 4, 5, 6]
    staging.begin()[:] = 9
    staging.copy(2)
    assert target.tolist() == [9, 9, 3, 4, 5, 6]


def test_memory_that_was_handed_out_is_left_alone_for_some_steps() -> None:
    """The device may read it a step or two later."""
    staging = Staging(torch.zeros(2, dtype=torch.uint8))
    handed_out = []
    for step in range(4):
        memory = staging.begin()
        memory[:] = step
        staging.copy()
        handed_out.append(memory)
        assert [each[0] for each in handed_out] == list(range(step + 1))


def test_memory_that_was_begun_and_not_sent() -> None:
    """A step that is given up on the way sends nothing, and the next one is as ever."""
    target = torch.zeros(2, dtype=torch.uint8)
    staging = Staging(target)
    staging.begin()[:] = 5
    staging.begin()[:] = 6
    staging.copy()
    assert target.tolist() == [6, 6]
