"""Every operation on files that a job makes, one method each: the seam where tests let them fail.

Folders are held open and named by descriptor, files by one name in such a folder, and no link is
ever followed: whoever swaps a folder for a link while a job runs changes nothing of where it
writes. Knows nothing of models.
"""

import ctypes
import errno
import fcntl
import os
import shutil
from pathlib import Path

_NOREPLACE = 1
_EXCHANGE = 2
# What a kernel or a file system answers that has no such rename.
_UNKNOWN_RENAME = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER_MODE = 0o755
_FILE_MODE = 0o644

_libc = ctypes.CDLL(None, use_errno=True)


class Disk:
    # ---- folders

    def open_root(self, path: Path) -> int:
        """The one folder that is named by a path, and may be behind a link: its owner's choice."""
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def open_folder(self, parent: int, name: str) -> int:
        return os.open(name, _FOLDER, dir_fd=parent)

    def make_folder(self, parent: int, name: str) -> None:
        os.mkdir(name, _FOLDER_MODE, dir_fd=parent)

    def remove_folder(self, parent: int, name: str) -> None:
        os.rmdir(name, dir_fd=parent)

    def names(self, folder: int) -> list[str]:
        return sorted(os.listdir(folder))

    def free_bytes(self, folder: int) -> int:
        return shutil.disk_usage(folder).free

    # ---- files

    def create(self, folder: int, name: str) -> int:
        """A new file to write; there must not be one."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, _FILE_MODE, dir_fd=folder)

    def open_to_append(self, folder: int, name: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, _FILE_MODE, dir_fd=folder)

    def open_to_read(self, folder: int, name: str, *, follow: bool = False) -> int:
        """`follow` is for folders outside any root, which their owner has named by a path."""
        # A pipe in the place of a file must not make us wait.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        return os.open(name, flags, dir_fd=folder)

    def write(self, file: int, data: bytes | memoryview) -> None:
        """All of it."""
        view = memoryview(data).cast("B")
        while view:
            view = view[os.write(file, view) :]

    def read(self, file: int, size: int) -> bytes:
        return os.read(file, size)

    def sync(self, file_or_folder: int) -> None:
        os.fsync(file_or_folder)

    def close(self, file_or_folder: int) -> None:
        os.close(file_or_folder)

    def unlink(self, folder: int, name: str) -> None:
        os.unlink(name, dir_fd=folder)

    def stat(self, folder: int, name: str) -> os.stat_result | None:
        """Of the entry itself, never of what a link points to; None if there is none."""
        try:
            return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def lock(self, file: int, *, wait: bool = False) -> bool:
        """Whether this process now holds the file; until it is closed, or the process ends."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    # ---- names

    def rename(self, folder: int, name: str, to_folder: int, to_name: str) -> None:
        """Never onto something that is there: FileExistsError."""
        try:
            _rename(folder, name, to_folder, to_name, _NOREPLACE)
        except OSError as error:
            if error.errno not in _UNKNOWN_RENAME:
                raise
            # Such a file system leaves a gap between the look and the step; a folder with
            # something in it, or a file, still cannot be replaced by a folder.
            if self.stat(to_folder, to_name) is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            os.rename(name, to_name, src_dir_fd=folder, dst_dir_fd=to_folder)

    def exchange(self, folder: int, name: str, to_folder: int, to_name: str) -> bool:
        """Both swap places in one moment. False: this file system cannot, and nothing happened."""
        try:
            _rename(folder, name, to_folder, to_name, _EXCHANGE)
        except OSError as error:
            if error.errno not in _UNKNOWN_RENAME:
                raise
            return False
        return True


def _rename(folder: int, name: str, to_folder: int, to_name: str, flags: int) -> None:
    if not hasattr(_libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    result = _libc.renameat2(
        folder, os.fsencode(name), to_folder, os.fsencode(to_name), ctypes.c_uint(flags)
    )
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
