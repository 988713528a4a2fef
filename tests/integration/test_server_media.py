"""MediaService: what becomes of an upload, media named in prompts, and their end."""

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
from tests.fakes.uploading import media_name, sha256, upload

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


async def until_settled(served: Served, data: bytes) -> media_pb2.Media:
    async with asyncio.timeout(10):
        while (media := await media_of(served, data)).state == PROCESSING:
            pass
    return media


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


async def test_names_are_digests_only(served: Served) -> None:
    """No path, no address can be said."""
    for name in ("media/../sessions.sqlite3", "file:///etc/passwd", "https://x/y.png", "media/"):
        with refused("FIELD_INVALID", CODE.INVALID_ARGUMENT):
            await served.media.GetMedia(pb.GetMediaRequest(name=name))
    assert is_digest(sha256(PNG))
