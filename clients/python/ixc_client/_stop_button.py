"""A button that ends an upload on the way to a question that nobody wants answered any more.

Any thread may press it; whoever waits for the network then stops waiting.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator


class UploadStopped(Exception):
    """The button was pressed. Never leaves this package."""


class StopButton:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_pressed = False
        self._interruptions: list[Callable[[], object]] = []

    @property
    def is_pressed(self) -> bool:
        return self._is_pressed

    def press(self) -> None:
        with self._lock:
            self._is_pressed = True
            interruptions = tuple(self._interruptions)
        for interrupt in interruptions:
            interrupt()

    def check(self) -> None:
        if self._is_pressed:
            raise UploadStopped

    @contextlib.contextmanager
    def interrupting(self, interrupt: Callable[[], object]) -> Iterator[None]:
        """`interrupt` is called if the button is pressed meanwhile; UploadStopped comes of it,
        whatever else the interrupted work has to say.
        """
        with self._lock:
            self._interruptions.append(interrupt)
        try:
            self.check()
            yield
        except Exception:
            self.check()
            raise
        finally:
            with self._lock:
                self._interruptions.remove(interrupt)
        self.check()
