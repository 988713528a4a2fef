"""The commands, called as the shell calls them, against a fake server."""

import io
import json
from pathlib import Path

import pytest

from ixc_cli.main import main
from ixc_cli.outcome import Exit
from ixc_client.testing import FakeServer
from ixc_service.settings import Settings, load

Out = pytest.CaptureFixture[str]


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "cat.png"
    path.write_bytes(b"\x89PNG")
    return str(path)


def stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_generate_prints_the_answer_and_nothing_else(server: FakeServer, capsys: Out) -> None:
    """So that it can stand in a pipe."""
    server.reply("Par", "is.")
    assert main(["generate", "--server", server.address, "The", "capital?"]) == Exit.OK
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("Paris.\n", "")
    assert server.calls[0].request.prompt.contents.contents[0].parts[0].text == "The capital?"


@pytest.mark.parametrize("words", [[], ["-"]])
def test_generate_reads_standard_input(
    server: FakeServer, capsys: Out, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """Without a prompt, or where it is asked to."""
    stdin(monkeypatch, "from a pipe\n")
    assert main(["generate", "--server", server.address, *words]) == Exit.OK
    assert capsys.readouterr().out == "You said: from a pipe\n"


def test_generate_passes_its_flags_on(server: FakeServer, picture: str) -> None:
    """Each to its field."""
    main(
        f"generate x --server {server.address} --image {picture} --hd-num 4 --adapter web "
        "--system brief --temperature 0 --top-k 5 --seed 7 --max-output-tokens 9 --stop ; "
        "--bad-word foo".split()
    )
    request = server.calls[0].request
    image = request.prompt.contents.contents[0].parts[0].image
    assert (image.inline_data, image.hd_num) == (b"\x89PNG", 4)
    assert (request.adapter, request.system_instruction) == ("web", "brief")
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_k, sampling.seed) == (0, 5, 7)
    assert sampling.max_output_tokens == 9
    assert (list(sampling.stop_sequences), list(sampling.bad_words)) == ([";"], ["foo"])
    assert not sampling.HasField("top_p")


def test_generate_json_holds_everything(server: FakeServer, capsys: Out) -> None:
    """Text, ids, usage and the settings in force, as one object."""
    server.reply("ab")
    main(["generate", "--json", "--server", server.address, "x", "--meta-instruction"])
    answer = json.loads(capsys.readouterr().out)
    assert (answer["text"], answer["token_ids"]) == ("ab", [97, 98])
    assert answer["usage"]["output_tokens"] == 2
    assert answer["sampling"] == {"seed": 1}
    assert server.calls[0].request.WhichOneof("system") == "system_preset"


def test_generate_verbose_gives_figures_on_standard_error(server: FakeServer, capsys: Out) -> None:
    """The answer's way stays clean."""
    server.reply("ab")
    main(["generate", "-v", "--server", server.address, "x"])
    captured = capsys.readouterr()
    assert captured.out == "ab\n"
    assert captured.err == "1 prompt tokens · 2 output tokens · stop\n"


def test_count_prints_a_number(server: FakeServer, capsys: Out, picture: str) -> None:
    """Bare for scripts, with its parts for people, as JSON for programs."""
    count = ["count", "--server", server.address, "--image", picture, "abc"]
    assert main(count) == Exit.OK
    assert capsys.readouterr().out == "103\n"
    main([*count, "-v"])
    assert f"{picture}: 560×560 pixels, 1×1 tiles, 100 tokens" in capsys.readouterr().out
    main([*count, "--json"])
    assert json.loads(capsys.readouterr().out)["image_tokens"] == 100


@pytest.fixture
def clip(tmp_path: Path) -> str:
    path = tmp_path / "cat.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42")
    return str(path)


def test_clips_go_with_generate_and_count(server: FakeServer, capsys: Out, clip: str) -> None:
    """With the choice of frames that the flags make."""
    flags = ["--max-frames", "8", "--fps", "2", "--start", "1.5", "--end", "3"]
    main(["generate", "-v", "x", "--server", server.address, "--video", clip, *flags])
    part = server.calls[0].request.prompt.contents.contents[0].parts[0].video
    assert (part.max_frames, part.fps) == (8, 2)
    assert (part.start.ToMilliseconds(), part.end.ToMilliseconds()) == (1500, 3000)
    assert "300 of clips" in capsys.readouterr().err
    main(["count", "-v", "x", "--server", server.address, "--video", clip])
    captured = capsys.readouterr().out
    assert captured.startswith("301\n")
    assert f"{clip}: 560×280 pixels, 10 frames, 1×3 tiles, 300 tokens" in captured


def test_upload_prints_names_that_other_commands_take(
    server: FakeServer, capsys: Out, clip: str, picture: str
) -> None:
    """And nothing else, so that a shell can keep them; what was found is said beside."""
    assert main(["upload", "-v", picture, clip, "--server", server.address]) == Exit.OK
    captured = capsys.readouterr()
    image, video = captured.out.split()
    assert f"{picture}: 4 bytes · image/png · 560×560 pixels · 100 tokens" in captured.err
    assert "10 of 250 frames shown" in captured.err
    shown = ["--image", image, "--video", video]
    assert main(["count", "x", "--server", server.address, *shown]) == Exit.OK
    assert capsys.readouterr().out == "401\n"


