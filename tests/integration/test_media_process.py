"""Media through the whole server: real bytes, real workers, a real (tiny) model."""

import io
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from PIL import Image

from ixc.v1 import media_pb2
from ixc.v1.chat_service_pb2 import ChatRequest
from ixc.v1.chat_service_pb2_grpc import ChatServiceStub
from ixc.v1.content_pb2 import Content, ContentList, ImagePart, Part, Prompt, Role, VideoPart
from ixc.v1.generation_service_pb2 import GenerateRequest
from ixc.v1.generation_service_pb2_grpc import GenerationServiceStub
from ixc.v1.media_service_pb2 import GetMediaRequest
from ixc.v1.media_service_pb2_grpc import MediaServiceStub
from ixc.v1.sampling_pb2 import SamplingParams
from ixc.v1.session_service_pb2 import CreateSessionRequest
from ixc.v1.session_service_pb2_grpc import SessionServiceStub
from ixc.v1.token_service_pb2 import CountTokensRequest
from ixc.v1.token_service_pb2_grpc import TokenServiceStub
from ixc_runtime import Engine, EngineConfig
from ixc_service.lifecycle import media_limits
from ixc_service.limits import Limits
from ixc_service.server import serving
from ixc_service.settings import Settings
from tests.fakes.clips import made_clip
from tests.fakes.running_server import error_info, events_of, kinds, refused
from tests.fakes.server_process import write_model
from tests.fakes.uploading import media_name, sha256, upload

CODE = grpc.StatusCode
FOUR = SamplingParams(max_output_tokens=4, ignore_eos=True)
LIMITS = Limits(max_image_pixels=100_000)


class Stubs:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.chats: Any = ChatServiceStub(channel)
        self.generations: Any = GenerationServiceStub(channel)
        self.media: Any = MediaServiceStub(channel)
        self.sessions: Any = SessionServiceStub(channel)
        self.tokens: Any = TokenServiceStub(channel)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stubs(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stubs]:
    folder = tmp_path_factory.mktemp("media")
    config = EngineConfig(
        model=str(write_model(folder / "model", max_positions=4096)), kv_bytes=8_000_000, threads=1
    )
    settings = Settings(listen=(f"unix:{folder}/ixc.sock",), limits=LIMITS)
    engine = await Engine.start(config, media=media_limits(LIMITS))
    async with (
        serving(settings, engine, data_dir=folder / "data") as server,
        grpc.aio.insecure_channel(server.addresses[0]) as channel,
    ):
        yield Stubs(channel)


pytestmark = pytest.mark.asyncio(loop_scope="module")


def picture(width: int = 200, height: int = 100) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 40).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


async def media_of(stubs: Stubs, data: bytes) -> media_pb2.Media:
    answer = await stubs.media.GetMedia(GetMediaRequest(name=media_name(data)))
    assert isinstance(answer.media, media_pb2.Media)
    return answer.media


async def test_a_picture_and_a_clip_are_talked_about(stubs: Stubs) -> None:
    """What GetMedia says, CountTokens counts and Chat reports; a second turn encodes nothing."""
    noise, film = picture(), made_clip("h264.mkv").read_bytes()
    await upload(stubs.media, noise, chunk_bytes=7000)
    await upload(stubs.media, film, mime_type="video/x-matroska")
    image, video = (await media_of(stubs, noise)).image, (await media_of(stubs, film)).video
    assert (image.width, image.height) == (200, 100)
    assert image.tiles_wide * image.tiles_high > 1
    assert (video.width, video.height, video.frames, video.fps) == (64, 48, 30, 10.0)
    assert (video.duration.seconds, video.shown_frames, video.codec) == (3, 3, "H.264")

    clip = Part(video=VideoPart(media=media_name(film)))
    message = Content(role=Role.ROLE_USER, parts=[clip, Part(text="What happens?")])
    session = (await stubs.sessions.CreateSession(CreateSessionRequest())).session.name
    prompt = Prompt(contents=ContentList(contents=[message]))
    count = await stubs.tokens.CountTokens(CountTokensRequest(prompt=prompt, session=session))
    assert count.video_tokens == video.tokens == count.videos[0].tokens
    assert count.videos[0].frames == 3
    request = ChatRequest(session=session, message=message, sampling=FOUR)
    events = await events_of(stubs.chats.Chat(request))
    assert kinds(events)[-1] == "completed"
    usage = events[-1].completed.usage
    assert usage.prompt_tokens == count.total_tokens
    assert usage.video_tokens == video.tokens
    assert events[1].prompt_processed.encoded_tiles > 0

    still = Part(image=ImagePart(media=media_name(noise)))
    message = Content(role=Role.ROLE_USER, parts=[Part(text="And "), still, Part(text="?")])
    prompt = Prompt(contents=ContentList(contents=[message]))
    count = await stubs.tokens.CountTokens(CountTokensRequest(prompt=prompt, session=session))
    assert count.images[0].tokens == image.tokens
    assert (count.video_tokens, len(count.videos)) == (video.tokens, 0)
    request = ChatRequest(session=session, message=message, sampling=FOUR)
    events = await events_of(stubs.chats.Chat(request))
    usage = events[-1].completed.usage
    assert usage.prompt_tokens == count.total_tokens
    assert (usage.image_tokens, usage.video_tokens) == (image.tokens, video.tokens)
    assert usage.cached_tokens > video.tokens

    request = ChatRequest(
        session=session, message=Content(parts=[Part(text="Well?")]), sampling=FOUR
    )
    processed = (await events_of(stubs.chats.Chat(request)))[1].prompt_processed
    assert processed.encoded_tiles == 0
    assert processed.cached_tokens > image.tokens + video.tokens


