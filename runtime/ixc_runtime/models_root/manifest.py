"""What a published folder says of itself: where it came from, and the digest of its every file.

The manifest is written last, so a folder that has one is whole. A folder without one was not made
here: it can be served, but nothing in it is ever replaced or removed.
"""

import hashlib
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from ixc_runtime.errors import CheckpointInvalid
from ixc_runtime.models_root.disk import Disk

MANIFEST_NAME = "ixc-manifest.json"
MAX_MANIFEST_BYTES = 4 << 20
_CHUNK_BYTES = 4 << 20


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    size: int
    sha256: str


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """A folder that was read: what it was called, and its files as they were."""

    name: str
    files: dict[str, FileRecord]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`result` holds the summary of the work and the figures that let it be published."""

    version: int = 1
    job: str
    kind: str
    model: str
    create_time: str  # RFC 3339, UTC
    made_with: dict[str, str]  # versions, by what they are of
    source: Origin
    adapter: Origin | None = None
    settings: dict[str, Any]
    result: dict[str, Any]
    files: dict[str, FileRecord]

    @property
    def size_bytes(self) -> int:
        """Of the files it lists; its own size it cannot know."""
        return sum(file.size for file in self.files.values())


def encode_manifest(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"


def decode_manifest(content: bytes) -> Manifest:
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.MsgspecError as error:
        raise CheckpointInvalid(
            f"{MANIFEST_NAME} is no manifest: {error}", file=MANIFEST_NAME
        ) from None
    if manifest.version != 1:
        raise CheckpointInvalid(
            f"{MANIFEST_NAME} has version {manifest.version}; this build knows 1",
            file=MANIFEST_NAME,
        )
    return manifest


def manifest_digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_manifest(disk: Disk, folder: int) -> bytes | None:
    """Its bytes; None where there is none, or something that cannot be one."""
    found = disk.stat(folder, MANIFEST_NAME)
    if found is None or not stat.S_ISREG(found.st_mode) or found.st_size > MAX_MANIFEST_BYTES:
        return None
    file = disk.open_to_read(folder, MANIFEST_NAME)
    try:
        content = b""
        while chunk := disk.read(file, MAX_MANIFEST_BYTES):
            content += chunk
        return content
    finally:
        disk.close(file)


def find_manifest(disk: Disk, folder: int) -> Manifest | None:
    """A readable manifest; None where there is none."""
    content = read_manifest(disk, folder)
    try:
        return None if content is None else decode_manifest(content)
    except CheckpointInvalid:
        return None


def file_record(disk: Disk, folder: int, name: str, *, follow: bool = False) -> FileRecord:
    """A file read from its first byte to its last."""
    file = disk.open_to_read(folder, name, follow=follow)
    try:
        digest, size = hashlib.sha256(), 0
        while chunk := disk.read(file, _CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
        return FileRecord(size=size, sha256=digest.hexdigest())
    finally:
        disk.close(file)


def is_exactly(disk: Disk, folder: int, manifest: Manifest) -> bool:
    """Whether the folder holds the manifest's files, in their sizes, and nothing else."""
    if set(disk.names(folder)) != {*manifest.files, MANIFEST_NAME}:
        return False
    for name, record in manifest.files.items():
        found = disk.stat(folder, name)
        if found is None or not stat.S_ISREG(found.st_mode) or found.st_size != record.size:
            return False
    return True


def file_records(
    disk: Disk,
    folder: int,
    names: Sequence[str],
    told: Callable[[str, FileRecord], None],
    *,
    threads: int = 1,
    follow: bool = False,
) -> dict[str, FileRecord]:
    """Of several files, some at a time: hashing takes longer than reading. `told` may raise."""
    found: dict[str, FileRecord] = {}
    with ThreadPoolExecutor(max(1, threads), "ixc-hash") as pool:
        records = pool.map(lambda name: file_record(disk, folder, name, follow=follow), names)
        for name, record in zip(names, records, strict=True):
            found[name] = record
            told(name, record)
    return found


def verify_files(
    disk: Disk,
    folder: int,
    files: dict[str, FileRecord],
    told: Callable[[str, FileRecord], None] = lambda name, record: None,
    *,
    threads: int = 1,
) -> None:
    """Reads every file and compares. Raises CheckpointInvalid, naming the first that differs."""

    def compare(name: str, found: FileRecord) -> None:
        expected = files[name]
        if found != expected:
            raise CheckpointInvalid(
                f"{name} does not read back as it was written: {found.size} bytes, "
                f"{found.sha256[:12]}; {expected.size}, {expected.sha256[:12]} were written",
                file=name,
                expectedDigest=expected.sha256,
            )
        told(name, found)

    file_records(disk, folder, list(files), compare, threads=threads)
