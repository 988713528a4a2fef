"""Lines typed while an answer is being written: "/stop" at once, the rest when it is over.

A terminal in its usual mode hands over whole lines, so a look now and then is enough. Only for
terminals: a pipe's next line is the next message, and waits.
"""

import contextlib
import os
import select
import sys
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

_LOOK_SECONDS = 0.1


class TypedAhead:
    """`actions` are done as soon as their line is typed; other lines are kept in `lines`."""

    def __init__(self, actions: Mapping[str, Callable[[], None]]) -> None:
        self.lines: list[str] = []
        self._actions = actions
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="ixc-typed", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self.join()

    def join(self) -> None:
        """Waits until nobody looks any more: the answer is over, or the terminal is gone."""
        self._thread.join()

    def _look(self) -> None:
        with contextlib.suppress(OSError):  # the terminal hung up
            self._take_lines(sys.stdin.fileno())

    def _take_lines(self, terminal: int) -> None:
        while not self._over.is_set():
            readable, _, _ = select.select([terminal], [], [], _LOOK_SECONDS)
            if not readable:
                continue
            data = os.read(terminal, 4096)
            if not data:  # end of input: left for the loop to find
                return
            for line in data.decode(errors="replace").splitlines():
                action = self._actions.get(line.strip())
                if action is not None:
                    action()
                else:
                    self.lines.append(line)
