"""Tests of this folder need a GPU that our kernels run on, and skip themselves where none is."""

from pathlib import Path

import pytest

from ixc_cuda.device import DeviceRefused, check_device


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mine = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    reason = _why_not() if mine else None
    for item in mine:
        item.add_marker(pytest.mark.gpu)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


def _why_not() -> str | None:
    try:
        check_device(0)
    except DeviceRefused as refused:
        return str(refused)
    return None