async def test_one_picture_in_either_way_is_one_to_the_cache(stubs: Stubs) -> None:
    """Sent inline it is what was uploaded: nothing is encoded again."""
    noise = picture(130, 90)
    await upload(stubs.media, noise)
    tiles = []
    for part in (ImagePart(media=media_name(noise)), ImagePart(inline_data=noise)):
        # Enough text for the picture's last tokens to lie in a full page, which is what is kept.
        parts = [Part(image=part), Part(text="Say all that there is to see. " * 2)]
        content = Content(role=Role.ROLE_USER, parts=parts)
        prompt = Prompt(contents=ContentList(contents=[content]))
        request = GenerateRequest(prompt=prompt, sampling=FOUR)
        events = await events_of(stubs.generations.Generate(request))
        tiles.append(events[1].prompt_processed.encoded_tiles)
    assert tiles[0] > 0
    assert tiles[1] == 0


@pytest.mark.parametrize(
    ("data", "reason", "codec"),
    [
        (picture()[:3000], "MEDIA_UNDECODABLE", ""),
        (picture(401, 300), "MEDIA_UNDECODABLE", ""),
        (made_clip("av1.mp4").read_bytes(), "MEDIA_TYPE_UNSUPPORTED", "AV1"),
        (made_clip("h264.mov").read_bytes()[:900], "MEDIA_UNDECODABLE", ""),
        (made_clip("sound-only.mp4").read_bytes(), "MEDIA_UNDECODABLE", ""),
    ],
    ids=["cut", "too large", "AV1", "cut clip", "sound only"],
)
async def test_media_that_cannot_be_used(
    stubs: Stubs, data: bytes, reason: str, codec: str
) -> None:
    """FAILED with the reason; inline, the same reason, with the digest in both."""
    media = (await upload(stubs.media, data)).media
    assert media.state == media_pb2.MEDIA_STATE_FAILED
    is_clip = media.mime_type.startswith("video/")
    part = (
        Part(video=VideoPart(inline_data=data))
        if is_clip
        else Part(image=ImagePart(inline_data=data))
    )
    content = Content(role=Role.ROLE_USER, parts=[part, Part(text="?")])
    request = GenerateRequest(prompt=Prompt(contents=ContentList(contents=[content])))
    with refused(reason, CODE.INVALID_ARGUMENT) as caught:
        await events_of(stubs.generations.Generate(request))
    info = error_info(caught[0])
    assert info.metadata["media"] == sha256(data)
    assert info.metadata["codec" if codec else "media"] == (codec or sha256(data))
    details = media.error.details[0]
    stored = type(info)()
    assert details.Unpack(stored)
    assert (stored.reason, stored.metadata["media"]) == (reason, sha256(data))


async def test_a_wish_beyond_the_clips_end(stubs: Stubs) -> None:
    """Known once the clip has been opened; the field is named."""
    film = made_clip("vp9.webm").read_bytes()
    part = VideoPart(inline_data=film)
    part.start.seconds = 3
    content = Content(role=Role.ROLE_USER, parts=[Part(video=part)])
    prompt = Prompt(contents=ContentList(contents=[content]))
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT) as caught:
        await stubs.tokens.CountTokens(CountTokensRequest(prompt=prompt))
    assert error_info(caught[0]).metadata["field"] == "start"
