"""Where a stream's updates gather until its reader comes: one wake-up a batch, not a token."""

import asyncio
from typing import Generic, TypeVar

from ixc_runtime.errors import RuntimeFault

_Item = TypeVar("_Item")


class Mailbox(Generic[_Item]):
    """One writer that never waits, one reader that takes everything gathered since last time."""

    def __init__(self) -> None:
        self._items: list[_Item] = []
        self._fault: RuntimeFault | None = None
        self._filled = asyncio.Event()

    def put(self, item: _Item) -> None:
        self._items.append(item)
        self._filled.set()

    def fail(self, fault: RuntimeFault) -> None:
        """Nothing more will come: the reader gets what is there, then the fault."""
        self._fault = fault
        self._filled.set()

    async def take(self) -> list[_Item]:
        """Everything gathered, at least one item. Raises the fault once the box is empty."""
        await self._filled.wait()
        if not self._items and self._fault is not None:
            raise self._fault
        items, self._items = self._items, []
        if self._fault is None:
            self._filled.clear()
        return items
