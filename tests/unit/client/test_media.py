"""Pictures and clips: handed in, enclosed or uploaded, kept, listed, gone."""

import io
from pathlib import Path

import pytest

import ixc_client
from ixc_client import Image, Media, MediaState, Message, Video
from ixc_client.testing import FakeServer

CLIP = b"\0\0\0\x18ftypmp42" + bytes(100)
LARGE = b"\x89PNG" + bytes(4 << 20)  # beyond what one request takes inside
MEDIUM = b"\x89PNG" + bytes(2 << 20)  # within it, but not two of them


def methods(server: FakeServer) -> list[str]:
    return [call.method for call in server.calls]


def parts(server: FakeServer) -> list[object]:
    """The parts of the latest prompt: "inline", or the beginning of a name."""
    request = next(call.request for call in reversed(server.calls) if call.method == "Generate")
    found = []
    for part in request.prompt.contents.contents[0].parts:
        kind = part.WhichOneof("kind")
        shown = getattr(part, kind)
        found.append((kind, shown if kind == "text" else shown.WhichOneof("source")))
    return found


def test_a_small_clip_goes_inside_the_request(server: FakeServer, ixc: ixc_client.Client) -> None:
    """No other call is made for it."""
    answer = ixc.generate("What happens?", videos=CLIP)
    assert methods(server) == ["Generate"]
    assert parts(server) == [("video", "inline_data"), ("text", "What happens?")]
    assert (answer.usage.video_tokens, answer.usage.image_tokens) == (300, 0)


