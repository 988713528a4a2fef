"""`make demo` tells its story to the end, with whatever the model answers."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ixc_client.testing import FakeServer
from models.demo.story.__main__ import FILES

ROOT = Path(__file__).parents[3]
STORY = ROOT / "models/demo/story"


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The example as it stands, on a screen that must not be used."""
    module = runpy.run_path(str(ROOT / "clients/python/examples/demo.py"))
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("webbrowser.open", lambda url: pytest.fail(f"opened {url}"))
    main: Callable[..., Any] = module["main"]
    return main


def test_the_story(
    demo: Callable[..., Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Two pictures, a clip, a page in a file, an article; a pipe opens no browser."""
    answers = ("[red] boats", "Red.", "Birds", "No.", "Down.", "Pink.", "<html></html>", "# Tea")
    with FakeServer() as server:
        for answer in answers:
            server.reply(answer)
        demo(server.address, tmp_path)
        asked = [call for call in server.calls if call.method in {"Chat", "Generate"}]
    printed = capsys.readouterr().out
    assert all(answer in printed for answer in answers)
    assert "▀" not in printed
    assert (tmp_path / "page.html").read_text() == "<html></html>"
    assert f"the page is in {tmp_path / 'page.html'}" in printed
    assert [call.request.adapter for call in asked[6:]] == ["web", "write"]
    kinds = [[part.WhichOneof("kind") for part in call.request.message.parts] for call in asked[:6]]
    assert kinds[::2] == [["image", "text"], ["image", "text"], ["video", "text"]]
    assert kinds[1::2] == [["text"]] * 3


def test_what_it_shows_is_small() -> None:
    """A clone carries it, so it may weigh next to nothing."""
    assert sum((STORY / name).stat().st_size for name in FILES) < 60_000
