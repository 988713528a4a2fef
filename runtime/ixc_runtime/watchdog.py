"""Tells a hung engine from a busy one and from an idle one.

A busy engine speaks after each step; an idle one answers questions at once. One that owes somebody
an answer, is asked, and still says nothing for the whole patience, hangs. Knows no process and no
socket: it is told what was heard, and says when to give up.
"""

import asyncio
from collections.abc import Callable

# Silence is counted in slices, so that a front end that was itself stopped for a while (a laptop's
# lid, a debugger) misses one slice and does not blame the engine.
_SLICES = 8


class Watchdog:
    """`seconds` is the patience: longer than any step may take."""

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError(f"the patience is {seconds} s; it must be above 0")
        self.seconds = seconds
        self._num_heard = 0

    def heard(self) -> None:
        """The engine said something."""
        self._num_heard += 1

    async def until_hung(self, *, is_owed: Callable[[], bool], ask: Callable[[], None]) -> None:
        """Return when the engine hangs: not one word in all that time, though asked."""
        silent_slices = 0
        num_heard = self._num_heard
        while silent_slices < _SLICES:
            await asyncio.sleep(self.seconds / _SLICES)
            if self._num_heard != num_heard or not is_owed():
                num_heard, silent_slices = self._num_heard, 0
                continue
            if silent_slices == 0:
                ask()  # it may have nothing to tell, as when it waits for pixels
            silent_slices += 1
