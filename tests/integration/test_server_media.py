"""MediaService: uploads that survive broken streams and restarts, and media named in prompts."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from ixc.v1 import generation_service_pb2 as generation_pb
from ixc.v1 import media_pb2
from ixc.v1 import media_service_pb2 as pb
from ixc.v1 import session_service_pb2 as session_pb
from ixc.v1 import token_service_pb2 as token_pb
from ixc.v1.chat_service_pb2 import ChatRequest
from ixc.v1.content_pb2 import Content, ContentList, ImagePart, Part, Prompt, Role, VideoPart
from ixc_runtime import VideoPart as RuntimeVideoPart
from ixc_runtime import VideoSource
from ixc_runtime.errors import MediaTypeUnsupported, QueueFull
from ixc_service.identifiers import is_digest
from tests.fakes.fake_engine import VIDEO_TOKENS
from tests.fakes.running_server import (
    PNG,
    Served,
    error_info,
    events_of,
    kinds,
    refused,
    running_server,
    violations_of,
)
from tests.fakes.uploading import chunk_of, media_name, pieces_of, sha256, spec_of, upload

CODE = grpc.StatusCode
MP4 = b"\x00\x00\x00\x18ftypmp42 and frames" * 50
ACTIVE, FAILED = media_pb2.MEDIA_STATE_ACTIVE, media_pb2.MEDIA_STATE_FAILED
PROCESSING = media_pb2.MEDIA_STATE_PROCESSING


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


async def listed(served: Served, **fields: Any) -> list[str]:
    answer = await served.media.ListMedia(pb.ListMediaRequest(**fields))
    return [media.name for media in answer.media]


def prompt_of(*parts: Part) -> Prompt:
    content = Content(role=Role.ROLE_USER, parts=[*parts, Part(text="What is it?")])
    return Prompt(contents=ContentList(contents=[content]))


def picture(data: bytes, **fields: Any) -> Part:
    return Part(image=ImagePart(media=media_name(data), **fields))


def clip(data: bytes, **fields: Any) -> Part:
    return Part(video=VideoPart(media=media_name(data), **fields))


def staged(served: Served) -> list[bytes]:
    return [path.read_bytes() for path in (served.folder / "data" / ".uploads").iterdir()]


# ---- uploading


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


async def until_settled(served: Served, data: bytes) -> media_pb2.Media:
    async with asyncio.timeout(10):
        while (media := await media_of(served, data)).state == PROCESSING:
            pass
    return media


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


# ---- what is in it


async def test_a_broken_picture_fails(served: Served) -> None:
    """The RPC is OK, the object FAILED with the reason that a prompt gets too."""
    broken = PNG + b" broken"
    media = (await upload(served.media, broken)).media
    assert media.state == FAILED
    assert media.WhichOneof("info") is None
    assert media.error.code == CODE.INVALID_ARGUMENT.value[0]
    with refused("MEDIA_UNDECODABLE", CODE.INVALID_ARGUMENT) as caught:
        prompt = prompt_of(picture(broken))
        await events_of(served.generations.Generate(generation_pb.GenerateRequest(prompt=prompt)))
    assert error_info(caught[0]).metadata["media"] == sha256(broken)
    assert await listed(served, states=[FAILED]) == [media_name(broken)]
    assert await listed(served, states=[ACTIVE]) == []


async def test_a_failed_object_may_be_tried_again(served: Served) -> None:
    """A worker that was killed is not the file's fault."""
    served.engine.examination = MediaTypeUnsupported("no AV1", codec="AV1")
    assert (await upload(served.media, MP4)).media.state == FAILED
    served.engine.examination = None
    assert (await upload(served.media, MP4)).media.state == ACTIVE


async def test_busy_workers_leave_it_processing(served: Served) -> None:
    """Not ready for a prompt; whoever asks for it, and the sweep, tries again."""
    served.engine.examination = QueueFull("full")
    assert (await upload(served.media, PNG)).media.state == PROCESSING
    with refused("MEDIA_NOT_READY", CODE.FAILED_PRECONDITION):
        request = token_pb.CountTokensRequest(prompt=prompt_of(picture(PNG)))
        await served.tokens.CountTokens(request)
    served.engine.examination = None
    await served.server.housekeeping.sweep()
    assert (await until_settled(served, PNG)).state == ACTIVE


async def test_what_a_crash_left_processing(tmp_path: Path) -> None:
    """Is examined after the next start."""
    async with running_server(tmp_path) as served:
        served.engine.examination = QueueFull("full")
        await upload(served.media, PNG)
    async with running_server(tmp_path) as served:
        assert (await until_settled(served, PNG)).image.tokens == 10


# ---- in prompts