def test_pictures_stand_before_clips_and_both_before_the_text(
    server: FakeServer, ixc: ixc_client.Client, tmp_path: Path
) -> None:
    """However they are handed in."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(CLIP)
    expected = [("image", "inline_data"), ("video", "inline_data"), ("text", "x")]
    ixc.generate("x", images=b"a", videos=path)
    assert parts(server) == expected
    ixc.generate(("x", [b"a", Video(str(path))]))
    assert parts(server) == expected
    ixc.generate(Message(Image(b"a"), Video(io.BytesIO(CLIP)), "x"))
    assert parts(server) == expected


def test_options_of_a_clip_travel(server: FakeServer, ixc: ixc_client.Client) -> None:
    """Each in its field; left out, they stay unset."""
    ixc.generate(
        "x", videos=[Video(CLIP, max_frames=8, fps=0.5, start=0, end=2.5, label="it"), CLIP]
    )
    first, second, _ = server.calls[0].request.prompt.contents.contents[0].parts
    clip = first.video
    assert (clip.max_frames, clip.fps, clip.label) == (8, 0.5, "it")
    assert clip.HasField("start")
    assert (clip.start.ToMilliseconds(), clip.end.ToMilliseconds()) == (0, 2500)
    assert not any(second.video.HasField(name) for name in ("max_frames", "fps", "start", "end"))


def test_a_large_picture_is_uploaded_first(server: FakeServer, ixc: ixc_client.Client) -> None:
    """By itself, and once: the second time the server has it already."""
    for _ in range(2):
        answer = ixc.generate("What?", images=[LARGE, b"small"])
        assert parts(server) == [("image", "media"), ("image", "inline_data"), ("text", "What?")]
        assert answer.usage.image_tokens == 200
    assert methods(server) == ["GetServerInfo", *["UploadMedia", "Generate"] * 2]


def test_pictures_too_large_together_are_uploaded_as_far_as_needed(
    server: FakeServer, ixc: ixc_client.Client
) -> None:
    """The largest first, until the rest fits."""
    ixc.generate("x", images=[MEDIUM, MEDIUM + b"larger"])
    assert parts(server) == [("image", "inline_data"), ("image", "media"), ("text", "x")]


def test_sessions_and_counting_upload_too(server: FakeServer, ixc: ixc_client.Client) -> None:
    """Wherever pictures and clips may stand."""
    clip = CLIP + bytes(4 << 20)
    with ixc.session() as chat:
        assert chat.count("x", videos=clip).video_tokens == 300
        assert chat.say("x", videos=clip).usage.video_tokens == 300
        (turn,) = chat.turns()
    assert ixc.count("x", images=LARGE, videos=clip).total_tokens == 401
    (stored,) = turn.user.videos
    assert len(stored.sha256) == 64
    assert (stored.max_frames, stored.start) == (None, None)


def test_a_list_of_prompts_uploads_a_shared_clip_once_at_a_time(
    server: FakeServer, ixc: ixc_client.Client
) -> None:
    """Eight threads do not send the same bytes side by side."""
    clip = CLIP + bytes(4 << 20)
    server.reply(*["a"])
    answers = ixc.generate([("x", Video(clip))] * 8, concurrency=8)
    assert {answer.usage.video_tokens for answer in answers} == {300}
    assert [media.size_bytes for media in ixc.list_media()] == [len(clip)]


def test_uploaded_media_are_named_wherever_a_path_may_stand(
    server: FakeServer, ixc: ixc_client.Client
) -> None:
    """As the value, or by their name, as a shell keeps it."""
    picture, clip = ixc.upload(b"a picture"), ixc.upload(io.BytesIO(CLIP))
    for image, video in ((picture, clip), (picture.name, clip.name), (Image(picture), Video(clip))):
        ixc.generate("x", images=image, videos=video)
        assert parts(server) == [("image", "media"), ("video", "media"), ("text", "x")]


def test_a_clip_is_not_taken_for_a_picture(ixc: ixc_client.Client) -> None:
    """Nor the other way round, where it is known which it is."""
    picture, clip = ixc.upload(b"a picture"), ixc.upload(CLIP)
    with pytest.raises(ixc_client.UsageError, match="is a clip"):
        Image(clip)
    with pytest.raises(ixc_client.UsageError, match="is a picture"):
        Video(picture)
    with pytest.raises(ixc_client.UsageError, match="on the server"):
        Image(picture).read()


def test_what_is_known_of_media(ixc: ixc_client.Client) -> None:
    """Size, price and time, before anything is asked."""
    media = ixc.upload(CLIP, ttl=60, mime_type="video/quicktime")
    assert media == ixc.media(media.name) == ixc.media(media.name.removeprefix("media/"))
    assert (media.state, media.mime_type, media.ttl) == (MediaState.ACTIVE, "video/quicktime", 60)
    assert media.video is not None
    assert (media.video.duration, media.video.frames, media.video.shown_frames) == (10, 250, 10)
    assert (media.video.tokens, media.video.codec, media.image) == (300, "H.264", None)
    assert media.create_time is not None
    assert media.expire_time is not None
    assert (media.expire_time - media.create_time).total_seconds() == 60


def test_media_are_listed_newest_first_and_deleted(ixc: ixc_client.Client) -> None:
    """By value or by name; what is not there need not be."""
    made = [ixc.upload(bytes([n + 1])) for n in range(60)]
    assert [media.name for media in ixc.list_media()] == [media.name for media in reversed(made)]
    assert list(ixc.list_media(states=[MediaState.FAILED])) == []
    ixc.delete_media(made[0])
    ixc.delete_media(made[1].name)
    ixc.delete_media(made[1])
    assert len(list(ixc.list_media(states=[MediaState.ACTIVE, MediaState.PROCESSING]))) == 58
    with pytest.raises(ixc_client.MediaNotFound):
        ixc.media(made[0].name)
    with pytest.raises(ixc_client.MediaNotFound):
        ixc.generate("x", images=made[0])


def test_media_in_use_stay(ixc: ixc_client.Client) -> None:
    """The session could not go on without them; it is named."""
    media = ixc.upload(CLIP)
    with ixc.session() as chat:
        chat.say("x", videos=media)
        with pytest.raises(ixc_client.MediaInUse) as caught:
            ixc.delete_media(media)
        assert caught.value.metadata["session"] == chat.name
    ixc.delete_media(media)


def test_an_upload_waits_until_it_was_looked_at(
    server: FakeServer, ixc: ixc_client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it returns can be used."""
    monkeypatch.setattr("ixc_client._uploader._LOOK_SECONDS", 0.001)
    server.keep_processing(looks=3)
    assert ixc.upload(CLIP).state is MediaState.ACTIVE
    assert methods(server).count("GetMedia") == 3


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        ("RESOURCE_EXHAUSTED", "MEDIA_QUOTA", ixc_client.MediaQuotaReached),
        ("INVALID_ARGUMENT", "MEDIA_TYPE_UNSUPPORTED", ixc_client.MediaUndecodable),
        ("UNIMPLEMENTED", "FEATURE_DISABLED", ixc_client.FeatureDisabled),
    ],
)
def test_what_the_server_refuses_is_a_typed_error(
    server: FakeServer,
    ixc: ixc_client.Client,
    code: str,
    reason: str,
    kind: type[ixc_client.IxcError],
) -> None:
    """At once, also where the upload was not asked for, and the stream stays refused."""
    server.fail(code, reason, method="UploadMedia")
    with pytest.raises(kind):
        ixc.upload(CLIP)
    server.fail(code, reason, method="UploadMedia")
    stream = ixc.stream("x", images=LARGE)
    with pytest.raises(kind):
        next(stream)
    with pytest.raises(kind):
        _ = stream.answer
    assert "Generate" not in methods(server)


