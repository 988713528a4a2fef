"""Captures that fail, beside such that do not."""

from collections.abc import Callable

import pytest
import torch

from ixc_runtime.engine_process.graph_capture import Capturing

pytestmark = pytest.mark.gpu


def raises() -> None:
    torch.ones(3, device="cuda")
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("on purpose")


def waits() -> None:
    """What no capture allows."""
    torch.ones(3, device="cuda").sum().item()


@pytest.mark.parametrize(("work", "message"), [(raises, "on purpose"), (waits, "captur")])
def test_a_capture_that_fails(work: Callable[[], None], message: str) -> None:
    """The error is its own and says what was captured; the stream is the one of before, and
    usable.
    """
    before = torch.cuda.current_stream()
    capturing = Capturing(torch.device("cuda"))
    with (
        capturing.session(),
        pytest.raises(RuntimeError, match=message) as caught,
    ):
        capturing.capture("something", work)
    assert "while capturing something" in caught.value.__notes__
    assert torch.cuda.current_stream() == before
    assert torch.ones(3, device="cuda").sum().item() == 3


def test_captured_works_share_their_memory() -> None:
    """Each replay works on what is there then."""
    x, y = torch.zeros(4, device="cuda"), torch.zeros(4, device="cuda")
    capturing = Capturing(torch.device("cuda"))
    with capturing.session():
        doubled = capturing.capture("doubling", lambda: y.copy_((x + 1) * 2))
        counted = capturing.capture("counting", lambda: y.copy_((x + 2) * 3))
    x.fill_(3.0)
    doubled.replay()
    assert y.tolist() == [8.0] * 4
    counted.replay()
    assert y.tolist() == [15.0] * 4
