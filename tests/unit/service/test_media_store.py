"""The media store: content by its digest, durable when referred to, gone when not needed."""

import asyncio
import math
import os
from pathlib import Path

import pytest

from ixc_service.errors import StoreUnavailable
from ixc_service.media_store import Encoded, MediaStore, media_type, same_type

PICTURE = Encoded.of(b"\x89PNG\r\n\x1a\n pixels")


async def test_a_picture_lies_under_its_digest(tmp_path: Path) -> None:
    """Once, however often it is sent, and nothing else beside it."""
    store = MediaStore(tmp_path / "media")
    await store.put([PICTURE, PICTURE])
    await store.put([PICTURE])
    source = store.source(PICTURE.digest)
    assert source.path.read_bytes() == PICTURE.data
    assert [path.name for path in source.path.parent.iterdir()] == [PICTURE.digest]
    store.require([PICTURE.digest])


async def test_what_is_missing_is_said(tmp_path: Path) -> None:
    """By digest, without a path."""
    with pytest.raises(StoreUnavailable) as caught:
        MediaStore(tmp_path).require([PICTURE.digest])
    assert caught.value.metadata["media"] == PICTURE.digest


async def test_expiry_spares_what_is_needed(tmp_path: Path) -> None:
    """Referred to, pinned or young: it stays. A crash's leftovers go too."""
    store = MediaStore(tmp_path)
    await store.put([PICTURE])
    (tmp_path / ".tmpabc").write_bytes(b"half")
    for path in tmp_path.iterdir():
        os.utime(path, (100, 100))
    assert await store.expire({PICTURE.digest}, older_than=50) == 0
    with store.pinned("me", [PICTURE.digest]):
        assert await store.expire((), older_than=200) == 1
    assert await store.expire({PICTURE.digest}, older_than=200) == 0
    await store.put([PICTURE])  # used again: young again
    assert await store.expire((), older_than=200) == 0
    os.utime(store.source(PICTURE.digest).path, (100, 100))
    assert await store.expire((), older_than=200) == 1


async def test_a_file_being_written_is_left_alone(tmp_path: Path) -> None:
    """However old a sweep takes everything to be."""
    store = MediaStore(tmp_path)
    contents = [Encoded.of(bytes([n]) * 100_000) for n in range(60)]

    async def sweep() -> None:
        for _ in range(60):
            await store.expire((), older_than=math.inf)

    with store.pinned("me", (each.digest for each in contents)):
        await asyncio.gather(sweep(), sweep(), *(store.put([each]) for each in contents))
        store.require(each.digest for each in contents)
    assert await store.expire((), older_than=math.inf) == 60
    assert list(tmp_path.iterdir()) == []


async def test_an_adopted_file_is_whole_and_stays(tmp_path: Path) -> None:
    """Linked under its digest, durable, young; a second time changes nothing."""
    store = MediaStore(tmp_path / "media")
    staged = tmp_path / "staged"
    staged.write_bytes(PICTURE.data)
    os.utime(staged, (100, 100))
    for _ in range(2):
        await store.adopt(staged, PICTURE.digest)
    staged.unlink()
    assert store.video_source(PICTURE.digest).path.read_bytes() == PICTURE.data
    assert await store.expire((), older_than=200) == 0


async def test_pins_belong_to_their_owners(tmp_path: Path) -> None:
    """Another owner's use of the same bytes is no business of mine, but the file stays."""
    store = MediaStore(tmp_path)
    await store.put([PICTURE])
    with store.pinned("you", [PICTURE.digest]):
        assert store.is_pinned("you", PICTURE.digest)
        assert not store.is_pinned("me", PICTURE.digest)
        assert await store.expire((), older_than=math.inf) == 0
    assert not store.is_pinned("you", PICTURE.digest)


async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """STORE_UNAVAILABLE, not an exception of the system."""
    store = MediaStore(tmp_path / "media")
    (tmp_path / "media").rmdir()
    with pytest.raises(StoreUnavailable):
        await store.put([PICTURE])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF0000WEBPVP8 ", "image/webp"),
        (b"RIFF0000WAVE", None),
        (b"GIF89a", "image/gif"),
        (b"BM0000", "image/bmp"),
        (b"\0\0\0\x18ftypisom", "video/mp4"),
        (b"\0\0\0\x18ftypqt  ", "video/quicktime"),
        (b"\0\0\0\x18ftypavif", None),
        (b"\x1a\x45\xdf\xa3", "video/webm"),
        (b"<svg>", None),
        (b"", None),
    ],
)
def test_types_by_first_bytes(data: bytes, expected: str | None) -> None:
    """The allow-list, and nothing by name."""
    assert media_type(data) == expected


def test_spellings_of_a_type() -> None:
    """image/jpg is meant well."""
    assert same_type("image/JPG", "image/jpeg")
    assert not same_type("image/png", "image/jpeg")
