"""Real photographs and clips, and hostile ones, all the way through a server with a tiny model."""

import asyncio
import io
import struct
import zlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc.error_details_pb2 import ErrorInfo
from PIL import Image

from ixc.v1 import media_pb2
from ixc.v1.chat_service_pb2 import ChatRequest
from ixc.v1.content_pb2 import Content, ContentList, ImagePart, Part, Prompt, Role, VideoPart
from ixc.v1.generation_pb2 import Usage
from ixc.v1.media_service_pb2 import GetMediaRequest
from ixc.v1.sampling_pb2 import SamplingParams
from ixc.v1.session_service_pb2 import CreateSessionRequest
from ixc.v1.token_service_pb2 import CountTokensRequest
from tests.fakes.clips import made_clip, real_clip, without_frames
from tests.fakes.photographs import PHOTOGRAPHS, photograph
from tests.fakes.running_server import error_info, events_of, kinds
from tests.fakes.server_process import ServerProcess, running_process, write_model
from tests.fakes.uploading import media_name, upload
from tests.integration.test_media_process import Stubs

ANSWER_SECONDS = 6.0
SHORT = SamplingParams(max_output_tokens=2, ignore_eos=True)
REAL_CLIPS = {
    "bikes.mp4": (640, 272, 10),
    "bigbuckbunny.mp4": (1280, 720, 6),
    "carphone_pristine.mp4": (176, 144, 4),
    "carphone_distorted.mp4": (176, 144, 4),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("real")
    model = write_model(folder / "model", max_positions=8192)
    async with running_process(folder, model, "--kv-bytes=16000000") as served:
        yield served


@pytest_asyncio.fixture(loop_scope="module")
async def stubs(served: ServerProcess) -> AsyncIterator[Stubs]:
    async with served.channel() as channel:
        yield Stubs(channel)


pytestmark = pytest.mark.asyncio(loop_scope="module")


def content_of(part: Part) -> Content:
    return Content(role=Role.ROLE_USER, parts=[part, Part(text="What is it?")])


async def tokens_of(stubs: Stubs, part: Part) -> int:
    """What CountTokens says that the picture or clip costs."""
    prompt = Prompt(contents=ContentList(contents=[content_of(part)]))
    count = await stubs.tokens.CountTokens(CountTokensRequest(prompt=prompt))
    return int(count.image_tokens + count.video_tokens)


async def talked_about(stubs: Stubs, part: Part) -> Usage:
    session = (await stubs.sessions.CreateSession(CreateSessionRequest())).session.name
    request = ChatRequest(session=session, message=content_of(part), sampling=SHORT)
    events = await events_of(stubs.chats.Chat(request))
    assert kinds(events)[-1] == "completed"
    return events[-1].completed.usage


@pytest.mark.parametrize("name", PHOTOGRAPHS)
async def test_a_photograph(stubs: Stubs, name: str) -> None:
    """Uploaded, counted and talked about, each time for the same price."""
    data = photograph(name).read_bytes()
    name = (await upload(stubs.media, data, chunk_bytes=100_000)).media.name
    part = Part(image=ImagePart(media=name))
    tokens = await tokens_of(stubs, part)
    media = (await stubs.media.GetMedia(GetMediaRequest(name=name))).media
    assert media.state == media_pb2.MEDIA_STATE_ACTIVE
    with Image.open(io.BytesIO(data)) as image:
        assert (media.image.width, media.image.height) == image.size
    assert tokens == media.image.tokens
    assert (await talked_about(stubs, part)).image_tokens == media.image.tokens


@pytest.mark.parametrize(("name", "facts"), REAL_CLIPS.items())
async def test_a_clip(stubs: Stubs, name: str, facts: tuple[int, int, int]) -> None:
    """One frame a second of it, for the price that was told."""
    data = real_clip(name).read_bytes()
    name = (await upload(stubs.media, data, mime_type="video/mp4")).media.name
    part = Part(video=VideoPart(media=name))
    # A slow machine may still be examining it when the upload ends; counting waits for that.
    tokens = await tokens_of(stubs, part)
    media = (await stubs.media.GetMedia(GetMediaRequest(name=name))).media
    assert media.state == media_pb2.MEDIA_STATE_ACTIVE
    assert (media.video.width, media.video.height, media.video.shown_frames) == facts
    assert tokens == media.video.tokens
    assert (await talked_about(stubs, part)).video_tokens == media.video.tokens


# ---- what nobody should send


def picture(width: int, height: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "orange").save(buffer, kind)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """Some hundred kilobytes that are a complete picture of so many black pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + checksum

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + width)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def photo(name: str) -> bytes:
    return photograph(name).read_bytes()


TAKEN = {
    "1x1": picture(1, 1),
    "1x1 clip": made_clip("dot.webm").read_bytes(),
    "65535x1": picture(65535, 1),
    "1x65500": picture(1, 65500, "JPEG"),
    "98 megapixels of nothing": bomb(9900, 9900),
}
REFUSED = {
    "half a PNG": (photo("coffee.png")[:200_000], "MEDIA_UNDECODABLE"),
    "half a JPEG": (photo("rocket.jpg")[:60_000], "MEDIA_UNDECODABLE"),
    "half a GIF": (photo("no_time_for_that_tiny.gif")[:700], "MEDIA_UNDECODABLE"),
    "a signature alone": (b"\x89PNG\r\n\x1a\n", "MEDIA_UNDECODABLE"),
    "half a clip": (real_clip("bikes.mp4").read_bytes()[:300_000], "MEDIA_UNDECODABLE"),
    "a bomb": (bomb(12_000, 9_000), "MEDIA_UNDECODABLE"),
    "a clip of no frames": (
        without_frames(real_clip("carphone_pristine.mp4").read_bytes()),
        "MEDIA_UNDECODABLE",
    ),
    "a clip that is a line": (made_clip("line.webm").read_bytes(), "MEDIA_UNDECODABLE"),
    "an AV1 clip": (made_clip("av1.mp4").read_bytes(), "MEDIA_TYPE_UNSUPPORTED"),
    "a page": (b"<html><img src='file:///etc/passwd'></html>", "MEDIA_TYPE_UNSUPPORTED"),
    "a drawing": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "MEDIA_TYPE_UNSUPPORTED"),
    "a TIFF": (photo("multipage.tif"), "MEDIA_TYPE_UNSUPPORTED"),
    "an archive": (b"PK\x03\x04" + bytes(400), "MEDIA_TYPE_UNSUPPORTED"),
}


async def ends_of(stubs: Stubs, data: bytes) -> list[str]:
    """What upload, CountTokens and Chat say of it, each of them in time."""
    ends = []
    is_clip = data[4:8] == b"ftyp" or data[:4] == b"\x1a\x45\xdf\xa3"
    source: dict[str, Any] = {"inline_data": data}
    async with asyncio.timeout(ANSWER_SECONDS):
        try:
            media = (await upload(stubs.media, data)).media
            source = {"media": media_name(data)}
            ends.append(reason_of(media) if media.HasField("error") else "OK")
        except grpc.aio.AioRpcError as error:
            ends.append(error_info(error).reason)
    part = Part(video=VideoPart(**source)) if is_clip else Part(image=ImagePart(**source))
    for ask in (tokens_of, talked_about):
        async with asyncio.timeout(ANSWER_SECONDS):
            try:
                await ask(stubs, part)
                ends.append("OK")
            except grpc.aio.AioRpcError as error:
                ends.append(error_info(error).reason)
    return ends


def reason_of(media: media_pb2.Media) -> str:
    info = ErrorInfo()
    assert media.error.details[0].Unpack(info)
    return info.reason


@pytest.mark.parametrize("data", TAKEN.values(), ids=list(TAKEN))
async def test_strange_but_sound(served: ServerProcess, stubs: Stubs, data: bytes) -> None:
    """As tall, as wide, as small or as large as a picture may be."""
    assert await ends_of(stubs, data) == ["OK"] * 3


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=list(REFUSED))
async def test_hostile(served: ServerProcess, stubs: Stubs, data: bytes, reason: str) -> None:
    """The documented reason from every RPC within 6 s, and the server goes on."""
    engine = served.engine_pid
    assert await ends_of(stubs, data) == [reason] * 3
    assert served.engine_pid == engine
    sound = Part(image=ImagePart(inline_data=picture(8, 8)))
    assert (await talked_about(stubs, sound)).image_tokens > 0
