"""Prompts and pictures, as they go into requests."""

import io
from pathlib import Path

import pytest

import ixc_client
from ixc.v1 import content_pb2, sampling_pb2
from ixc_client import Conversation, Image, Message, Output, Run, Sampling, TokenPrompt
from ixc_client import _requests as requests
from ixc_client._enclosures import Enclosures
from ixc_client._media import as_images

PNG = b"\x89PNG..."


def written(prompt: ixc_client.PromptLike, images: object = ()) -> content_pb2.Prompt:
    message = content_pb2.Prompt()
    requests.write_prompt(message, prompt, as_images(images), Enclosures())  # type: ignore[arg-type]
    return message


def parts(prompt: ixc_client.PromptLike, images: object = ()) -> list[str | bytes]:
    message = written(prompt, images)
    return [
        part.text if part.WhichOneof("kind") == "text" else part.image.inline_data
        for content in message.contents.contents
        for part in content.parts
    ]


def test_pictures_come_from_paths_bytes_and_files(tmp_path: Path) -> None:
    """In the order given, before the text, as the model was trained."""
    file = tmp_path / "a.png"
    file.write_bytes(b"path")
    images = [file, str(file), b"bytes", io.BytesIO(b"file"), Image(b"image")]
    assert parts("What?", images) == [b"path", b"path", b"bytes", b"file", b"image", "What?"]


@pytest.mark.parametrize("images", [PNG, io.BytesIO(PNG), Image(PNG)])
def test_one_picture_needs_no_list(images: object) -> None:
    """The commonest case is the shortest."""
    assert parts("What?", images) == [PNG, "What?"]


def test_a_pair_is_a_text_and_its_pictures() -> None:
    """As in the pipelines people come from."""
    assert parts(("Compare", [b"a", b"b"])) == [b"a", b"b", "Compare"]
    assert parts(("What?", b"a")) == [b"a", "What?"]


def test_a_message_keeps_its_order() -> None:
    """Pictures stand where they are put."""
    assert parts(Message("Compare", Image(b"a"), "with", Image(b"b"))) == [
        "Compare", b"a", "with", b"b",
    ]  # fmt: skip


def test_a_conversation_keeps_its_roles() -> None:
    """History of the caller's own."""
    prompt = Conversation(Message("Hi"), Message.assistant("Hello"), Message("Bye"))
    roles = [content.role for content in written(prompt).contents.contents]
    user, assistant = content_pb2.ROLE_USER, content_pb2.ROLE_ASSISTANT
    assert roles == [user, assistant, user]


def test_token_prompts_are_taken_as_they_are() -> None:
    """Nothing is put around them."""
    assert list(written(TokenPrompt([1, 2])).tokens.token_ids) == [1, 2]


@pytest.mark.parametrize(
    ("prompt", "images"),
    [(TokenPrompt([1]), PNG), (Conversation(Message("Hi")), PNG), (7, ()), (("a", b"b", "c"), ())],
)
def test_what_cannot_be_meant_is_refused(prompt: object, images: object) -> None:
    """Before anything is sent."""
    with pytest.raises(ixc_client.UsageError):
        written(prompt, images)  # type: ignore[arg-type]


def test_a_path_among_message_parts_is_refused() -> None:
    """A str there is text; a Path is surely meant as a picture."""
    with pytest.raises(ixc_client.UsageError, match="wrap"):
        Message("What?", Path("cat.jpg"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("/nowhere/cat.jpg", "'/nowhere/cat.jpg'"),
        (b"", "empty"),
        (io.StringIO("text"), "binary mode"),
    ],
)
def test_pictures_that_cannot_be_read_are_named(source: object, complaint: str) -> None:
    """With the reason, and as an error of ours."""
    with pytest.raises(ixc_client.MediaUnreadable, match=complaint):
        Image(source).read()  # type: ignore[arg-type]


def test_picture_options_travel() -> None:
    """Tiling and label of each picture by itself; left out, they stay unset."""
    message = written(Message(Image(b"a", hd_num=4, label="left"), Image(b"b"))).contents.contents[
        0
    ]
    first, second = (part.image for part in message.parts)
    assert (first.hd_num, first.label) == (4, "left")
    assert not second.HasField("hd_num")


def test_sampling_tells_unset_from_zero() -> None:
    """0 is greedy; unset is the model's default."""
    message = requests.sampling_message(Sampling(temperature=0, stop_sequences=("\n",)))
    assert message.HasField("temperature")
    assert not message.HasField("top_p")
    assert list(message.stop_sequences) == ["\n"]


def test_sampling_shows_only_what_is_given() -> None:
    """Fifteen Nones help nobody."""
    assert repr(Sampling(temperature=0, seed=7)) == "Sampling(temperature=0, seed=7)"


def test_output_options_travel() -> None:
    """Zero logprobs are not none, and a flush interval of zero is not the default."""
    message = requests.output_message(Output(top_logprobs=0, flush_interval=0), whole=False)
    assert message.HasField("top_logprobs")
    assert message.HasField("flush_interval")
    assert message.delivery == sampling_pb2.DELIVERY_DELTAS


def test_a_client_that_resumes_asks_for_grace() -> None:
    """Otherwise a broken connection would stop what the client is about to come back to."""
    grace, cancel = sampling_pb2.ON_DISCONNECT_GRACE, sampling_pb2.ON_DISCONNECT_CANCEL
    unspecified = sampling_pb2.ON_DISCONNECT_UNSPECIFIED
    assert requests.run_message(None, resumable=True).on_disconnect == grace
    assert requests.run_message(None, resumable=False).on_disconnect == unspecified
    wanted = Run(on_disconnect=ixc_client.OnDisconnect.CANCEL)
    assert requests.run_message(wanted, resumable=True).on_disconnect == cancel


def test_session_update_tells_not_given_from_none() -> None:
    """Not given stays as it is, None goes back to the default."""
    request = requests.update_session(
        "sessions/a", ttl=None, labels={"a": "b"}, sampling=ixc_client.NOT_GIVEN, etag=""
    )
    assert list(request.update_mask.paths) == ["ttl", "labels"]
    assert not request.session.HasField("ttl")


def test_request_ids_are_fresh() -> None:
    """Each request has its own, so that none is taken for another."""
    ids = {
        requests.generate("x", whole=False, resumable=True, enclosures=Enclosures()).request_id
        for _ in range(10)
    }
    assert len(ids) == 10
    assert "" not in ids
