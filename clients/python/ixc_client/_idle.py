"""A time limit for silence: grpc's blocking iterators wait for ever, so one thread watches them.

One thread a client, started with its first stream, asleep until the earliest moment at which a
call could have been silent for too long. Silence counts only while somebody waits for an event:
a caller who takes his time between two of them loses nothing.
"""

import threading
import time
import weakref
from collections.abc import Callable


class IdleGuard:
    """One call under watch. `with guard:` around a blocking read; `expired` says it was cut."""

    __slots__ = ("__weakref__", "_deadline", "_watch", "cancel", "expired", "seconds")

    def __init__(self, watch: "IdleWatch", seconds: float, cancel: Callable[[], object]) -> None:
        self._watch = watch
        self._deadline: float | None = None
        self.seconds = seconds
        self.cancel = cancel
        self.expired = False

    def __enter__(self) -> None:
        self._deadline = time.monotonic() + self.seconds

    def __exit__(self, *_: object) -> None:
        self._deadline = None

    def shorten(self, seconds: float) -> None:
        self.seconds = min(seconds, self.seconds)
        self._watch.look_again()

    def close(self) -> None:
        self._watch.forget(self)

    def wake_time(self, now: float) -> float:
        """When to look again. A guard armed later than `now` cannot expire before this."""
        return now + self.seconds if self._deadline is None else self._deadline


class IdleWatch:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        # Weak: a stream that its reader has dropped, and its call with it, is not kept alive here.
        self._guards: weakref.WeakSet[IdleGuard] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        self._closed = False

    def guard(self, seconds: float, cancel: Callable[[], object]) -> IdleGuard:
        guard = IdleGuard(self, seconds, cancel)
        with self._changed:
            self._guards.add(guard)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ixc-idle", daemon=True)
                self._thread.start()
            self._changed.notify()
        return guard

    def forget(self, guard: IdleGuard) -> None:
        with self._changed:
            self._guards.discard(guard)

    def look_again(self) -> None:
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            for guard in self._wait():
                guard.expired = True
                guard.cancel()
                del guard  # this frame, too, keeps nothing alive

    def _wait(self) -> list[IdleGuard]:
        """The guards that have been silent for too long; none after a sleep."""
        with self._changed:
            now = time.monotonic()
            silent = [guard for guard in self._guards if guard.wake_time(now) <= now]
            self._guards.difference_update(silent)
            if not silent and not self._closed:
                wake = min((guard.wake_time(now) for guard in self._guards), default=None)
                self._changed.wait(None if wake is None else wake - now)
            return silent
