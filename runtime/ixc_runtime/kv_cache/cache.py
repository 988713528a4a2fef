"""Pages for sequences: open with what is cached, extend, publish what is full, close.

The one place where the pool, the index and the page tables meet. Knows no tensors: copies of a
page's content are asked of `copy_page`. A sequence is admitted with its whole worst case reserved,
so a running sequence can always have its next page and is never thrown out half-way.
"""

from collections.abc import Callable, Iterable, Sequence

from ixc_runtime.kv_cache.page_pool import PagePool
from ixc_runtime.kv_cache.page_table import PageTable
from ixc_runtime.kv_cache.prefix_index import PrefixIndex, PrefixMatch, SlotKey


class KvCache:
    """`copy_page(source, target)` copies the content of one page over another, all layers."""

    def __init__(
        self,
        *,
        num_pages: int,
        page_size: int,
        copy_page: Callable[[int, int], None],
        reuse_prefixes: bool = True,
    ) -> None:
        self.page_size = page_size
        self._index = PrefixIndex(page_size)
        self._pool = PagePool(num_pages, on_evict=self._index.remove)
        self._copy_page = copy_page
        self._reuse_prefixes = reuse_prefixes
        self._tables: list[PageTable] = []

    @property
    def num_pages(self) -> int:
        return self._pool.num_pages

    @property
    def num_used(self) -> int:
        """Pages held by sequences. Idle ones, kept only to be found again, do not count."""
        return self._pool.num_used

    @property
    def num_indexed(self) -> int:
        return len(self._index)

    def pages_for(self, num_slots: int) -> int:
        return -(-num_slots // self.page_size)

    def open(
        self, *, namespace: bytes, prompt: Sequence[SlotKey], max_slots: int
    ) -> tuple[PageTable, int] | None:
        """A table holding the cached prefix of `prompt`, and that prefix's length in slots.

        None when the pages for `max_slots` cannot be promised now. At least the last slot of the
        prompt stays uncached, because computing it is what yields the first logits.
        """
        match = self._match(namespace, prompt[:-1])
        reserved = self.pages_for(max_slots)
        idle = sum(self._pool.count(page) == 0 for page in match.pages)
        outstanding = sum(table.outstanding for table in self._tables)
        if reserved - len(match.pages) > self._pool.num_available - idle - outstanding:
            return None
        table = PageTable(namespace=namespace, reserved=reserved)
        for page in match.pages:
            self._pool.share(page)
            table.pages.append(page)
        self._tables.append(table)
        try:
            self._adopt_indexed(table, prompt)
            num_cached = len(table.pages) * self.page_size + self._copy_partial(table, match)
        except BaseException:
            self.close(table)
            raise
        return table, num_cached

    def _match(self, namespace: bytes, slots: Sequence[SlotKey]) -> PrefixMatch:
        if not self._reuse_prefixes:
            return PrefixMatch(pages=(), partial=None, partial_slots=0)
        return self._index.match(namespace, slots)

    def _adopt_indexed(self, table: PageTable, prompt: Sequence[SlotKey]) -> None:
        for page in table.pages:
            start = table.num_indexed * self.page_size
            table.chain, _ = self._index.insert(
                table.chain, prompt[start : start + self.page_size], page
            )
            table.num_indexed += 1

    def _copy_partial(self, table: PageTable, match: PrefixMatch) -> int:
        """Copy on write: the page agrees for a few slots only, and we shall write behind them."""
        if match.partial is None:
            return 0
        # Held while copying, so that taking the target cannot evict the source.
        self._pool.share(match.partial)
        try:
            if self._pool.num_available == 0:
                return 0
            page = self._pool.take()
            table.pages.append(page)
            self._copy_page(match.partial, page)
        finally:
            self._pool.release(match.partial)
        return match.partial_slots

    def extend(self, table: PageTable, *, start: int, stop: int) -> None:
        """Make slots `start` .. `stop`-1 writable; within the reservation this cannot fail."""
        needed = self.pages_for(stop)
        assert needed <= table.reserved, f"{needed} pages wanted, {table.reserved} reserved"
        if table.owes_copy:
            self._unshare(table, start // self.page_size)
        while len(table.pages) < needed:
            table.pages.append(self._pool.take())

    def _unshare(self, table: PageTable, position: int) -> None:
        """Copy on write after a fork: the other side keeps the page, this one gets its own."""
        table.owes_copy = False
        page = table.pages[position]
        if self._pool.count(page) > 1:
            private = self._pool.take()
            self._copy_page(page, private)
            table.exchange(position, private)
            self._pool.release(page)

    def fork(self, table: PageTable, num_slots: int, *, max_slots: int) -> PageTable | None:
        """A second table over the first `num_slots` slots, sharing every page (None: no room).

        A last page that is only partly covered stays shared until either side writes behind the
        fork.
        """
        shared = self.pages_for(num_slots)
        is_partial = num_slots % self.page_size != 0
        copies = is_partial + (is_partial and not table.owes_copy)
        outstanding = sum(other.outstanding for other in self._tables)
        reserved = self.pages_for(max_slots)
        if reserved - shared + copies > self._pool.num_available - outstanding:
            return None
        twin = PageTable(namespace=table.namespace, reserved=reserved, owes_copy=is_partial)
        table.owes_copy = table.owes_copy or is_partial
        for page in table.pages[:shared]:
            self._pool.share(page)
            twin.pages.append(page)
        if table.num_indexed <= num_slots // self.page_size:
            twin.num_indexed, twin.chain = table.num_indexed, table.chain
        self._tables.append(twin)
        return twin

    def publish(self, table: PageTable, slots: Sequence[SlotKey], num_computed: int) -> None:
        """Name every page that is now full, so that other sequences find it.

        Where equal content is indexed already, the table takes over that page and gives its own
        back: whoever holds a page then holds the indexed pages before it too.
        """
        if not self._reuse_prefixes:
            return
        while (table.num_indexed + 1) * self.page_size <= num_computed:
            start = table.num_indexed * self.page_size
            page = table.pages[table.num_indexed]
            table.chain, standing = self._index.insert(
                table.chain, slots[start : start + self.page_size], page
            )
            if standing == page:
                self._pool.mark_indexed(page)
            else:
                self._pool.share(standing)
                table.exchange(table.num_indexed, standing)
                self._pool.release(page)
            table.num_indexed += 1

    def close(self, table: PageTable) -> None:
        """Give every page back, last one first, so that eviction takes leaves before parents."""
        while table.pages:
            self._pool.release(table.pages.pop())
        self._tables.remove(table)

    def forget(self) -> None:
        """Drop everything that is cached and not in use."""
        self._pool.forget_idle()

    def check_integrity(self, tables: Iterable[PageTable] | None = None) -> list[str]:
        """What is wrong with the accounts; empty when every page is owned exactly as counted.

        `tables` are the owner's own, if it wants them compared with ours.
        """
        found = self._pool.violations(page for table in self._tables for page in table.pages)
        if tables is not None:
            ours, theirs = {id(table) for table in self._tables}, {id(table) for table in tables}
            if ours != theirs:
                found.append(f"{len(ours - theirs)} tables lost, {len(theirs - ours)} unknown")
        if sum(table.outstanding for table in self._tables) > self._pool.num_available:
            found.append("more pages are promised than there are")
        return found
