"""A small story, from nothing: starts a server, shows it things, has it write, stops it.

    python clients/python/examples/demo.py [SERVER]

What `make demo` runs. The server is the real one, in processes of its own, on a Unix socket; the
model is the demo model: 135 million parameters, a tower for pictures of a few more, two cores are
enough. Everything printed is what comes out of it. On a terminal the pictures are shown as well.
"""

import os
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import decord
from PIL import Image
from rich.console import Console

import ixc_client
from ixc_cli.figures import figures
from ixc_cli.thumbnail import thumbnail

# Drawn by `models.demo.story` from seeds that the model was not trained on.
STORY = Path(__file__).parents[3] / "models/demo/story"
PICTURES = (
    (STORY / "harbour.png", ("Describe the picture.", "What colour is the boat?")),
    (STORY / "word.png", ("What word is printed?", "What colour is the diamond?")),
)
CLIP = STORY / "clip.mp4"
ABOUT_THE_CLIP = ("Which way does the circle move?", "What colour is it?")
PAGE = (
    "Make a small website for a tea house. The name is The Copper Kettle. Use an ivory background. "
    "The title is darkgreen. It has the sections Our Teas and Opening Hours. "
    'Add a button that says "Book a table".'
)
ARTICLE = "Please write an article based on the title: Why We Love Green Tea"

out = Console(highlight=False)


def main(server: str | None = None, folder: Path | None = None) -> None:
    began = time.monotonic()
    with _client(server) as ixc:
        model = ixc.model()
        out.print(f"{model.display_name}: {model.description}\n", style="dim", markup=False)
        greedy = ixc_client.Sampling(temperature=0, max_output_tokens=96)

        for picture, questions in PICTURES:
            with Image.open(picture) as opened:
                show([opened], name=picture.name)
            with ixc.session(sampling=greedy) as chat:
                tell(questions[0], chat.stream(questions[0], images=picture))
                tell(questions[1], chat.stream(questions[1]))

        show(frames_of(CLIP), name=CLIP.name)
        with ixc.session(sampling=greedy) as chat:
            tell(ABOUT_THE_CLIP[0], chat.stream(ABOUT_THE_CLIP[0], videos=CLIP))
            tell(ABOUT_THE_CLIP[1], chat.stream(ABOUT_THE_CLIP[1]))

        page = ixc.stream(
            PAGE,
            adapter="web",
            sampling=ixc_client.Sampling(temperature=0, max_output_tokens=400),
        )
        open_page(tell(PAGE, page), folder or Path(tempfile.mkdtemp(prefix="ixc-demo-")))

        article = ixc.stream(
            ARTICLE,
            adapter="write",
            sampling=ixc_client.Sampling(temperature=0, max_output_tokens=320),
        )
        tell(ARTICLE, article)
    included = "" if server else ", the start of the server included"
    out.print(f"{time.monotonic() - began:.0f} s in all{included}")


@contextmanager
def _client(server: str | None) -> Iterator[ixc_client.Client]:
    if server is None:
        out.print("starting a server with the demo model …")
    with ixc_client.Client(server) if server else ixc_client.launch("demo") as ixc:
        yield ixc


def show(pictures: Sequence[Image.Image], *, name: str) -> None:
    """Thumbnails on a terminal with colours; a line that names the file everywhere."""
    if out.color_system in {"256", "truecolor"}:
        out.print(thumbnail(pictures, columns=min(out.width, 100), rows=16))
    first = pictures[0]
    frames = f"{len(pictures)} frames of " if len(pictures) > 1 else ""
    out.print(f"[{name}: {frames}{first.width} x {first.height} pixels]", markup=False)


def frames_of(clip: Path) -> list[Image.Image]:
    """All of them: the story's clip has one a second, which is what the model sees."""
    return [Image.fromarray(frame.asnumpy()) for frame in decord.VideoReader(str(clip))]


def tell(question: str, stream: ixc_client.AnswerStream) -> str:
    """Prints the question, the answer as it comes, and what it cost."""
    out.print(f"› {question}", style="bold cyan", markup=False)
    with stream:
        for delta in stream:
            out.print(delta.text, end="", markup=False, soft_wrap=True)
    out.print(f"\n{figures(stream.answer)}\n", style="dim", markup=False, soft_wrap=True)
    return stream.answer.text


def open_page(html: str, folder: Path) -> None:
    """Writes the page to a file, and opens it where somebody sits before a screen."""
    path = folder / "page.html"
    path.write_text(html, encoding="utf-8")
    has_screen = sys.platform in {"darwin", "win32"} or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    is_opened = out.is_terminal and has_screen and webbrowser.open(path.as_uri())
    out.print(f"{'opened' if is_opened else 'the page is in'} {path}\n", soft_wrap=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
