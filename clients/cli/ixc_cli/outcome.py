"""How a command ends: exit statuses, and the errors that lead to them without a traceback."""

import importlib.util
from collections.abc import Iterable
from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    FAILED = 1  # the server refused, or the work could not be done
    USAGE = 2  # the command line itself is wrong
    NO_SERVER = 3  # nobody answered, or a private server did not start
    MISSING_EXTRA = 4  # a part of ixc is not installed
    INTERRUPTED = 130  # Ctrl-C
    PIPE_CLOSED = 141  # whoever read our output has gone


class CommandError(Exception):
    """Ends the command with a message, which may be empty, and an exit status."""

    def __init__(self, message: str, status: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.status = status


def require(modules: Iterable[str], *, extra: str, command: str) -> None:
    """Says what to install, before an import fails halfway through the work."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise CommandError(
            f"{command} needs {', '.join(missing)}: pip install 'ixc[{extra}]'",
            Exit.MISSING_EXTRA,
        )
