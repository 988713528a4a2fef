"""The moment a staged model appears under its name, and the clearing up before and after.

Whatever interrupts it, the name stands for the whole old model, the whole new one, or nothing if
there was none before; `recover` brings about one of these where an interruption could not.
Files are removed only from folders that this service has made, and of an earlier model only those
that its own manifest lists.
"""

import errno
import stat

from ixc_runtime.errors import ModelIdTaken
from ixc_runtime.models_root.disk import Disk
from ixc_runtime.models_root.manifest import MANIFEST_NAME, find_manifest, is_exactly
from ixc_runtime.models_root.staging import (
    JOURNAL_NAME,
    LOCK_NAME,
    MARK_NAME,
    MODEL_NAME,
    REPLACED_NAME,
    Mark,
    Staging,
    read_mark,
)

_OWN_FILES = (JOURNAL_NAME, LOCK_NAME, MARK_NAME)


def check_name(disk: Disk, root: int, model_id: str, *, overwrite: bool) -> bool:
    """Whether the name stands for a model that may be replaced; False: it is free.

    Raises ModelIdTaken for anything else. What we did not make, to the last file, is not replaced.
    """
    found = disk.stat(root, model_id)
    if found is None:
        return False
    if not overwrite:
        raise ModelIdTaken(
            f"there is a model {model_id}; overwrite would replace it", model=f"models/{model_id}"
        )
    if stat.S_ISDIR(found.st_mode):
        folder = disk.open_folder(root, model_id)
        try:
            manifest = find_manifest(disk, folder)
            if manifest is not None and is_exactly(disk, folder, manifest):
                return True
        finally:
            disk.close(folder)
    raise ModelIdTaken(
        f"{model_id} was not made by this service as it is now, and is not replaced",
        model=f"models/{model_id}",
    )


def publish(root: int, staging: Staging, *, overwrite: bool) -> None:
    """Gives a staged model, manifest included, its name."""
    disk, model_id = staging.disk, staging.mark.output
    disk.sync(staging.model)
    disk.sync(staging.folder)
    replaces = check_name(disk, root, model_id, overwrite=overwrite)
    if not (replaces and disk.exchange(staging.folder, MODEL_NAME, root, model_id)):
        if replaces:
            disk.rename(root, model_id, staging.folder, REPLACED_NAME)
            disk.sync(staging.folder)
        try:
            disk.rename(staging.folder, MODEL_NAME, root, model_id)
        except FileExistsError:
            raise ModelIdTaken(
                f"{model_id} has appeared meanwhile", model=f"models/{model_id}"
            ) from None
    disk.sync(root)
    disk.sync(staging.folder)


def is_published(disk: Disk, root: int, job: str, model_id: str) -> bool:
    """Whether the name stands for what this very job has made."""
    return _manifest_job(disk, root, model_id) == job


def recover(disk: Disk, root: int, folder: int, mark: Mark) -> None:
    """Ends a replacement that was interrupted while the name stood for nothing."""
    if disk.stat(folder, REPLACED_NAME) is None or disk.stat(root, mark.output) is not None:
        return
    whole = _manifest_job(disk, folder, MODEL_NAME) == mark.job
    disk.rename(folder, MODEL_NAME if whole else REPLACED_NAME, root, mark.output)
    disk.sync(root)
    disk.sync(folder)


def discard(disk: Disk, root: int, jobs: int, job: str) -> bool:
    """Removes a job's folder with what it staged. Its lock is the caller's.

    False: something in there is not ours; that stays, and its folder with it.
    """
    folder = disk.open_folder(jobs, job)
    try:
        mark = read_mark(disk, folder)
        if mark is None:
            # Made in the moment before it could be marked, or not by us at all.
            if not set(disk.names(folder)) <= set(_OWN_FILES):
                return False
        else:
            recover(disk, root, folder, mark)
            for name in (REPLACED_NAME, MODEL_NAME):
                _clear(disk, folder, name, mark.job)
        # The mark goes last: until then the folder is known for ours.
        left = [name for name in disk.names(folder) if name not in _OWN_FILES]
        if left:
            return False
        for name in _OWN_FILES:
            if disk.stat(folder, name) is not None:
                disk.unlink(folder, name)
    finally:
        disk.close(folder)
    disk.remove_folder(jobs, job)
    disk.sync(jobs)
    return True


def _clear(disk: Disk, parent: int, name: str, job: str) -> None:
    """Removes a staged model, or an earlier one as far as its manifest lists it."""
    found = disk.stat(parent, name)
    if found is None or not stat.S_ISDIR(found.st_mode):
        return
    folder = disk.open_folder(parent, name)
    try:
        manifest = find_manifest(disk, folder)
        names = disk.names(folder)
        if manifest is not None and manifest.job != job:
            names = [each for each in names if each in manifest.files]
            names.append(MANIFEST_NAME)  # last, for it is the list
        for each in names:
            entry = disk.stat(folder, each)
            if entry is not None and stat.S_ISREG(entry.st_mode):
                disk.unlink(folder, each)
    finally:
        disk.close(folder)
    try:
        disk.remove_folder(parent, name)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _manifest_job(disk: Disk, parent: int, name: str) -> str | None:
    found = disk.stat(parent, name)
    if found is None or not stat.S_ISDIR(found.st_mode):
        return None
    folder = disk.open_folder(parent, name)
    try:
        manifest = find_manifest(disk, folder)
        return manifest.job if manifest else None
    finally:
        disk.close(folder)
