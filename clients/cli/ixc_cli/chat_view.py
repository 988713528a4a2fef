"""What `ixc chat` shows: the interface, and its plain form for pipes and simple terminals."""

import sys
from typing import Protocol

import ixc_client
from ixc_cli.figures import figures


class View(Protocol):
    def ask(self) -> str:
        """The next line. Raises EOFError at the end of input."""
        ...

    def begin(self) -> None:
        """An answer is about to come."""
        ...

    def delta(self, text: str) -> None: ...

    def end(self, answer: ixc_client.Answer | None) -> None:
        """The answer is over; None if it did not come to a regular end."""
        ...

    def note(self, text: str) -> None:
        """Something about the conversation, not of it."""
        ...

    def error(self, text: str) -> None: ...


class PlainView:
    """Answers on standard output, everything else on standard error."""

    def __init__(self, *, verbose: bool) -> None:
        self._verbose = verbose
        self._prompt = "> " if sys.stdin.isatty() and sys.stdout.isatty() else ""

    def ask(self) -> str:
        return input(self._prompt)

    def begin(self) -> None:
        pass

    def delta(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def end(self, answer: ixc_client.Answer | None) -> None:
        if answer is None or not answer.text.endswith("\n"):
            print(flush=True)
        if answer is not None and self._verbose:
            self.note(figures(answer))

    def note(self, text: str) -> None:
        print(text, file=sys.stderr)

    def error(self, text: str) -> None:
        print(f"error: {text}", file=sys.stderr)