async def test_media_named_in_a_prompt(served: Served) -> None:
    """CountTokens prices them as Generate reports them; the engine gets files, not names."""
    await upload(served.media, PNG)
    await upload(served.media, MP4)
    settings = {"max_frames": 4, "fps": 0.5, "label": "Clip"}
    times = {"start": Duration(seconds=1), "end": Duration(nanos=1_500_000_000 % 10**9, seconds=1)}
    prompt = prompt_of(picture(PNG, hd_num=2), clip(MP4, **settings, **times))
    count = await served.tokens.CountTokens(token_pb.CountTokensRequest(prompt=prompt))
    assert (count.image_tokens, count.video_tokens) == (10, 20)
    assert [image.tokens for image in count.images] == [10]
    assert [(video.frames, video.tokens) for video in count.videos] == [(2, 20)]
    events = await events_of(
        served.generations.Generate(generation_pb.GenerateRequest(prompt=prompt))
    )
    assert kinds(events)[-1] == "completed"
    accepted, usage = events[0].accepted, events[-1].completed.usage
    assert (accepted.prompt_tokens, accepted.video_tokens) == (count.total_tokens, 20)
    assert (usage.image_tokens, usage.video_tokens) == (10, 20)
    parts = served.engine.requests[-1].prompt.messages[0].parts
    assert parts[0].hd_num == 2
    assert parts[1] == RuntimeVideoPart(
        source=VideoSource(digest=sha256(MP4), path=served.folder / "data" / "media" / sha256(MP4)),
        max_frames=4,
        fps=0.5,
        start_seconds=1.0,
        end_seconds=1.5,
        label="Clip",
    )


async def test_a_small_clip_inline(served: Served) -> None:
    """Like a picture: stored, counted, answered."""
    prompt = prompt_of(Part(video=VideoPart(inline_data=MP4, mime_type="video/mp4")))
    count = await served.tokens.CountTokens(token_pb.CountTokensRequest(prompt=prompt))
    assert count.video_tokens == VIDEO_TOKENS
    with refused("MEDIA_NOT_FOUND", CODE.NOT_FOUND):
        await media_of(served, MP4)


async def test_turns_refer_to_media_by_digest(served: Served) -> None:
    """A later turn needs nothing sent again; what is stored says type and settings."""
    await upload(served.media, MP4)
    session = await served.new_session()
    message = Content(parts=[clip(MP4, max_frames=3), Part(text="What happens?")])
    await events_of(served.chats.Chat(ChatRequest(session=session, message=message)))
    events = await served.chat(session, "And then?")
    assert events[-1].completed.usage.cached_tokens > VIDEO_TOKENS
    turns = (await served.sessions.ListTurns(session_pb.ListTurnsRequest(parent=session))).turns
    stored = turns[0].user.parts[0].video
    assert stored == VideoPart(mime_type="video/mp4", max_frames=3, sha256=sha256(MP4))
    assert turns[0].usage.video_tokens == VIDEO_TOKENS


@pytest.mark.parametrize(
    ("part", "field"),
    [
        (Part(image=ImagePart(media="media/x")), "image.media"),
        (Part(image=ImagePart(media=media_name(PNG), mime_type="image/png")), "image.mime_type"),
        (Part(image=ImagePart(media=media_name(MP4))), "image.media"),
        (Part(video=VideoPart(media=media_name(PNG))), "video.media"),
        (Part(video=VideoPart()), "video.inline_data"),
        (Part(video=VideoPart(inline_data=MP4, max_frames=0)), "video.max_frames"),
        (Part(video=VideoPart(inline_data=MP4, max_frames=65)), "video.max_frames"),
        (Part(video=VideoPart(inline_data=MP4, fps=0)), "video.fps"),
        (Part(video=VideoPart(inline_data=MP4, fps=float("nan"))), "video.fps"),
        (Part(video=VideoPart(inline_data=MP4, start=Duration(seconds=-1))), "video.start"),
        (
            Part(
                video=VideoPart(inline_data=MP4, start=Duration(seconds=2), end=Duration(seconds=2))
            ),
            "video.end",
        ),
        (Part(video=VideoPart(inline_data=MP4, label="two\nlines")), "video.label"),
    ],
)
async def test_parts_that_cannot_be(served: Served, part: Part, field: str) -> None:
    """Each names its field; a clip is no picture, however it is named."""
    await upload(served.media, PNG)
    await upload(served.media, MP4)
    request = generation_pb.GenerateRequest(prompt=prompt_of(part))
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT) as caught:
        await events_of(served.generations.Generate(request))
    assert violations_of(caught[0]) == {f"prompt.contents.contents[0].parts[0].{field}"}


