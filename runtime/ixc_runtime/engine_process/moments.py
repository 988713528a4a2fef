"""How long a device has worked on something, while the host is already at something else.

A moment is put between what is launched before it and after it. On a GPU it is an event, which can
be read once work behind it has come back; asking sooner waits for it.
"""

import time
from typing import Protocol, Self

import torch


class Moment(Protocol):
    def seconds_since(self, earlier: Self) -> float: ...


class HostMoment:
    """Where every operation is done when its call returns."""

    def __init__(self) -> None:
        self._at = time.perf_counter()

    def seconds_since(self, earlier: "HostMoment") -> float:
        return self._at - earlier._at


class DeviceMoment:
    """In the device's current stream."""

    def __init__(self) -> None:
        self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._event.record()

    def seconds_since(self, earlier: "DeviceMoment") -> float:
        self._event.synchronize()
        return float(earlier._event.elapsed_time(self._event)) / 1000


def moment(device: torch.device) -> HostMoment | DeviceMoment:
    """Now, in the order of the device's work."""
    return DeviceMoment() if device.type == "cuda" else HostMoment()
