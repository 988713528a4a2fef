"""The memory of users' adapters: who has how much of it, and whether another one fits.

A GPU has a part set aside for them; on a host they take of what is free when they come. Asked by
the thread that reads adapters and by the engine's own.
"""

import threading
from collections.abc import Callable

from ixc_runtime.byte_sizes import size_text
from ixc_runtime.errors import MemoryLow
from ixc_runtime.model_info import AdapterInfo


class AdapterRoom:
    """`limit` bounds all adapters together; `free_bytes` is asked where it is None."""

    def __init__(self, device: str, *, limit: int | None, free_bytes: Callable[[], int]) -> None:
        self._device = device
        self._limit = limit
        self._free_bytes = free_bytes
        self._lock = threading.Lock()
        self._taken: dict[tuple[str, str], int] = {}  # by name and digest

    def take(self, adapter: AdapterInfo) -> bool:
        """Before it is put on the device; False if it has its room already. Raises MemoryLow."""
        with self._lock:
            key = (adapter.name, adapter.digest)
            if key in self._taken:
                return False
            self._require(adapter.num_bytes)
            self._taken[key] = adapter.num_bytes
            return True

    def give_back(self, adapter: AdapterInfo) -> None:
        with self._lock:
            self._taken.pop((adapter.name, adapter.digest), None)

    def _require(self, required: int) -> None:
        if self._limit is None:
            free, of = self._free_bytes(), self._device
        else:
            free = self._limit - sum(self._taken.values())
            of = f"the {size_text(self._limit)} of {self._device} that are for users' adapters"
        if required > free:
            limit = {} if self._limit is None else {"limit": self._limit}
            raise MemoryLow(
                f"the adapter takes {size_text(required)}; {size_text(free)} are free of {of}",
                required=required,
                free=free,
                **limit,
            )