def test_upload_shows_a_bar_to_a_person(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, clip: str
) -> None:
    """On the terminal; standard output holds the name alone."""
    screen = type("Screen", (io.StringIO,), {"isatty": lambda self: True})()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    assert main(["upload", clip, "--server", server.address]) == Exit.OK
    assert "cat.mp4" in screen.getvalue()
    assert "12/12 bytes" in screen.getvalue()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["upload", "/nowhere.mp4"], Exit.USAGE, "/nowhere.mp4"),
        (["upload"], Exit.USAGE, "file"),
        (["models", "--models-root", "/nowhere"], Exit.USAGE, "/nowhere"),
        (["quantize", "a", "b", "--samples", "/nowhere"], Exit.USAGE, "No such file"),
        (["generate", "x", "--image", "media/abc"], Exit.USAGE, "64 of 0-9 and a-f"),
        (["generate", "x", "--video", "/nowhere.mp4"], Exit.USAGE, "/nowhere.mp4"),
        (["generate", "x", "--server", "127.0.0.1:1"], Exit.NO_SERVER, "127.0.0.1:1"),
        (["generate", "x", "--image", "/nowhere.png"], Exit.USAGE, "/nowhere.png"),
        (["generate", "x", "--ca", "/nowhere.pem"], Exit.USAGE, "/nowhere.pem"),
        (["dance"], Exit.USAGE, "invalid choice"),
        (["generate", "--dance"], Exit.USAGE, "--dance"),
        (["demo-model", "--gguf", "/nowhere.gguf"], Exit.USAGE, "/nowhere.gguf"),
        (["convert", "/nowhere", "/tmp/ixc-elsewhere"], Exit.FAILED, "nowhere is not a folder"),
    ],
)
def test_expected_errors_are_one_line_and_a_status(
    capsys: Out, arguments: list[str], status: Exit, words: str
) -> None:
    """Never a traceback."""
    assert main(arguments) == status
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_a_refusal_names_its_reason(server: FakeServer, capsys: Out) -> None:
    """And is told from a server that is not there."""
    arguments = ["generate", "x", "--adapter", "none", "--server", server.address]
    assert main(arguments) == Exit.FAILED
    assert "ADAPTER_UNAVAILABLE" in capsys.readouterr().err


def test_help_and_version(capsys: Out) -> None:
    """Every command and every exit status is documented."""
    assert main(["--help"]) == Exit.OK
    text = capsys.readouterr().out
    for word in ("serve", "chat", "generate", "count", "convert", "demo-model", "130 interrupted"):
        assert word in text
    assert main([]) == Exit.OK
    assert main(["--version"]) == Exit.OK
    assert "ixc" in capsys.readouterr().out


def test_a_missing_extra_is_named(capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["serve", "demo"]) == Exit.MISSING_EXTRA
    assert "pip install 'ixc[server]'" in capsys.readouterr().err


def test_ctrl_c_ends_with_its_own_status(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And stops the generation on the server."""
    server.reply("a", hold=True)

    def interrupt(screen: io.StringIO, text: str) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdout", type("Screen", (io.StringIO,), {"write": interrupt})())
    assert main(["generate", "x", "--server", server.address]) == Exit.INTERRUPTED
    assert server.calls[-1].method == "CancelGeneration"


def test_a_private_server_is_started_for_a_model(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    """By --model; progress goes to standard error."""
    monkeypatch.setattr("ixc_client.launch", lambda model: server.client())
    assert main(["generate", "x", "--model", "demo"]) == Exit.OK
    assert "private server for demo" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["generate", "count", "chat"])
def test_a_model_of_a_server_is_chosen_by_name(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """With --server, --model starts nothing."""
    stdin(monkeypatch, "hello\n")
    assert main([command, "--server", server.address, "--model", "fake"]) == Exit.OK
    request = server.calls[0].request
    asked = request.session if command == "chat" else request
    assert asked.model == "models/fake"


def test_the_demo_is_served_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not under its folder's, which is made of digests; unless another name is given after it."""
    served: list[Settings] = []

    def serve(argv: list[str], prog: str) -> int:
        served.append(load(argv, {}, prog=prog))
        return 0

    monkeypatch.setattr("ixc_service.__main__.main", serve)
    monkeypatch.setattr("ixc_cli.demo_model.build", lambda: Path("/cache/demo-2-0123"))
    for line in ("demo", "demo --model-name mine", "/models/cats"):
        assert main(["serve", *line.split()]) == Exit.OK
    assert [(str(each.model), each.model_name) for each in served] == [
        ("/cache/demo-2-0123", "demo"),
        ("/cache/demo-2-0123", "mine"),
        ("/models/cats", ""),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "models --default",
        "models --load a --unload b",
        "models --unload a --models-root x",
        "models --models-root x --server a:1",
        "merge-lora a b --task web --models-root x --server a:1",
        "merge-lora a b --task web --models-root x --load",
        "merge-lora a b --task web --adapters-root x",
        "quantize a b --device cpu",
        "chat --session a --model b",
        "generate x --model demo --tls",
    ],
)
def test_wishes_that_do_not_go_together(line: str, capsys: Out) -> None:
    """Are usage errors: nothing that was asked for is left out in silence."""
    assert main(line.split()) == Exit.USAGE
    assert "--" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["models", "--load", ""],
        ["models", "--unload="],
        ["operations", "--cancel", ""],
        ["watch", ""],
        ["merge-lora", "", "new", "--task", "web"],
        ["generate", "x", "--model", " "],
        ["generate", "x", "--server="],
    ],
)
def test_an_empty_name(arguments: list[str], capsys: Out) -> None:
    """Comes of a variable that is not set, and is never taken for none at all."""
    assert main(arguments) == Exit.USAGE
    assert "a name is expected" in capsys.readouterr().err


def test_a_new_model_is_not_called_as_its_source(tmp_path: Path, capsys: Out) -> None:
    """A server could not serve both; known before any work, without a server too."""
    source = tmp_path / "cats"
    source.mkdir()
    line = ["merge-lora", str(source), "cats", "--task", "web", "--models-root", str(tmp_path)]
    assert main(line) == Exit.USAGE
    assert "the source's own name" in capsys.readouterr().err
