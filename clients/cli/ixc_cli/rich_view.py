"""What `ixc chat` shows on a terminal: Markdown as it comes, block by block.

Only the block that is being written is drawn anew; a finished one is printed for good. So long
answers neither flicker nor scroll away unfinished.
"""

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.markup import escape

import ixc_client
from ixc_cli.figures import figures


class RichView:
    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._live: Live | None = None
        self._block = ""

    def ask(self) -> str:
        return self._console.input("[bold cyan]› [/]")

    def begin(self) -> None:
        self._block = ""
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def delta(self, text: str) -> None:
        assert self._live is not None, "begin comes first"
        finished, self._block = split_blocks(self._block + text)
        for block in finished:
            self._live.console.print(Markdown(block), end="\n")
        self._live.update(Markdown(self._block), refresh=True)

    def end(self, answer: ixc_client.Answer | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._block.strip():
            self._console.print(Markdown(self._block))
        if answer is not None:
            self.note(figures(answer))

    def note(self, text: str) -> None:
        self._console.print(f"[dim]{escape(text)}[/]", soft_wrap=True)

    def error(self, text: str) -> None:
        self._console.print(f"[bold red]error:[/] {escape(text)}")


def split_blocks(text: str) -> tuple[list[str], str]:
    """Markdown blocks that are finished, and what is still being written.

    A blank line ends a block, but not inside a fence of code.
    """
    finished: list[str] = []
    block: list[str] = []
    fenced = False
    for line in text.splitlines(keepends=True):
        block.append(line)
        if line.lstrip().startswith("```"):
            fenced = not fenced
        if not fenced and line.endswith("\n") and not line.strip():
            written = "".join(block)
            if written.strip():
                finished.append(written)
            block = []
    return finished, "".join(block)
