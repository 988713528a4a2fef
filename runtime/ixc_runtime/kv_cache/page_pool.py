"""Page accounting: who is free, who is counted how often, who is idle but still worth finding.

Knows nothing of tokens or tensors. A page is in exactly one of three states:

    free    count 0, its content means nothing
    in use  count n > 0, n page tables hold it
    idle    count 0, but the prefix index can still find it; taken back oldest first

A holder of a page also holds every page before it in the prefix, and gives pages back last one
first. Idle pages are therefore always ordered children before parents, and the oldest idle page
is a leaf of the prefix index.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable


class PagePool:
    """`num_pages` pages named 0 .. num_pages-1. `on_evict` hears of each idle page taken back."""

    def __init__(self, num_pages: int, on_evict: Callable[[int], None]) -> None:
        self.num_pages = num_pages
        self._counts = [0] * num_pages
        self._free = list(range(num_pages - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._indexed: set[int] = set()
        self._on_evict = on_evict

    @property
    def num_available(self) -> int:
        """Pages that `take` can still hand out."""
        return len(self._free) + len(self._idle)

    @property
    def num_used(self) -> int:
        return self.num_pages - self.num_available

    def count(self, page: int) -> int:
        return self._counts[page]

    def take(self) -> int:
        """A page of one's own, count 1. The caller has checked `num_available`."""
        if self._free:
            page = self._free.pop()
        else:
            page, _ = self._idle.popitem(last=False)
            self._indexed.discard(page)
            self._on_evict(page)
        self._counts[page] = 1
        return page

    def share(self, page: int) -> None:
        """One more holder of a page that is in use or idle."""
        self._idle.pop(page, None)
        self._counts[page] += 1

    def release(self, page: int) -> None:
        """One holder fewer; the last one leaves the page idle if indexed, else free."""
        self._counts[page] -= 1
        if self._counts[page] > 0:
            return
        if page in self._indexed:
            self._idle[page] = None
        else:
            self._free.append(page)

    def mark_indexed(self, page: int) -> None:
        """The prefix index can find this page from now on."""
        self._indexed.add(page)

    def forget_idle(self) -> None:
        """Free every idle page, as if all had been taken back."""
        while self._idle:
            page, _ = self._idle.popitem(last=False)
            self._indexed.discard(page)
            self._on_evict(page)
            self._free.append(page)

    def violations(self, holders: Iterable[int]) -> list[str]:
        """What is wrong, given every page of every page table, repeated as often as held."""
        expected = [0] * self.num_pages
        for page in holders:
            expected[page] += 1
        found = [
            f"page {page}: counted {count}, held {held}"
            for page, (count, held) in enumerate(zip(self._counts, expected, strict=True))
            if count != held
        ]
        free = set(self._free)
        if len(free) != len(self._free):
            found.append("a page is free twice")
        for page, held in enumerate(expected):
            states = (page in free) + (page in self._idle) + (held > 0)
            if states != 1:
                found.append(f"page {page} is in {states} states at once")
        found.extend(
            f"page {page} is idle but not indexed"
            for page in self._idle
            if page not in self._indexed
        )
        return found
