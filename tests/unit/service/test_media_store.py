"""The media store: content by its digest, durable when referred to, gone when not needed."""

import os
from pathlib import Path

import pytest

from ixc_service.errors import StoreUnavailable
from ixc_service.media_store import MediaStore, Picture, media_type, same_type

PICTURE = Picture.of(b"\x89PNG\r\n\x1a\n pixels")


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
    with store.pinned([PICTURE.digest]):
        assert await store.expire((), older_than=200) == 1
    assert await store.expire({PICTURE.digest}, older_than=200) == 0
    await store.put([PICTURE])  # used again: young again
    assert await store.expire((), older_than=200) == 0
    os.utime(store.source(PICTURE.digest).path, (100, 100))
    assert await store.expire((), older_than=200) == 1


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
