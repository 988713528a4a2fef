"""An upload arrives once and whole, whatever happens to its connection."""

import asyncio
import hashlib
import os

import pytest

import ixc_client
from ixc_client import Retries, Timeouts
from ixc_client.testing import FakeServer
from tests.unit.client.conftest import EAGER

MIB = 1 << 20
DATA = b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 4 * 4096 * 3  # a clip of a bit more than 12 MiB


def streams(server: FakeServer) -> int:
    return sum(call.method == "UploadMedia" for call in server.calls)


def test_progress_counts_to_the_end(ixc: ixc_client.Client) -> None:
    """In pieces, in the caller's own thread."""
    seen: list[tuple[int, int]] = []
    media = ixc.upload(DATA, progress=lambda sent, total: seen.append((sent, total)))
    assert media.name == f"media/{hashlib.sha256(DATA).hexdigest()}"
    assert {total for _, total in seen} == {len(DATA)}
    sent = [sent for sent, _ in seen]
    assert sent == sorted(sent)
    assert sent[:3] == [0, MIB, 2 * MIB]
    assert sent[-1] == len(DATA)


@pytest.mark.parametrize("after", [1, MIB, 3 * MIB + 1, len(DATA)])
def test_a_broken_upload_goes_on_from_what_is_committed(
    server: FakeServer, ixc: ixc_client.Client, after: int
) -> None:
    """Nothing is sent twice that has arrived, also when only the end was lost."""
    server.cut_upload(after=after)
    starts: list[int] = []
    last = len(DATA)

    def watch(sent: int, total: int) -> None:
        nonlocal last
        if sent < last or not starts:
            starts.append(sent)
        last = sent

    media = ixc.upload(DATA, progress=watch)
    assert media.size_bytes == len(DATA)
    committed = min(-(-after // MIB) * MIB, len(DATA))
    assert starts[0] == 0
    assert committed in starts or starts == [0]
    assert [call.method for call in server.calls] == [
        "GetServerInfo", "UploadMedia", "GetUpload", "UploadMedia",
    ]  # fmt: skip


def test_a_later_program_goes_on_where_an_earlier_one_stopped(server: FakeServer) -> None:
    """The server knows the transfer by its bytes; also without any retries."""
    with server.client(retries=Retries(attempts=1)) as ixc:
        server.cut_upload(after=5 * MIB)
        with pytest.raises(ixc_client.ConnectionLost):
            ixc.upload(DATA)
    seen: list[int] = []
    with server.client(retries=Retries(attempts=1)) as ixc:
        ixc.upload(DATA, progress=lambda sent, total: seen.append(sent))
    assert 5 * MIB in seen[: seen.index(6 * MIB)]
    assert streams(server) == 3  # the last two: told where it stands, then from there


def test_every_try_that_brings_bytes_is_followed_by_another(server: FakeServer) -> None:
    """A poor network makes it slow, not impossible."""
    for after in (2 * MIB, 3 * MIB, 7 * MIB, 12 * MIB):
        server.cut_upload(after=after)
    with server.client(retries=Retries(attempts=2, first_delay=0)) as ixc:
        assert ixc.upload(DATA).size_bytes == len(DATA)
    assert streams(server) == 5


def test_giving_up_says_how_often_it_was_tried(server: FakeServer, ixc: ixc_client.Client) -> None:
    """When not a byte gets through."""
    for _ in range(4):
        server.fail("UNAVAILABLE", "STORE_UNAVAILABLE", method="UploadMedia")
    with pytest.raises(ixc_client.Unavailable) as caught:
        ixc.upload(DATA)
    assert caught.value.attempts == 4


def test_bytes_damaged_on_their_way_are_sent_again(
    server: FakeServer, ixc: ixc_client.Client
) -> None:
    """Once; twice, and it is the file that is not what it was."""
    damage = ("ABORTED", "UPLOAD_DIGEST_MISMATCH")
    server.fail(*damage, method="UploadMedia", metadata={"committedSize": "0"})
    assert ixc.upload(DATA).size_bytes == len(DATA)
    for _ in range(2):
        server.fail(*damage, method="UploadMedia", metadata={"committedSize": "0"})
    with pytest.raises(ixc_client.UploadDigestMismatch):
        ixc.upload(DATA + b"other")


@pytest.mark.parametrize(
    ("code", "reason"), [("ABORTED", "UPLOAD_CONFLICT"), ("ALREADY_EXISTS", "UPLOAD_ID_REUSED")]
)
def test_an_upload_taken_over_by_others_is_left_to_them(
    server: FakeServer, ixc: ixc_client.Client, code: str, reason: str
) -> None:
    """It goes on under a name of its own instead of taking it back in turns."""
    server.fail(code, reason, method="UploadMedia")
    assert ixc.upload(DATA).size_bytes == len(DATA)
    first, second = (c.request.spec for c in server.calls if c.method == "UploadMedia")
    assert first.upload_id == first.sha256 == second.sha256
    assert second.upload_id not in ("", first.upload_id)


def test_what_the_server_has_is_not_sent(server: FakeServer, ixc: ixc_client.Client) -> None:
    """It answers at the first message; the rest stays here."""
    ixc.upload(DATA)
    for _ in range(20):
        assert ixc.upload(DATA).size_bytes == len(DATA)


def test_a_server_that_takes_nothing_is_an_error(server: FakeServer) -> None:
    """Not a hang."""
    server.hang(method="UploadMedia")
    with (
        server.client(timeouts=Timeouts(idle=0.1)) as ixc,
        pytest.raises(ixc_client.StreamIdle),
    ):
        ixc.upload(os.urandom(8 * MIB))


def test_an_upload_can_be_interrupted(ixc: ixc_client.Client) -> None:
    """By an exception of the callback; the call is dropped, and a new one goes on."""

    def stop(sent: int, total: int) -> None:
        if sent > 2 * MIB:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ixc.upload(DATA, progress=stop)
    assert ixc.upload(DATA).size_bytes == len(DATA)


async def test_the_asyncio_client_uploads_as_well(server: FakeServer) -> None:
    """Broken, taken up, known already; lists, looks and deletes."""
    server.cut_upload(after=3 * MIB)
    seen: list[int] = []
    async with server.async_client(retries=EAGER) as ixc:
        media = await ixc.upload(DATA, progress=lambda sent, total: seen.append(sent))
        assert seen[-1] == len(DATA)
        for _ in range(20):
            assert await ixc.upload(DATA) == media
        assert await ixc.media(media.name) == media
        assert [found async for found in ixc.list_media()] == [media]
        answer = await ixc.generate("x", videos=DATA + b"large")
        assert answer.usage.video_tokens == 300
        async with ixc.session() as chat:
            assert (await chat.count("x", videos=DATA)).video_tokens == 300
            assert (await chat.stream("x", videos=media).read()).usage.video_tokens == 300
        assert (await ixc.count("x", images=DATA)).image_tokens == 100
        await ixc.delete_media(media)
        with pytest.raises(ixc_client.MediaNotFound):
            await ixc.media(media.name)
    calls = [call.method for call in server.calls]
    assert calls[:4] == ["GetServerInfo", "UploadMedia", "GetUpload", "UploadMedia"]


async def test_the_asyncio_client_does_not_send_the_same_twice_at_a_time(
    server: FakeServer,
) -> None:
    """Tasks wait for each other's upload."""
    async with server.async_client(retries=EAGER) as ixc:
        media = await asyncio.gather(*(ixc.upload(DATA) for _ in range(4)))
    assert len({item.name for item in media}) == 1
    ids = {c.request.spec.upload_id for c in server.calls if c.method == "UploadMedia"}
    assert ids == {media[0].name.removeprefix("media/")}


async def test_asyncio_errors_of_uploads(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typed, in time, and the stream that needed it stays refused."""
    async with server.async_client(retries=Retries(attempts=1), timeouts=Timeouts(idle=0.2)) as ixc:
        server.hang(method="UploadMedia")
        with pytest.raises(ixc_client.StreamIdle):
            await ixc.upload(os.urandom(8 * MIB))
        server.fail("RESOURCE_EXHAUSTED", "MEDIA_QUOTA", method="UploadMedia")
        stream = ixc.stream("x", images=DATA)
        with pytest.raises(ixc_client.MediaQuotaReached):
            await stream.read()
        with pytest.raises(ixc_client.MediaQuotaReached):
            await stream.read()
    monkeypatch.setattr("ixc_client._async_uploader._LOOK_SECONDS", 0.001)
    server.keep_processing(looks=2)
    async with server.async_client() as ixc:
        assert (await ixc.upload(b"small")).state is ixc_client.MediaState.ACTIVE


async def test_an_answer_in_the_middle_of_an_asyncio_upload_is_what_is_raised(
    server: FakeServer,
) -> None:
    """However the answer and the failing write meet: grpc reports one for the other at times."""
    data = os.urandom(8 * MIB)
    async with server.async_client(retries=Retries(attempts=1)) as ixc:
        for _ in range(80):
            server.fail("RESOURCE_EXHAUSTED", "MEDIA_QUOTA", method="UploadMedia")
            with pytest.raises(ixc_client.MediaQuotaReached):
                await ixc.upload(data)