def test_an_object_that_failed_raises_its_error() -> None:
    """The upload went well; the bytes are of no use all the same."""
    from google.rpc import error_details_pb2, status_pb2

    from ixc.v1 import media_pb2
    from ixc_client import _resource_replies as replies

    status = status_pb2.Status(code=3, message="no picture")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="MEDIA_UNDECODABLE"))
    message = media_pb2.Media(name="media/x", state=media_pb2.MEDIA_STATE_FAILED, error=status)
    assert replies.media(message).state is MediaState.FAILED
    with pytest.raises(ixc_client.MediaUndecodable, match="no picture"):
        replies.usable(message)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [("/nowhere/clip.mp4", "the file '/nowhere/clip.mp4'"), (b"", "empty"), ("/", "directory")],
)
def test_files_that_cannot_be_read_are_named(
    server: FakeServer, ixc: ixc_client.Client, source: str | bytes, complaint: str
) -> None:
    """Before anything is sent."""
    with pytest.raises(ixc_client.MediaUnreadable, match=complaint):
        ixc.upload(source)
    assert server.calls == []


@pytest.mark.parametrize("name", ["media/abc", f"media/{'A' * 64}"])
def test_a_name_that_no_media_can_have(
    ixc: ixc_client.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Is told from a file that is missing; a file of such a path is a file."""
    with pytest.raises(ixc_client.MediaUnreadable, match="media/ and 64 of 0-9 and a-f"):
        ixc.generate("x", images=name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_bytes(b"\x89PNG")
    assert ixc_client.Image(name).read() == b"\x89PNG"


def test_a_file_that_shrinks_while_it_is_sent_is_an_error(
    server: FakeServer, ixc: ixc_client.Client, tmp_path: Path
) -> None:
    """Not a hang, and not a piece of it."""
    path = tmp_path / "a.png"
    path.write_bytes(LARGE)

    def shrink(sent: int, total: int) -> None:
        if sent:
            path.write_bytes(b"short")

    with pytest.raises(ixc_client.MediaUnreadable, match="changed"):
        ixc.upload(path, progress=shrink)
    assert list(ixc.list_media()) == []


def test_an_open_file_is_read_from_where_it_stands(ixc: ixc_client.Client, tmp_path: Path) -> None:
    """As everywhere in Python; a pipe, which cannot seek, too."""
    path = tmp_path / "a.png"
    path.write_bytes(b"head" + LARGE)
    with path.open("rb") as file:
        file.seek(4)
        assert ixc.upload(file).size_bytes == len(LARGE)
    with pytest.raises(ixc_client.MediaUnreadable, match="closed"):
        ixc.upload(file)
    pipe = type("Pipe", (), {"read": lambda self: b"bytes"})()
    assert ixc.upload(pipe).size_bytes == 5


def test_media_say_what_they_are() -> None:
    """In errors and at the prompt, without the bytes."""
    assert repr(Video("clip.mp4")) == "Video('clip.mp4')"
    assert repr(Video(b"abc")) == "Video(of 3 bytes)"
    name = "media/" + "0" * 64
    assert repr(Image(name)) == f"Image({name})"
    assert Image("media/cat.png").media == ""
    with pytest.raises(ixc_client.UsageError, match="start"):
        Video(b"x", start=-1)
    assert Media.__name__ in ixc_client.__all__
