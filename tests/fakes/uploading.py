"""Uploads in a few words: a file cut into the messages of UploadMedia."""

import hashlib
from collections.abc import Iterator
from typing import Any

import google_crc32c

from ixc.v1.media_service_pb2 import (
    UploadChunk,
    UploadMediaRequest,
    UploadMediaResponse,
    UploadSpec,
)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def media_name(data: bytes) -> str:
    return f"media/{sha256(data)}"


def spec_of(data: bytes, **changes: Any) -> UploadMediaRequest:
    fields = {"sha256": sha256(data), "size_bytes": len(data), **changes}
    return UploadMediaRequest(spec=UploadSpec(**fields))


def chunk_of(data: bytes, offset: int = 0, *, finish: bool = False) -> UploadMediaRequest:
    chunk = UploadChunk(offset=offset, data=data, crc32c=google_crc32c.value(data))
    return UploadMediaRequest(chunk=chunk, finish=finish)


def pieces_of(data: bytes, size: int, *, offset: int = 0) -> Iterator[UploadMediaRequest]:
    """From `offset` to the end, finishing."""
    for start in range(offset, len(data), size):
        end = start + size
        yield chunk_of(data[start:end], start, finish=end >= len(data))


async def upload(
    stub: Any, data: bytes, *, chunk_bytes: int = 1 << 20, **spec: Any
) -> UploadMediaResponse:
    """All of it in one call."""
    requests = [spec_of(data, **spec), *pieces_of(data, chunk_bytes)]
    response = await stub.UploadMedia(iter(requests))
    assert isinstance(response, UploadMediaResponse)
    return response
