"""`ixc chat`: through a pipe, and as a person would use it."""

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

import ixc_client
from ixc_cli.chat_loop import ChatLoop
from ixc_cli.main import main
from ixc_cli.outcome import Exit
from ixc_cli.rich_view import RichView, split_blocks
from ixc_cli.typed_ahead import TypedAhead
from ixc_client.testing import FakeServer

Out = pytest.CaptureFixture[str]


def piped(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, lines: Iterable[str], *flags: str
) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    return main(["chat", "--server", server.address, *flags])


def test_each_line_of_a_pipe_is_a_message(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    """In one session, which is gone afterwards."""
    server.reply("A ", "cat.")
    server.reply("Black.\n")
    assert piped(server, monkeypatch, ["What?", "", "Its colour?"]) == Exit.OK
    assert capsys.readouterr().out == "A cat.\nBlack.\n"
    methods = [call.method for call in server.calls]
    assert methods == ["CreateSession", "Chat", "Chat", "DeleteSession"]


def test_commands_work_through_a_pipe(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: Out, tmp_path: Path
) -> None:
    """Picture, clip, fork, rewind, help, quit; what they say goes to standard error."""
    picture, clip = tmp_path / "cat.png", tmp_path / "cat.mp4"
    picture.write_bytes(b"\x89PNG")
    clip.write_bytes(b"\0\0\0\x18ftypmp42")
    lines = [
        f"/image {picture}",
        f"/video {clip}",
        "one",
        "two",
        "/rewind",
        "/fork 1",
        "/stop",
        "/help",
        "/quit",
        "x",
    ]
    assert piped(server, monkeypatch, lines) == Exit.OK
    captured = capsys.readouterr()
    assert captured.out == "You said: one\nYou said: two\n"
    assert "goes with the next message" in captured.err
    assert "1 turn remains" in captured.err
    assert "a copy of sessions/" in captured.err
    assert "nothing is being answered" in captured.err
    assert "/rewind [N]" in captured.err
    first = next(call.request for call in server.calls if call.method == "Chat")
    assert first.message.parts[0].image.inline_data == b"\x89PNG"
    assert first.message.parts[1].video.media.startswith("media/")
    assert "10.0 s · 10 of 250 frames shown · 300 tokens" in captured.err


@pytest.mark.parametrize(
    "line",
    [
        "/image /nowhere.png",
        "/image",
        "/video /nowhere.mp4",
        "/video",
        "/dance",
        "/rewind one",
        "/fork x",
    ],
)
def test_the_first_error_ends_a_pipe(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: Out, line: str
) -> None:
    """A script must not go on as if nothing had happened."""
    assert piped(server, monkeypatch, [line, "never sent"]) != Exit.OK
    assert capsys.readouterr().err.startswith("ixc: ")
    assert "Chat" not in [call.method for call in server.calls]


def test_chat_begins_with_what_its_flags_name(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Out
) -> None:
    """Pictures and clips go with the first message; uploaded ones by name."""
    clip = tmp_path / "cat.mp4"
    clip.write_bytes(b"\0\0\0\x18ftypmp42")
    with server.client() as ixc:
        name = ixc.upload(clip).name
    lines = ["one", f"/video {name}", f"/image {name}", "two"]
    assert piped(server, monkeypatch, lines, "--video", str(clip), "--fps", "2") == Exit.OK
    first, second = (c.request.message for c in server.calls if c.method == "Chat")
    assert (first.parts[0].video.WhichOneof("source"), first.parts[0].video.fps) == (
        "inline_data", 2,
    )  # fmt: skip
    assert [part.video.media or part.image.media for part in second.parts] == [name, name, ""]
    assert second.parts[0].video.fps == 2


@pytest.mark.usefixtures("terminal")
def test_ctrl_c_stops_an_upload_and_not_the_program(
    server: FakeServer, ixc: ixc_client.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Asked for by /video, or on the way of a large picture; the conversation goes on."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ixc_client._uploader.Uploader._send", interrupt)
    monkeypatch.setattr("ixc_cli.chat_loop.upload", interrupt)
    clip = tmp_path / "cat.mp4"
    clip.write_bytes(b"a clip")
    person = Person(f"/video {clip}", "/image large.png", "what?", "hi")
    person.image = ixc_client.Image(bytes(4 << 20))
    talk(ixc, person)
    assert person.shown == [
        "\nstopped", "large.png (4,194,304 bytes) goes with the next message",
        "no answer", "\nstopped", "You said: ", "hi", "stop",
    ]  # fmt: skip


def test_a_path_at_the_beginning_of_a_message_is_no_command(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    """/etc/passwd is something one may ask about."""
    piped(server, monkeypatch, ["/etc/passwd is what?"])
    assert capsys.readouterr().out == "You said: /etc/passwd is what?\n"


def test_a_session_can_be_kept_and_taken_up(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    """Its name is told."""
    piped(server, monkeypatch, ["one"], "--keep", "--verbose", "--system", "brief")
    said = capsys.readouterr().err
    assert "prompt tokens" in said
    name = next(word for word in said.split() if word.startswith("sessions/")).rstrip(";")
    piped(server, monkeypatch, ["two"], "--session", name)
    assert "1 turns so far" in capsys.readouterr().err
    with server.client() as ixc:
        assert ixc.get_session(name).turn_count == 2


class Person:
    """A view whose lines are scripted; an exception among them is raised."""

    def __init__(self, *lines: str | BaseException) -> None:
        self.lines = list(lines)
        self.shown: list[str] = []
        self.on_delta = lambda: None
        self.image: ixc_client.Image | None = None  # what any path is taken for

    def ask(self) -> str:
        line = self.lines.pop(0) if self.lines else EOFError()
        if isinstance(line, BaseException):
            raise line
        return line

    def begin(self) -> None:
        pass

    def delta(self, text: str) -> None:
        self.shown.append(text)
        self.on_delta()

    def end(self, answer: ixc_client.Answer | None) -> None:
        self.shown.append(answer.finish_reason if answer else "no answer")

    def note(self, text: str) -> None:
        self.shown.append(text)

    def error(self, text: str) -> None:
        self.shown.append(f"error: {text}")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Standard input is a terminal; writing to this descriptor is typing."""
    keyboard, screen = os.openpty()
    with os.fdopen(screen) as stdin, os.fdopen(keyboard, "wb"):
        monkeypatch.setattr("sys.stdin", stdin)
        yield keyboard


def talk(ixc: ixc_client.Client, person: Person) -> ixc_client.Session:
    session = ixc.session().open()
    ChatLoop(
        ixc=ixc,
        session=session,
        view=person,
        adapter="",
        shown=[],
        as_image=lambda path: person.image or ixc_client.Image(path),
        as_video=ixc_client.Video,
        interactive=True,
    ).run()
    return session


@pytest.mark.usefixtures("terminal")
def test_ctrl_c_stops_the_answer_and_not_the_program(
    server: FakeServer, ixc: ixc_client.Client
) -> None:
    """What was said stays in the conversation, and it goes on."""
    server.reply("Once ", "upon", hold=True)
    server.reply("Hello")
    person = Person("a story", "hi")

    def interrupt() -> None:
        if person.shown == ["Once ", "upon"]:
            raise KeyboardInterrupt

    person.on_delta = interrupt
    talk(ixc, person)
    assert person.shown == ["Once ", "upon", "cancelled", "Hello", "stop"]


def test_stop_can_be_typed_while_an_answer_is_written(
    server: FakeServer, ixc: ixc_client.Client, terminal: int
) -> None:
    """Other lines typed meanwhile are the next messages."""
    server.reply("Once", hold=True)
    server.reply("Hello")
    person = Person("a story")
    person.on_delta = lambda: person.shown[-1] == "Once" and os.write(terminal, b"hi\n/stop\n")
    talk(ixc, person)
    assert person.shown == ["Once", "cancelled", "Hello", "stop"]
    assert server.calls[-1].request.message.parts[0].text == "hi"


@pytest.mark.usefixtures("terminal")
def test_an_error_is_shown_and_the_conversation_goes_on(
    server: FakeServer, ixc: ixc_client.Client
) -> None:
    """A person sees it and decides."""
    server.fail("RESOURCE_EXHAUSTED", "KV_CACHE_FULL", method="Chat", message="too long")
    person = Person("x", "/image /nowhere", KeyboardInterrupt(), "y")
    talk(ixc, person)
    assert person.shown[:2] == ["no answer", "error: too long (KV_CACHE_FULL)"]
    assert "cannot read the picture" in person.shown[2]
    assert person.shown[3:] == ["\n/quit leaves", "You said: ", "y", "stop"]


def test_a_terminal_that_hangs_up_ends_the_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not the program; the loop finds the end of input by itself."""
    reader, writer = os.pipe()
    os.close(writer)
    with os.fdopen(reader) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with TypedAhead({}) as typed:
            typed.join()
    assert typed.lines == []


@pytest.mark.parametrize(
    ("text", "blocks", "rest"),
    [
        ("a", [], "a"),
        ("a\n\nb", ["a\n\n"], "b"),
        ("```\na\n\nb", [], "```\na\n\nb"),
        ("```\na\n\nb\n```\n\nc", ["```\na\n\nb\n```\n\n"], "c"),
        ("\n\na\n\n", ["a\n\n"], ""),
    ],
)
def test_markdown_is_cut_at_blank_lines_outside_code(
    text: str, blocks: list[str], rest: str
) -> None:
    """A finished block never changes again."""
    assert split_blocks(text) == (blocks, rest)


def test_a_rendered_answer_is_whole(server: FakeServer, ixc: ixc_client.Client) -> None:
    """Every block once, in order, figures below."""
    screen = io.StringIO()
    view = RichView(Console(file=screen, force_terminal=True, width=60, color_system=None))
    server.reply("# Ti", "tle\n\nSome *te", "xt*.\n\n- one\n- two")
    answer = ixc.generate("x")
    view.begin()
    for piece in ("# Ti", "tle\n\nSome *te", "xt*.\n\n- one\n- two"):
        view.delta(piece)
    view.end(answer)
    view.error("a [red] herring")
    shown = screen.getvalue()
    for word in ("Title", "Some text.", "one", "two", "output tokens", "a [red] herring"):
        assert word in shown