@pytest.mark.parametrize(
    "part",
    [Part(image=ImagePart(inline_data=MP4)), Part(video=VideoPart(inline_data=PNG))],
)
async def test_bytes_in_the_wrong_kind_of_part(served: Served, part: Part) -> None:
    """A clip is no picture, and the other way round."""
    request = generation_pb.GenerateRequest(prompt=prompt_of(part))
    with refused("MEDIA_TYPE_UNSUPPORTED", CODE.INVALID_ARGUMENT):
        await events_of(served.generations.Generate(request))


async def test_media_that_are_not_there(served: Served) -> None:
    """NOT_FOUND by name, for prompts of every kind."""
    session = await served.new_session()
    message = Content(parts=[picture(PNG)])
    for call in (
        events_of(
            served.generations.Generate(
                generation_pb.GenerateRequest(prompt=prompt_of(picture(PNG)))
            )
        ),
        events_of(served.chats.Chat(ChatRequest(session=session, message=message))),
        served.tokens.CountTokens(token_pb.CountTokensRequest(prompt=prompt_of(picture(PNG)))),
        media_of(served, PNG),
    ):
        with refused("MEDIA_NOT_FOUND", CODE.NOT_FOUND) as caught:
            await call
        assert error_info(caught[0]).metadata["media"] == media_name(PNG)


# ---- the end


async def test_media_expire_but_not_under_a_session(served: Served) -> None:
    """What a live session's turn refers to stays, and goes with the session."""
    await upload(served.media, PNG)
    await upload(served.media, MP4)
    session = await served.new_session(ttl=Duration(seconds=86_400))
    served.clock.wall += 86_000
    message = Content(parts=[picture(PNG), Part(text="What is it?")])
    await events_of(served.chats.Chat(ChatRequest(session=session, message=message)))
    served.clock.wall += 1000
    await served.server.housekeeping.sweep()
    assert await listed(served) == [media_name(PNG)]
    events = await served.chat(session, "And now?")
    assert kinds(events)[-1] == "completed"
    await served.sessions.DeleteSession(session_pb.DeleteSessionRequest(name=session))
    with refused("MEDIA_NOT_FOUND", CODE.NOT_FOUND):
        await media_of(served, PNG)
    await served.server.housekeeping.sweep()
    assert list((served.folder / "data" / "media").iterdir()) == []


async def test_deleting(served: Served) -> None:
    """For good, with a name that then is unknown; twice only if that is asked for."""
    await upload(served.media, PNG)
    delete = pb.DeleteMediaRequest(name=media_name(PNG))
    await served.media.DeleteMedia(delete)
    with refused("MEDIA_NOT_FOUND", CODE.NOT_FOUND):
        await served.media.DeleteMedia(delete)
    delete.allow_missing = True
    await served.media.DeleteMedia(delete)
    assert await listed(served) == []


async def test_deleting_what_a_session_needs(served: Served) -> None:
    """Refused with the session's name; also while the first turn is still under way."""
    await upload(served.media, PNG)
    session = await served.new_session()
    delete = pb.DeleteMediaRequest(name=media_name(PNG))
    served.engine.will_say("It", " is", hold_at=2)
    message = Content(parts=[picture(PNG), Part(text="What is it?")])
    call = served.chats.Chat(ChatRequest(session=session, message=message))
    await call.read()
    with refused("MEDIA_IN_USE", CODE.FAILED_PRECONDITION) as caught:
        await served.media.DeleteMedia(delete)
    assert error_info(caught[0]).metadata["session"] == ""
    served.engine.release.set()
    await events_of(call)
    with refused("MEDIA_IN_USE", CODE.FAILED_PRECONDITION) as caught:
        await served.media.DeleteMedia(delete)
    assert error_info(caught[0]).metadata["session"] == session
    rewind = session_pb.RewindSessionRequest(name=session, to_turn=0)
    await served.sessions.RewindSession(rewind)
    await served.media.DeleteMedia(delete)


async def test_media_are_listed_in_pages(served: Served) -> None:
    """Newest first; a token belongs to its own list."""
    pictures = [PNG + bytes([n]) for n in range(5)]
    for each in pictures:
        await upload(served.media, each)
        served.clock.wall += 1
    names = [media_name(each) for each in reversed(pictures)]
    seen, token = [], ""
    while True:
        request = pb.ListMediaRequest(page_size=2, page_token=token)
        page = await served.media.ListMedia(request)
        seen += [media.name for media in page.media]
        if not (token := page.next_page_token):
            break
    assert seen == names
    first = await served.media.ListMedia(pb.ListMediaRequest(page_size=2))
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
        await listed(served, page_token=first.next_page_token, states=[ACTIVE])
    with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
        await listed(served, states=[99])


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


async def test_names_are_digests_only(served: Served) -> None:
    """No path, no address can be said."""
    for name in ("media/../sessions.sqlite3", "file:///etc/passwd", "https://x/y.png", "media/"):
        with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
            await served.media.GetMedia(pb.GetMediaRequest(name=name))
    assert is_digest(sha256(PNG))


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
