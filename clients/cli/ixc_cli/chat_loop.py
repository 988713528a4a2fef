"""The loop of `ixc chat`: lines in, messages and commands out. Knows no terminal and no flags."""

import contextlib
from collections.abc import Callable, Sequence

import ixc_client
from ixc_cli.chat_view import View
from ixc_cli.figures import media_figures
from ixc_cli.outcome import CommandError
from ixc_cli.typed_ahead import TypedAhead
from ixc_cli.upload import upload

HELP = """\
/image PATH   put a picture before the next message; may be repeated
/video PATH   put a clip before the next message; it is uploaded now
/stop         stop the answer that is being written (so does Ctrl-C)
/fork [TURN]  go on in a copy of this conversation, of its first TURN turns
/rewind [N]   take back the last N turns (1 if left out)
/help         this
/quit         leave (so does the end of input)
Anything else is a message."""


class ChatLoop:
    """One conversation. `interactive`: errors are shown and it goes on, as a person would want."""

    def __init__(
        self,
        ixc: ixc_client.Client,
        session: ixc_client.Session,
        view: View,
        *,
        adapter: str,
        shown: Sequence[ixc_client.Image | ixc_client.Video],
        as_image: Callable[[str], ixc_client.Image],
        as_video: Callable[[ixc_client.Media], ixc_client.Video],
        interactive: bool,
    ) -> None:
        self._ixc = ixc
        self._session = session
        self._view = view
        self._adapter = adapter
        self._shown = list(shown)  # goes with the next message
        self._as_image = as_image
        self._as_video = as_video
        self._interactive = interactive
        self._typed: list[str] = []
        self._commands: dict[str, Callable[[str], None]] = {
            "/image": self._add_image,
            "/video": self._add_video,
            "/stop": lambda _: view.note("nothing is being answered"),
            "/fork": self._fork,
            "/rewind": self._rewind,
            "/help": lambda _: view.note(HELP),
        }

    def run(self) -> None:
        """Until /quit or the end of input."""
        while (line := self._next_line()) is not None:
            word, _, rest = line.strip().partition(" ")
            if word in ("/quit", "/exit"):
                return
            try:
                if word.startswith("/") and "/" not in word[1:]:
                    self._command(word, rest.strip())
                elif line.strip() or self._shown:
                    self._answer(line)
            except (ixc_client.IxcError, CommandError) as error:
                if not self._interactive:
                    raise
                self._view.error(str(error))
            except KeyboardInterrupt:
                if not self._interactive:
                    raise
                self._view.note("\nstopped")

    def _next_line(self) -> str | None:
        if self._typed:
            return self._typed.pop(0)
        while True:
            try:
                return self._view.ask()
            except EOFError:
                return None
            except KeyboardInterrupt:
                if not self._interactive:
                    raise
                self._view.note("\n/quit leaves")

    def _command(self, word: str, rest: str) -> None:
        command = self._commands.get(word)
        if command is None:
            raise CommandError(f"no such command: {word}; /help lists them")
        command(rest)

    def _answer(self, line: str) -> None:
        shown, self._shown = self._shown, []
        message = ixc_client.Message(*shown, line) if line.strip() else ixc_client.Message(*shown)
        answer: ixc_client.Answer | None = None
        # What a stopped answer has said stays in the conversation: it has been read.
        stream = self._session.stream(message, adapter=self._adapter, keep_partial=True)
        typed = TypedAhead({"/stop": stream.cancel}) if self._interactive else None
        self._view.begin()
        try:
            with stream, typed or contextlib.nullcontext():
                answer = self._show(stream)
        finally:
            self._view.end(answer)
            self._typed += typed.lines if typed is not None else []

    def _show(self, stream: ixc_client.AnswerStream) -> ixc_client.Answer:
        while True:
            try:
                for delta in stream:
                    self._view.delta(delta.text)
                return stream.answer
            except KeyboardInterrupt:
                if not self._interactive or not stream.generation:  # no answer is under way yet
                    raise
                stream.cancel()  # its end, which the server now brings about, is still read

    def _add_image(self, path: str) -> None:
        if not path:
            raise CommandError("/image needs a path")
        image = self._as_image(path)
        # Looked at now, so that a wrong path is told now.
        size = f" ({image.open().size:,} bytes)" if not image.media else ""
        self._shown.append(image)
        self._view.note(f"{path}{size} goes with the next message")

    def _add_video(self, path: str) -> None:
        if not path:
            raise CommandError("/video needs a path")
        # Now, while the person sees how it goes; what it costs is known then, too.
        clip = ixc_client.Video(path)
        if clip.media:
            media = self._ixc.media(clip.media)
        else:
            clip.open()  # a wrong path, or name, is told by what it was to be
            media = upload(self._ixc, path)
        self._shown.append(self._as_video(media))
        self._view.note(f"{path} ({media_figures(media)}) goes with the next message")

    def _fork(self, turn: str) -> None:
        fork = self._session.fork(at_turn=_number(turn) if turn else None)
        self._view.note(f"now in {fork.name}, a copy of {self._session.name}")
        self._session = fork

    def _rewind(self, count: str) -> None:
        turns = self._session.info().turn_count
        remaining = max(0, turns - (_number(count) if count else 1))
        self._session.rewind(remaining)
        self._view.note(f"{remaining} {'turn remains' if remaining == 1 else 'turns remain'}")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise CommandError(f"a number is expected, not {text!r}")
    return int(text)
