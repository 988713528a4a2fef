"""Folders under one root by their ids: models, which jobs add to, and users' adapters.

A name is either an id by the one alphabet or refused before any file is looked at; a folder is
either a real one directly under the root or not there. Links lead nowhere, neither as folders nor
as files in them. What whoever runs the server puts in by hand is found like all else.
"""

import contextlib
import errno
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ixc_runtime.config import CONFIG_NAME
from ixc_runtime.errors import (
    AdapterMissing,
    CheckpointInvalid,
    CheckpointMissing,
    DiskFault,
    DiskSpaceLow,
    FieldInvalid,
)
from ixc_runtime.models_root import publishing
from ixc_runtime.models_root.disk import Disk
from ixc_runtime.models_root.manifest import (
    MANIFEST_NAME,
    Manifest,
    decode_manifest,
    encode_manifest,
    find_manifest,
    manifest_digest,
    read_manifest,
    verify_files,
)
from ixc_runtime.models_root.names import MODEL_ID_RULE, is_model_id
from ixc_runtime.models_root.staging import LOCK_NAME, Mark, Staging, open_staging, read_mark

JOBS_NAME = ".ixc-jobs"
# Beside the output: journals, manifests, and what others write meanwhile.
_SPARE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """`manifest` and `digest` (the manifest's) are None for a model that was not made here."""

    model_id: str
    size_bytes: int
    manifest: Manifest | None
    digest: str | None


class NamedFolders:
    """`kind` is the collection's name in the contract: models or adapters."""

    def __init__(self, path: Path, kind: str, disk: Disk | None = None) -> None:
        self.path = path
        self.kind = kind
        self.disk = disk or Disk()

    def names(self) -> list[str]:
        """Of all real folders whose name is an id."""
        with self._root() as root:
            return [name for name in self.disk.names(root) if self._is_folder(root, name)]

    def folder(self, name: str) -> Path:
        """The path of a folder that is there, and holds no link. Raises CheckpointMissing."""
        with self._opened(name):
            return self.path / name

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[Path]:
        """As `folder`, but the folder that is there now, whatever becomes of its name."""
        with self._opened(name) as folder:
            yield Path(f"/proc/self/fd/{folder}")

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        with self._root() as root:
            if not self._is_folder(root, name):
                raise self._missing(name)
            folder = self.disk.open_folder(root, name)
            try:
                for each in self.disk.names(folder):
                    found = self.disk.stat(folder, each)
                    if found is not None and stat.S_ISLNK(found.st_mode):
                        raise self._missing(name, f"; its {each!r} is a link, and none is followed")
                yield folder
            finally:
                self.disk.close(folder)

    def _is_folder(self, root: int, name: str) -> bool:
        if not is_model_id(name):
            return False
        found = self.disk.stat(root, name)
        return found is not None and stat.S_ISDIR(found.st_mode)

    def _missing(self, name: str, why: str = "") -> CheckpointMissing:
        shown = name if is_model_id(name) else "…"
        missing = AdapterMissing if self.kind == "adapters" else CheckpointMissing
        return missing(
            f"there is no {self.kind}/{shown}{why}", **{self.kind[:-1]: f"{self.kind}/{shown}"}
        )

    @contextlib.contextmanager
    def _root(self) -> Iterator[int]:
        with as_faults():
            root = self.disk.open_root(self.path)
            try:
                yield root
            finally:
                self.disk.close(root)


