"""One turn at a time: who is answering in a session, and who waits to be next.

A seat is free, or held by one run with others waiting in line. Nothing here is durable: it guards
against work in vain, while the store's compare-and-set guards the session itself.
"""

import asyncio
from collections import deque
from enum import Enum

from ixc_runtime import FinishReason
from ixc_service.errors import SessionBusy
from ixc_service.identifiers import generation_name, session_name
from ixc_service.run import Run

SessionKey = tuple[str, str]  # owner, session id


class BusyPolicy(Enum):
    REJECT = "reject"
    QUEUE = "queue"
    INTERRUPT = "interrupt"


class Seats:
    def __init__(self, in_use: set[SessionKey]) -> None:
        """`in_use` is kept equal to the sessions whose seat is held."""
        self._in_use = in_use
        self._holders: dict[SessionKey, Run] = {}
        self._lines: dict[SessionKey, deque[tuple[Run, asyncio.Future[None]]]] = {}

    def holder(self, session: SessionKey) -> Run | None:
        return self._holders.get(session)

    async def take(
        self, session: SessionKey, run: Run, policy: BusyPolicy, wait_seconds: float
    ) -> None:
        """Returns once `run` holds the seat; raises SessionBusy if it may not or cannot wait."""
        holder = self._holders.get(session)
        if holder is None:
            self._seat(session, run)
            return
        if policy is BusyPolicy.REJECT:
            raise _busy(session, holder)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line = self._lines.setdefault(session, deque())
        if policy is BusyPolicy.INTERRUPT:
            line.appendleft((run, place))
            holder.cancel(FinishReason.INTERRUPTED)
        else:
            line.append((run, place))
        try:
            async with asyncio.timeout(wait_seconds):
                await place
        except TimeoutError:
            raise _busy(session, self._holders.get(session, holder)) from None
        finally:
            if (run, place) in line:
                line.remove((run, place))

    def leave(self, session: SessionKey, run: Run) -> None:
        """Frees the seat if `run` holds it, and seats the next in line."""
        if self._holders.get(session) is not run:
            return
        del self._holders[session]
        self._in_use.discard(session)
        line = self._lines.get(session, deque())
        while line:
            following, place = line.popleft()
            if not place.done():
                self._seat(session, following)
                place.set_result(None)
                return
        self._lines.pop(session, None)

    def _seat(self, session: SessionKey, run: Run) -> None:
        self._holders[session] = run
        self._in_use.add(session)


def _busy(session: SessionKey, holder: Run) -> SessionBusy:
    return SessionBusy(
        "a turn of this session is under way",
        session=session_name(session[1]),
        generation=generation_name(holder.id),
    )
