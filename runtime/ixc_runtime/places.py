"""Who holds a place in the engine's batch, who waits for one, and how long a newcomer would.

A place is held for about as long as those before were held. Those held now may turn out longer: how
long they have been is, on average, how long they still will be. The larger of the two is believed.
Knows names and times; what is done with an estimate is the engine's business.
"""

import time
from collections.abc import Callable

# The weight of the latest place given back: what was long ago says little of the load now.
_NEWEST = 0.2


class Places:
    """Told of every sequence that is sent to the engine, starts there and ends."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._waiting: set[str] = set()
        self._num_kept_waiting = 0
        self._held_since: dict[str, float] = {}
        self._usual_seconds = 0.0  # 0 until one was given back

    def sent(self, sequence_id: str) -> None:
        self._waiting.add(sequence_id)

    def kept_waiting(self, count: int) -> None:
        """So many of those that the engine knew of could not start in its last step.

        One that was only just sent is not among them: the engine looks between steps, and a step
        may take a second.
        """
        self._num_kept_waiting = count

    def started(self, sequence_id: str) -> None:
        # One that has ended here is about to end there.
        if sequence_id in self._waiting:
            self._waiting.remove(sequence_id)
            self._held_since[sequence_id] = self._now()

    def ended(self, sequence_id: str) -> None:
        """May be said twice: by whoever no longer wants it, and by the engine."""
        self._waiting.discard(sequence_id)
        began = self._held_since.pop(sequence_id, None)
        if began is not None:
            held = self._now() - began
            usual = self._usual_seconds or held
            self._usual_seconds = usual + _NEWEST * (held - usual)

    def clear(self) -> None:
        """The engine is gone, and with it all who waited; what was learnt stays."""
        self._waiting.clear()
        self._num_kept_waiting = 0
        self._held_since.clear()

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def wait_seconds(self, max_batch: int) -> float:
        """Until one that came now would hold a place, as far as that can be told; 0: at once.

        A place may also be wanting because the pages are all promised: whoever is kept waiting
        shows it.
        """
        num_held, num_waiting = len(self._held_since), len(self._waiting)
        is_short = min(self._num_kept_waiting, num_waiting) > 0
        if num_held + num_waiting < max_batch and not is_short:
            return 0.0
        if not num_held:  # the engine has yet to say who started
            return 0.0
        age = self._now() - sum(self._held_since.values()) / num_held
        return (num_waiting + 1) * max(self._usual_seconds, age) / num_held
