"""A disk that fails at its k-th operation, in one of the ways disks and machines fail.

`kill` and `lose` stand for a process that is gone: from then on nothing more happens on the disk,
whatever the program still tries. `lose` takes back, besides, what no fsync has confirmed: the bytes
of files that were written, as a power cut may.
"""

import errno
import inspect
import os
from collections.abc import Callable
from enum import Enum
from typing import Any

from ixc_runtime.models_root import Disk

OPERATIONS = tuple(
    name for name, _ in inspect.getmembers(Disk, inspect.isfunction) if not name.startswith("_")
)


class Fault(Enum):
    KILL = "kill"
    LOSE = "lose"  # killed, and unsynced bytes are gone
    ENOSPC = "enospc"
    EIO = "eio"


class Killed(BaseException):
    """In place of the end of the process."""


class FaultyDisk(Disk):
    """Counts its operations; `fail_at` None only counts."""

    def __init__(self, fault: Fault = Fault.KILL, fail_at: int | None = None) -> None:
        self.num_operations = 0
        self.failed: str | None = None  # the operation that did
        self._fault = fault
        self._fail_at = fail_at
        self._is_dead = False
        self._unsynced: dict[int, int] = {}  # descriptors of our own on written files, by inode

    def _before(self, name: str) -> None:
        if self._is_dead:
            raise Killed
        number = self.num_operations
        self.num_operations += 1
        if number != self._fail_at:
            return
        self.failed = name
        match self._fault:
            case Fault.ENOSPC:
                raise OSError(errno.ENOSPC, "No space left on device")
            case Fault.EIO:
                raise OSError(errno.EIO, "Input/output error")
            case Fault.LOSE:
                for descriptor in self._unsynced.values():
                    os.ftruncate(descriptor, 0)
        self._is_dead = True
        raise Killed

    def _after(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name not in ("write", "sync"):
            return
        inode = os.fstat(arguments[0]).st_ino
        if name == "write" and inode not in self._unsynced:
            self._unsynced[inode] = os.dup(arguments[0])  # which outlives the job's own
        elif name == "sync" and inode in self._unsynced:
            os.close(self._unsynced.pop(inode))

    def __del__(self) -> None:
        for descriptor in self._unsynced.values():
            os.close(descriptor)


def _faulty(name: str) -> Callable[..., Any]:
    original = getattr(Disk, name)

    def method(self: FaultyDisk, *arguments: Any, **options: Any) -> Any:
        if name == "close":  # a dead process's descriptors are closed for it
            os.close(arguments[0])
            return None
        self._before(name)
        result = original(self, *arguments, **options)
        self._after(name, arguments)
        return result

    return method


for _name in OPERATIONS:
    setattr(FaultyDisk, _name, _faulty(_name))
