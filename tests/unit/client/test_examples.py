"""The examples run as they stand, against any server."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ixc_client.testing import FakeServer

EXAMPLES = Path(__file__).parents[3] / "clients/python/examples"
Out = pytest.CaptureFixture[str]


def example(name: str) -> Callable[..., Any]:
    main: Callable[..., Any] = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    return main


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for path in paths:
        path.write_bytes(b"\x89PNG" + path.name.encode())
    return list(map(str, paths))


def test_describe_a_picture(server: FakeServer, capsys: Out, files: list[str]) -> None:
    """As it comes, with what it took."""
    server.reply("A ", "cat.")
    example("describe_picture")(files[0], server.address)
    assert capsys.readouterr().out == "A cat.\n\n100 tokens of picture, 6 of answer\n"


def test_two_turns_about_a_clip(server: FakeServer, capsys: Out, files: list[str]) -> None:
    """Sent with the first turn alone, sampled as on LMDeploy's page."""
    example("two_turns_about_a_clip")(files[0], server.address)
    create, *turns, _ = (call.request for call in server.calls)
    sampling = create.session.default_sampling
    assert (sampling.top_k, sampling.top_p, sampling.temperature) == (50, pytest.approx(0.8), 1)
    first, second = (turn.message.parts for turn in turns)
    assert first[0].WhichOneof("kind") == "video"
    assert first[1].text.startswith("Here are some frames of a video. ")
    assert [part.WhichOneof("kind") for part in second] == ["text"]
    assert "from the cache" in capsys.readouterr().out


def test_compare_cars(server: FakeServer, capsys: Out, files: list[str]) -> None:
    """Three pictures, a seed of 64 bits."""
    example("compare_cars")(*files, server.address)
    request = server.calls[-1].request
    sampling = request.sampling
    assert (sampling.top_k, sampling.seed) == (0, 89247526689433939)
    assert sampling.top_p == pytest.approx(0.8)
    kinds = [part.WhichOneof("kind") for part in request.prompt.contents.contents[0].parts]
    assert kinds == ["image", "image", "image", "text"]
    assert "300 of" in capsys.readouterr().out


def test_a_web_page(server: FakeServer, capsys: Out, tmp_path: Path) -> None:
    """Into a file, with the adapter and without a system text."""
    server.reply("<html>", "</html>")
    target = tmp_path / "page.html"
    example("web_page")(str(target), server.address)
    assert target.read_text() == "<html></html>"
    request = server.calls[-1].request
    assert (request.adapter, request.WhichOneof("system")) == ("web", None)
    assert request.sampling.max_output_tokens == 2048
    assert "13 tokens, stop" in capsys.readouterr().out


def test_an_article(server: FakeServer, capsys: Out) -> None:
    """As it comes, with the adapter for writing."""
    server.reply("French ", "pastries")
    example("write_article")(server.address)
    request = server.calls[-1].request
    assert (request.adapter, request.sampling.max_output_tokens) == ("write", 8192)
    assert capsys.readouterr().out == "French pastries\n\n15 tokens, stop\n"
