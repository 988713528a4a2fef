"""Where a stream's updates gather until its reader comes: one wake-up a batch, not a token."""

import asyncio
from typing import Generic, TypeVar

from ixc_runtime.errors import RuntimeFault

_Item = TypeVar("_Item")


class Mailbox(Generic[_Item]):
    """One writer that never waits, one reader that takes everything gathered since last time.

    What is not urgent does not end the reader's `pause`.
    """

    def __init__(self) -> None:
        self._items: list[_Item] = []
        self._fault: RuntimeFault | None = None
        self._is_urgent = False
        # A bare future: a third of the cost of asyncio.Event, paid for every batch of every stream.
        self._reader: asyncio.Future[None] | None = None
        self._reader_is_patient = False

    @property
    def is_empty(self) -> bool:
        return not self._items

    def put(self, item: _Item, *, is_urgent: bool = True) -> None:
        self._items.append(item)
        if is_urgent:
            self._is_urgent = True
        if self._reader is not None and (is_urgent or not self._reader_is_patient):
            _wake(self._reader)

    def fail(self, fault: RuntimeFault) -> None:
        """Nothing more will come: the reader gets what is there, then the fault."""
        self._fault = fault
        self._is_urgent = True
        if self._reader is not None:
            _wake(self._reader)

    async def pause(self, seconds: float) -> None:
        """Let items gather for so long, or until something urgent is among them."""
        if not self._is_urgent:
            await self._wait(seconds)

    async def take(self) -> list[_Item]:
        """Everything gathered, at least one item. Raises the fault once the box is empty."""
        if not self._items and self._fault is None:
            await self._wait(None)
        if not self._items and self._fault is not None:
            raise self._fault
        items, self._items = self._items, []
        self._is_urgent = self._fault is not None
        return items

    async def _wait(self, seconds: float | None) -> None:
        """For something urgent, at most so long; with None, for anything."""
        loop = asyncio.get_running_loop()
        reader = self._reader = loop.create_future()
        self._reader_is_patient = seconds is not None
        timer = None if seconds is None else loop.call_later(seconds, _wake, reader)
        try:
            await reader
        finally:
            self._reader = None
            if timer is not None:
                timer.cancel()


def _wake(reader: asyncio.Future[None]) -> None:
    if not reader.done():
        reader.set_result(None)