class ModelsRoot(NamedFolders):
    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        super().__init__(path, "models", disk)

    # ---- what is there

    def models(self) -> list[StoredModel]:
        """By id; folders without a config.json, or that cannot be read, are no models."""
        found: list[StoredModel] = []
        for name in self.names():
            # One that is gone or closed to us does not hide the others.
            with contextlib.suppress(CheckpointMissing, DiskFault):
                found.append(self.model(name))
        return found

    def model(self, model_id: str) -> StoredModel:
        with self._opened(model_id) as folder:
            if self.disk.stat(folder, CONFIG_NAME) is None:
                raise self._missing(model_id, f": the folder has no {CONFIG_NAME}")
            content = read_manifest(self.disk, folder)
            manifest = find_manifest(self.disk, folder) if content else None
            sizes = (self.disk.stat(folder, name) for name in self.disk.names(folder))
            return StoredModel(
                model_id=model_id,
                size_bytes=sum(each.st_size for each in sizes if each is not None),
                manifest=manifest,
                digest=manifest_digest(content) if content and manifest else None,
            )

    def verify(self, model_id: str) -> Manifest:
        """Reads a whole model against its manifest. Raises CheckpointInvalid where they differ."""
        with self._opened(model_id) as folder:
            content = read_manifest(self.disk, folder)
            if content is None:
                raise self._missing(model_id, f": the folder has no {MANIFEST_NAME}")
            manifest = decode_manifest(content)
            if strange := set(manifest.files) - set(self.disk.names(folder)):
                # Also those that would lead out of the folder.
                raise CheckpointInvalid(
                    f"{len(strange)} files of {MANIFEST_NAME} are not there", file=MANIFEST_NAME
                )
            verify_files(self.disk, folder, manifest.files)
            return manifest

    # ---- making one

    def check_output(self, model_id: str, *, overwrite: bool) -> bool:
        """Whether an earlier model would be replaced.

        Raises ModelIdTaken, or FieldInvalid for what no name can be.
        """
        if not is_model_id(model_id):
            raise FieldInvalid("output_model_id", f"must be {MODEL_ID_RULE}")
        with self._root() as root:
            return publishing.check_name(self.disk, root, model_id, overwrite=overwrite)

    def check_space(self, required_bytes: int) -> None:
        with self._root() as root:
            free = self.disk.free_bytes(root)
        if free < required_bytes + _SPARE_BYTES:
            raise DiskSpaceLow(
                f"the output takes up to {required_bytes} bytes, {free} are free",
                required=required_bytes + _SPARE_BYTES,
                free=free,
            )

    def published(self, job: str, output: str) -> StoredModel | None:
        """What this very job has published, if it came so far before it was interrupted."""
        disk = self.disk
        with self._root() as root, self._jobs(root) as jobs:
            if disk.stat(jobs, job) is not None:
                folder = disk.open_folder(jobs, job)
                try:
                    mark = read_mark(disk, folder)
                    if mark is not None:
                        publishing.recover(disk, root, folder, mark)
                finally:
                    disk.close(folder)
            if not publishing.is_published(disk, root, job, output):
                return None
        return self.model(output)

    @contextlib.contextmanager
    def stage(self, mark: Mark) -> Iterator[Staging]:
        """A job's staged model, to be written and then published, locked meanwhile.

        What an interrupted attempt at the same work has finished is taken over; `published` has
        been asked before, so that one which was interrupted later is not begun anew.
        Nothing is cleared up on leaving: that is `discard`.
        """
        assert is_model_id(mark.output), "names are checked before anything is staged"
        disk = self.disk
        with self._root() as root, self._jobs(root) as jobs:
            staging = open_staging(disk, jobs, mark)
            try:
                yield staging
            finally:
                staging.close()

    def publish(self, staging: Staging, manifest: Manifest, *, overwrite: bool) -> StoredModel:
        """Writes the manifest, and lets the model appear, in this order."""
        content = encode_manifest(manifest)
        with self._root() as root:
            staging.write(MANIFEST_NAME, [content])
            publishing.publish(root, staging, overwrite=overwrite)
        return StoredModel(
            model_id=manifest.model,
            size_bytes=manifest.size_bytes + len(content),
            manifest=manifest,
            digest=manifest_digest(content),
        )

    # ---- clearing up

    def discard(self, job: str) -> None:
        """Removes what a job has staged, once no process is at it any more."""
        with self._root() as root, self._jobs(root) as jobs:
            if self.disk.stat(jobs, job) is not None:
                publishing.discard(self.disk, root, jobs, job)

    def recover(self, owner: str, keep: frozenset[str] = frozenset()) -> list[str]:
        """At start: ends interrupted replacements, and removes what dead jobs have left.

        Jobs in `keep` will be resumed; those of other owners, and those that a process is at, are
        not ours to touch. Returns the jobs that were removed.
        """
        removed: list[str] = []
        with self._root() as root:
            if self.disk.stat(root, JOBS_NAME) is None:
                return removed
            with self._jobs(root) as jobs:
                for job in filter(is_model_id, self.disk.names(jobs)):
                    if self._recover(root, jobs, job, owner, keep):
                        removed.append(job)  # noqa: PERF401 - one that fails leaves the others
        return removed

    def _recover(self, root: int, jobs: int, job: str, owner: str, keep: frozenset[str]) -> bool:
        disk = self.disk
        found = disk.stat(jobs, job)
        if found is None or not stat.S_ISDIR(found.st_mode):
            return False
        folder = disk.open_folder(jobs, job)
        lock = -1
        try:
            mark = read_mark(disk, folder)
            if mark is not None and mark.owner != owner:
                return False
            if disk.stat(folder, LOCK_NAME) is not None:
                lock = disk.open_to_append(folder, LOCK_NAME)
                if not disk.lock(lock):
                    return False
            if mark is not None:
                publishing.recover(disk, root, folder, mark)
            return job not in keep and publishing.discard(disk, root, jobs, job)
        finally:
            if lock >= 0:
                disk.close(lock)
            disk.close(folder)

    @contextlib.contextmanager
    def _jobs(self, root: int) -> Iterator[int]:
        if self.disk.stat(root, JOBS_NAME) is None:
            with contextlib.suppress(FileExistsError):
                self.disk.make_folder(root, JOBS_NAME)
            self.disk.sync(root)
        jobs = self.disk.open_folder(root, JOBS_NAME)
        try:
            yield jobs
        finally:
            self.disk.close(jobs)


@contextlib.contextmanager
def as_faults() -> Iterator[None]:
    """What the disk refuses, as faults that name no path."""
    try:
        yield
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "EIO")
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskSpaceLow(f"the disk is full ({code})", code=code) from error
        raise DiskFault(f"the disk refused ({code})", code=code) from error
