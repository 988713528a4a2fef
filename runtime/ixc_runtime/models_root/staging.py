"""A model in the making, in a hidden folder of the root: durable file by file, and resumable.

    .ixc-jobs/JOB/job.json   whose it is, and of what work: the mark by which we know it for ours
                 /lock       held by the process at work, until it ends, however it ends
                 /journal    a line for each file that is finished, with its digest
                 /model/     what will be published

A file counts once its line in the journal is on disk: it was written under another name, synced,
renamed, and its folder synced before. Whatever else lies in `model/` belongs to an interrupted
attempt and is written anew.
"""

import hashlib
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from ixc_runtime.models_root.disk import Disk
from ixc_runtime.models_root.manifest import MANIFEST_NAME, FileRecord, file_record

MARK_NAME = "job.json"
LOCK_NAME = "lock"
JOURNAL_NAME = "journal"
MODEL_NAME = "model"
REPLACED_NAME = "replaced"  # an earlier model on its way out, where folders cannot swap places
PART_SUFFIX = ".part"
_JOURNAL_BYTES = 4 << 20


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """`identity` tells work from other work: equal if and only if it would write the same files.

    `owner` is whoever answers for the job: a server by the id of its data, or "offline".
    """

    job: str
    owner: str
    output: str
    identity: str


class _Line(msgspec.Struct, frozen=True):
    name: str
    size: int
    sha256: str


class Staging:
    """Made by `ModelsRoot.stage`; holds the job's lock until `close`."""

    def __init__(self, disk: Disk, mark: Mark, folder: int, model: int, lock: int) -> None:
        self.mark = mark
        self.disk = disk
        self.folder = folder
        self.model = model
        self._lock = lock
        self.files: dict[str, FileRecord] = {}
        self.bytes_written = 0

    @property
    def path(self) -> str:
        """Where this process finds the files, whatever becomes of the names above them."""
        return f"/proc/self/fd/{self.model}"

    @property
    def num_bytes(self) -> int:
        return sum(file.size for file in self.files.values())

    def has(self, name: str) -> bool:
        return name in self.files

    def write(self, name: str, chunks: Iterable[bytes | memoryview]) -> None:
        """A whole file, on disk and in the journal when this returns."""
        assert name not in self.files, f"{name} is finished already"
        disk, part = self.disk, name + PART_SUFFIX
        digest, size = hashlib.sha256(), 0
        file = disk.create(self.model, part)
        try:
            # Hashing takes as long as writing, and another core.
            with ThreadPoolExecutor(1, "ixc-hash") as hasher:
                for chunk in chunks:
                    hashing = hasher.submit(digest.update, chunk)
                    disk.write(file, chunk)
                    hashing.result()
                    size += memoryview(chunk).nbytes
                    self.bytes_written += memoryview(chunk).nbytes
            disk.sync(file)
        finally:
            disk.close(file)
        disk.rename(self.model, part, self.model, name)
        disk.sync(self.model)
        self._note(name, FileRecord(size=size, sha256=digest.hexdigest()))

    def _note(self, name: str, record: FileRecord) -> None:
        line = _Line(name, record.size, record.sha256)
        _append(self.disk, self.folder, JOURNAL_NAME, msgspec.json.encode(line) + b"\n")
        self.files[name] = record

    def take_over(self) -> None:
        """Keeps what an earlier attempt finished and can still be read; removes the rest."""
        for line in _read_lines(self.disk, self.folder):
            record = FileRecord(size=line.size, sha256=line.sha256)
            if line.name == MANIFEST_NAME:  # it says when it was published, and never is taken over
                continue
            if _is_file(self.disk, self.model, line.name) and record == file_record(
                self.disk, self.model, line.name
            ):
                self.files[line.name] = record
        for name in self.disk.names(self.model):
            if name not in self.files and _is_file(self.disk, self.model, name):
                self.disk.unlink(self.model, name)

    def close(self) -> None:
        for descriptor in (self.model, self.folder, self._lock):
            self.disk.close(descriptor)


def open_staging(disk: Disk, jobs: int, mark: Mark) -> Staging:
    """A job's folder under `jobs`, new or as an interrupted attempt left it.

    What an attempt at other work left under this id, `take_over` removes with all the rest that is
    not finished: the mark says whether it counts.
    """
    if disk.stat(jobs, mark.job) is None:
        disk.make_folder(jobs, mark.job)
        disk.sync(jobs)
    folder = disk.open_folder(jobs, mark.job)
    lock = model = -1
    try:
        lock = disk.open_to_append(folder, LOCK_NAME)
        # A process that a dead server has left behind ends by itself, at once.
        disk.lock(lock, wait=True)
        if read_mark(disk, folder) != mark:
            for name in (JOURNAL_NAME, MARK_NAME):  # of other work, or torn
                if disk.stat(folder, name) is not None:
                    disk.unlink(folder, name)
            disk.sync(folder)  # a power cut must not leave that journal beside the new mark
            _append(disk, folder, MARK_NAME, msgspec.json.encode(mark))
        if disk.stat(folder, MODEL_NAME) is None:
            disk.make_folder(folder, MODEL_NAME)
        disk.sync(folder)
        model = disk.open_folder(folder, MODEL_NAME)
        staging = Staging(disk, mark, folder, model, lock)
        staging.take_over()
    except BaseException:
        for descriptor in (lock, model, folder):
            if descriptor >= 0:
                disk.close(descriptor)
        raise
    return staging


def read_mark(disk: Disk, folder: int) -> Mark | None:
    """Whose folder it is; None if it does not say, or was cut off while saying so."""
    if not _is_file(disk, folder, MARK_NAME):
        return None
    try:
        return msgspec.json.decode(_read_small(disk, folder, MARK_NAME), type=Mark)
    except msgspec.MsgspecError:
        return None


def _read_lines(disk: Disk, folder: int) -> list[_Line]:
    if not _is_file(disk, folder, JOURNAL_NAME):
        return []
    lines: list[_Line] = []
    for text in _read_small(disk, folder, JOURNAL_NAME).split(b"\n"):
        try:
            lines.append(msgspec.json.decode(text, type=_Line))
        except msgspec.MsgspecError:
            continue  # cut off by whatever ended the attempt, or the empty end
    return lines


def _read_small(disk: Disk, folder: int, name: str) -> bytes:
    file = disk.open_to_read(folder, name)
    try:
        return disk.read(file, _JOURNAL_BYTES)
    finally:
        disk.close(file)


def _append(disk: Disk, folder: int, name: str, content: bytes) -> None:
    file = disk.open_to_append(folder, name)
    try:
        disk.write(file, content)
        disk.sync(file)
    finally:
        disk.close(file)


def _is_file(disk: Disk, folder: int, name: str) -> bool:
    found = disk.stat(folder, name)
    return found is not None and stat.S_ISREG(found.st_mode)
