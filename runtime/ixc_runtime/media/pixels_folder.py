"""A folder in shared memory for pixels on their way from a media worker to the engine.

Its owner holds a lock on it, which the kernel takes back when the owner dies, however it dies.
Whoever makes a new folder removes those without an owner, so that a killed server's pixels do not
fill the machine's memory for ever.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - memory shared by processes is what we want
_PREFIX = "ixc-pixels-"


class PixelsFolder:
    """Made by `create`, gone with `remove`. In memory where the system has such."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock: int | None = lock

    @classmethod
    def create(cls, parent: Path | None = None) -> "PixelsFolder":
        if parent is None:
            shared = _SHARED_MEMORY.is_dir()
            parent = _SHARED_MEMORY if shared else Path(tempfile.gettempdir())
        _remove_abandoned(parent)
        while True:
            path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            lock = _locked(path)
            if lock is not None and path.exists():
                return cls(path, lock)
            if lock is not None:  # another server has cleaned up between two of our lines
                os.close(lock)

    def remove(self) -> None:
        """May be said again."""
        lock, self._lock = self._lock, None
        if lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(lock)


def _remove_abandoned(parent: Path) -> None:
    for path in parent.glob(f"{_PREFIX}*"):
        lock = _locked(path)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _locked(path: Path) -> int | None:
    """A descriptor that holds the folder's lock; None if it has an owner, is not ours, or gone."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
        else:
            return descriptor
    return None
