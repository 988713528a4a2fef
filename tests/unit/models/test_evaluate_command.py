"""`python -m models.demo.evaluate`: its exit status, what it prints and writes."""

import json
from pathlib import Path

import pytest

from ixc_client.testing import FakeServer
from models.demo.evaluate import main
from models.demo.evaluation import Report, drawn_tasks

Out = pytest.CaptureFixture[str]


def asked(server: FakeServer, *arguments: str) -> int:
    return main(["--target", server.address, "--tasks", "colour", "--concurrency", "1", *arguments])


def answer_all(server: FakeServer, count: int) -> int:
    """Scripts the right answer to every question; returns how many there are."""
    (task,) = drawn_tasks(count, names=["colour"])
    answers = [
        question.expected for seed in task.seeds_of(0) for question in task.make(seed).questions
    ]
    for answer in answers:
        server.reply(answer)
    return len(answers)


def test_right_answers(capsys: Out, tmp_path: Path) -> None:
    """A table, JSON with what belongs beside figures, and 0 although targets are required."""
    file = tmp_path / "results" / "colour.json"
    with FakeServer() as server:
        num_answers = answer_all(server, 3)
        assert asked(server, "--count", "3", "--json", str(file), "--require-targets") == 0
    assert "colour" in capsys.readouterr().out
    document = json.loads(file.read_text())
    report = Report.from_json(document)
    assert report.row("colour").right == 3
    assert sum(row.answers for row in report.rows) == num_answers
    assert report.subject.weights_digest
    assert {"command", "measured", "machine", "versions"} <= set(document)


def test_wrong_answers(capsys: Out, tmp_path: Path) -> None:
    """Are listed and saved as far as wished; they make 1 only where targets are required."""
    with FakeServer() as server:
        assert asked(server, "--count", "2") == 0
        folder = tmp_path / "failures"
        flags = ("--show-failures", "1", "--save-failures", str(folder), "--require-targets")
        assert asked(server, "--count", "2", *flags) == 1
    printed = capsys.readouterr().out
    assert "You said: " in printed
    assert "more" in printed
    names = {path.suffix for path in folder.iterdir()}
    assert names == {".txt", ".png"}
    assert (folder / "colour-0000-1.png").read_bytes().startswith(b"\x89PNG")
    assert "expected" in (folder / "colour-0000.txt").read_text()


def test_an_error(capsys: Out) -> None:
    """Makes 1 without any target, and is told."""
    with FakeServer() as server:
        server.fail("RESOURCE_EXHAUSTED", "MEDIA_QUOTA_REACHED", method="Chat")
        assert asked(server, "--count", "2") == 1
    printed = capsys.readouterr().out
    assert "colour: 1 not answered: Overloaded: scripted (MEDIA_QUOTA_REACHED)" in printed


def test_no_server(capsys: Out) -> None:
    """Is 3, and one line."""
    assert main(["--target", "127.0.0.1:1", "--tasks", "colour", "--count", "1"]) == 3
    assert capsys.readouterr().err.startswith("evaluate: ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--tasks", "smell"], "invalid choice: 'smell'"),
        (["--count", "0"], "0 cases of colour; 1 to 65536 can be"),
        (["--seed", "-1"], "seed -1 of colour"),
        (["--concurrency", "0"], "--concurrency is 0; at least 1 is needed"),
        (["--servers", "0"], "--servers is 0; at least 1 is needed"),
        (["--servers", "2", "--target", "127.0.0.1:1"], "with --target there is one"),
        (["--most-drop", "3"], "--most-drop needs --against"),
        (["--against", "/nowhere.json"], "No such file"),
    ],
)
def test_wrong_usage(arguments: list[str], told: str, capsys: Out) -> None:
    """Is told with the value, before any server is started."""
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 2
    assert told in capsys.readouterr().err
