"""UploadMedia: transfers that survive broken streams and restarts, and those that are refused."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from ixc.v1 import media_pb2
from ixc.v1 import media_service_pb2 as pb
from tests.fakes.fake_engine import VIDEO_TOKENS
from tests.fakes.running_server import (
    PNG,
    Served,
    error_info,
    refused,
    running_server,
    violations_of,
)
from tests.fakes.uploading import chunk_of, media_name, pieces_of, sha256, spec_of, upload

CODE = grpc.StatusCode
MP4 = b"\x00\x00\x00\x18ftypmp42 and frames" * 50
ACTIVE = media_pb2.MEDIA_STATE_ACTIVE


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with running_server(tmp_path) as running:
        yield running


async def media_of(served: Served, data: bytes) -> media_pb2.Media:
    answer = await served.media.GetMedia(pb.GetMediaRequest(name=media_name(data)))
    assert isinstance(answer.media, media_pb2.Media)
    return answer.media


async def committed(served: Served, upload_id: str) -> int:
    answer = await served.media.GetUpload(pb.GetUploadRequest(upload_id=upload_id))
    return int(answer.upload.committed_size)


def staged(served: Served) -> list[bytes]:
    return [path.read_bytes() for path in (served.folder / "data" / ".uploads").iterdir()]


async def test_a_picture_is_known_before_it_is_asked_about(served: Served) -> None:
    """Size, tiles and tokens; the bytes lie under their digest, nothing is left staged."""
    answer = await upload(served.media, PNG, chunk_bytes=5)
    media = answer.media
    assert (media.name, media.state, media.mime_type) == (media_name(PNG), ACTIVE, "image/png")
    assert media.size_bytes == len(PNG)
    assert (media.image.width, media.image.height) == (64, 32)
    assert (media.image.tiles_wide, media.image.tiles_high, media.image.tokens) == (2, 1, 10)
    assert media.expire_time.seconds == int(served.clock.now()) + 86_400
    assert answer.upload.committed_size == len(PNG)
    assert answer.upload.media == media.name
    assert await media_of(served, PNG) == media
    assert (served.folder / "data" / "media" / sha256(PNG)).read_bytes() == PNG
    assert staged(served) == []


async def test_a_clip_too(served: Served) -> None:
    """Length, frames, codec, and what it costs without any settings."""
    media = (await upload(served.media, MP4, mime_type="video/mp4")).media
    assert (media.state, media.mime_type) == (ACTIVE, "video/mp4")
    assert (media.video.frames, media.video.fps, media.video.codec) == (50, 25.0, "H.264")
    assert media.video.duration.seconds == 2
    assert (media.video.shown_frames, media.video.tokens) == (2, VIDEO_TOKENS)


async def test_the_same_bytes_again(served: Served) -> None:
    """Answered at the first message: no chunk is needed, and the time begins anew."""
    await upload(served.media, PNG)
    served.clock.wall += 100
    again = await served.media.UploadMedia(iter([spec_of(PNG)]))
    assert again.media.state == ACTIVE
    assert again.media.expire_time.seconds == int(served.clock.now()) + 86_400
    assert again.media.create_time.seconds == int(served.clock.now()) - 100
    assert len(served.engine.examined) == 1


async def test_a_stream_that_breaks_is_taken_up(served: Served) -> None:
    """GetUpload says where; other pieces than before will do."""
    call = served.media.UploadMedia()
    await call.write(spec_of(MP4, upload_id="mine"))
    await call.write(chunk_of(MP4[:700]))
    await until_committed(served, "mine", 700)
    call.cancel()
    requests = [spec_of(MP4, upload_id="mine"), *pieces_of(MP4, 300, offset=700)]
    answer = await served.media.UploadMedia(iter(requests))
    assert answer.media.state == ACTIVE
    assert await committed(served, "mine") == len(MP4)


async def until_committed(served: Served, upload_id: str, size: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                if await committed(served, upload_id) == size:
                    return
            except grpc.aio.AioRpcError as error:
                assert error_info(error).reason == "UPLOAD_NOT_FOUND"


async def test_an_upload_goes_on_after_a_restart(tmp_path: Path) -> None:
    """What was committed is on disk, under the same id; finishing needs no more."""
    async with running_server(tmp_path) as served:
        requests = [spec_of(MP4), chunk_of(MP4[:500]), chunk_of(MP4[500:], 500)]
        answer = await served.media.UploadMedia(iter(requests))
        assert answer.upload.committed_size == len(MP4)
        assert not answer.HasField("media")
    async with running_server(tmp_path) as served:
        assert await committed(served, sha256(MP4)) == len(MP4)
        finishing = spec_of(MP4)
        finishing.finish = True
        answer = await served.media.UploadMedia(iter([finishing]))
        assert answer.media.state == ACTIVE


async def test_a_second_stream_takes_over(served: Served) -> None:
    """The first finds out at its next chunk; nothing is mixed up."""
    first = served.media.UploadMedia()
    await first.write(spec_of(MP4))
    await first.write(chunk_of(MP4[:100]))
    await until_committed(served, sha256(MP4), 100)
    second = served.media.UploadMedia()
    await second.write(spec_of(MP4))
    await second.write(chunk_of(MP4[100:200], 100))
    await until_committed(served, sha256(MP4), 200)
    with refused("UPLOAD_CONFLICT", CODE.ABORTED):
        await first.write(chunk_of(MP4[200:300], 200))
        await first
    for request in pieces_of(MP4, 400, offset=200):
        await second.write(request)
    assert (await second).media.state == ACTIVE


@pytest.mark.parametrize("offset", [0, 1, 99, 101, 2**63])
async def test_a_chunk_out_of_place(served: Served, offset: int) -> None:
    """OUT_OF_RANGE with where to go on; nothing is written."""
    with refused("UPLOAD_OFFSET_MISMATCH", CODE.OUT_OF_RANGE) as caught:
        requests = [spec_of(MP4), chunk_of(MP4[:100]), chunk_of(MP4[100:200], offset)]
        await served.media.UploadMedia(iter(requests))
    assert error_info(caught[0]).metadata["committedSize"] == "100"
    assert await committed(served, sha256(MP4)) == 100


async def test_finishing_too_early(served: Served) -> None:
    """OUT_OF_RANGE too; what has come stays."""
    with refused("UPLOAD_OFFSET_MISMATCH", CODE.OUT_OF_RANGE):
        await served.media.UploadMedia(iter([spec_of(MP4), chunk_of(MP4[:100], finish=True)]))
    assert await committed(served, sha256(MP4)) == 100


async def test_a_chunk_changed_on_its_way(served: Served) -> None:
    """ABORTED before a byte of it is written."""
    wrong = chunk_of(MP4[100:200], 100)
    wrong.chunk.crc32c ^= 1
    with refused("UPLOAD_DIGEST_MISMATCH", CODE.ABORTED) as caught:
        await served.media.UploadMedia(iter([spec_of(MP4), chunk_of(MP4[:100]), wrong]))
    assert error_info(caught[0]).metadata["committedSize"] == "100"


async def test_a_digest_that_does_not_hold(served: Served) -> None:
    """ABORTED, everything is thrown away, and the right bytes can follow."""
    wrong = MP4[:-1] + b"?"
    with refused("UPLOAD_DIGEST_MISMATCH", CODE.ABORTED) as caught:
        await served.media.UploadMedia(iter([spec_of(MP4), *pieces_of(wrong, 1 << 20)]))
    assert error_info(caught[0]).metadata["committedSize"] == "0"
    assert await committed(served, sha256(MP4)) == 0
    assert (await upload(served.media, MP4)).media.state == ACTIVE


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sha256": "f" * 63}, "spec.sha256"),
        ({"sha256": "F" * 64}, "spec.sha256"),
        ({"sha256": ""}, "spec.sha256"),
        ({"size_bytes": 0}, "spec.size_bytes"),
        ({"size_bytes": (1 << 30) + 1}, "spec.size_bytes"),
        ({"size_bytes": (50 << 20) + 1, "mime_type": "image/png"}, "spec.size_bytes"),
        ({"upload_id": "../x"}, "spec.upload_id"),
        ({"mime_type": "x" * 128}, "spec.mime_type"),
        ({"ttl": Duration(seconds=604_801)}, "spec.ttl"),
        ({"ttl": Duration()}, "spec.ttl"),
    ],
)
async def test_a_spec_that_cannot_be(served: Served, changes: dict[str, Any], field: str) -> None:
    """Refused before anything is kept."""
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT) as caught:
        await served.media.UploadMedia(iter([spec_of(MP4, **changes)]))
    assert violations_of(caught[0]) == {field}
    assert staged(served) == []


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ([], "spec"),
        ([chunk_of(MP4)], "spec"),
        ([spec_of(MP4), spec_of(MP4)], "spec"),
        ([spec_of(MP4), chunk_of(b"")], "chunk.data"),
        ([spec_of(MP4), chunk_of(bytes((1 << 20) + 1))], "chunk.data"),
        ([spec_of(MP4), chunk_of(MP4 + b"x")], "chunk.data"),
        ([spec_of(MP4), pb.UploadMediaRequest()], "chunk"),
    ],
)
async def test_messages_out_of_order(
    served: Served, requests: list[pb.UploadMediaRequest], field: str
) -> None:
    """One spec, first; then chunks that fit."""
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT) as caught:
        await served.media.UploadMedia(iter(requests))
    assert violations_of(caught[0]) == {field}


async def test_bytes_that_are_no_message(served: Served) -> None:
    """INVALID_ARGUMENT in a stream of requests as well."""
    call = served.channel.stream_unary("/ixc.v1.MediaService/UploadMedia")
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
        await call(iter([b"\xff\xff\xff"]))


async def test_an_upload_id_for_something_else(served: Served) -> None:
    """ALREADY_EXISTS; the first upload is untouched."""
    await served.media.UploadMedia(iter([spec_of(MP4, upload_id="one"), chunk_of(MP4[:9])]))
    with refused("UPLOAD_ID_REUSED", CODE.ALREADY_EXISTS):
        await served.media.UploadMedia(iter([spec_of(PNG, upload_id="one")]))
    assert await committed(served, "one") == 9


@pytest.mark.parametrize(
    ("data", "mime_type"), [(b"<svg>" * 9, ""), (b"tiny", ""), (PNG, "video/mp4")]
)
async def test_bytes_of_no_format_we_take(served: Served, data: bytes, mime_type: str) -> None:
    """Refused by the first of them, and forgotten at once."""
    with refused("MEDIA_TYPE_UNSUPPORTED", CODE.INVALID_ARGUMENT) as caught:
        await upload(served.media, data, mime_type=mime_type)
    assert error_info(caught[0]).metadata["media"] == sha256(data)
    with refused("UPLOAD_NOT_FOUND", CODE.NOT_FOUND):
        await committed(served, sha256(data))
    assert staged(served) == []


async def test_a_picture_as_large_as_a_clip(tmp_path: Path) -> None:
    """The bound of pictures holds once the bytes show that it is one."""
    async with running_server(tmp_path, max_image_bytes=20) as served:
        with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT) as caught:
            await upload(served.media, PNG + b" and many more pixels")
        assert violations_of(caught[0]) == {"spec.size_bytes"}


async def test_quotas_count_objects_and_begun_uploads(tmp_path: Path) -> None:
    """Number and bytes; deleting makes room."""
    async with running_server(tmp_path, max_media=2) as served:
        await upload(served.media, PNG)
        await served.media.UploadMedia(iter([spec_of(MP4)]))
        with refused("MEDIA_QUOTA", CODE.RESOURCE_EXHAUSTED) as caught:
            await upload(served.media, PNG + b"3")
        assert dict(error_info(caught[0]).metadata) == {
            "quota": "max_media",
            "used": "2",
            "limit": "2",
        }
        await served.media.DeleteMedia(pb.DeleteMediaRequest(name=media_name(PNG)))
        await upload(served.media, PNG + b"3")


async def test_a_quota_of_bytes(tmp_path: Path) -> None:
    """What would not fit is refused before it is sent; expired media take no room."""
    async with running_server(tmp_path, max_media_bytes=len(MP4)) as served:
        await upload(served.media, PNG)
        with refused("MEDIA_QUOTA", CODE.RESOURCE_EXHAUSTED) as caught:
            await served.media.UploadMedia(iter([spec_of(MP4)]))
        assert error_info(caught[0]).metadata["quota"] == "max_media_bytes"
        served.clock.wall += 86_400
        await upload(served.media, MP4)


async def test_old_uploads_are_forgotten(served: Served) -> None:
    """With their bytes; one under way is not."""
    await served.media.UploadMedia(iter([spec_of(MP4), chunk_of(MP4[:100])]))
    call = served.media.UploadMedia()
    await call.write(spec_of(PNG))
    await call.write(chunk_of(PNG[:15]))
    await until_committed(served, sha256(PNG), 15)
    served.clock.wall += 86_401
    await served.server.housekeeping.sweep()
    with refused("UPLOAD_NOT_FOUND", CODE.NOT_FOUND):
        await committed(served, sha256(MP4))
    assert staged(served) == [PNG[:15]]
    await call.write(chunk_of(PNG[15:], 15, finish=True))
    assert (await call).media.state == ACTIVE


async def test_uploads_while_the_server_drains(served: Served) -> None:
    """Refused at the door; reads are answered."""
    await upload(served.media, PNG)
    served.server.refuse_new_work(5.0)
    with refused("SERVER_DRAINING", CODE.UNAVAILABLE):
        await upload(served.media, MP4)
    assert (await media_of(served, PNG)).state == ACTIVE


async def test_a_server_that_stops_ends_uploads(tmp_path: Path) -> None:
    """At once and with UNAVAILABLE, however silent they are; the next server goes on."""
    async with running_server(tmp_path) as served:
        call = served.media.UploadMedia()
        await call.write(spec_of(MP4))
        await call.write(chunk_of(MP4[:100]))
        await until_committed(served, sha256(MP4), 100)
        async with asyncio.timeout(5):
            await served.server.stop(0.0)
        with refused("SERVER_DRAINING", CODE.UNAVAILABLE):
            await call
    async with running_server(tmp_path) as served:
        assert await committed(served, sha256(MP4)) == 100
