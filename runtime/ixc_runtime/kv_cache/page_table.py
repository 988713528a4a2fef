"""One sequence's pages, in the order of its tokens."""

from dataclasses import dataclass, field


@dataclass(eq=False, slots=True, kw_only=True)
class PageTable:
    """Who owns what in `pages` (page_size 4, 10 slots computed, 2 pages shared with others):

        page       0         1         2
        slots   0 1 2 3 | 4 5 6 7 | 8 9 . .
        count      2         2         1
                └─ indexed ──────┘ └ private, being written

    `num_indexed` pages from the start are named in the prefix index, the last of them by
    `chain`; `reserved` is the number of pages the sequence may come to hold in all. After a fork
    `owes_copy` says that the last page may be shared while partly empty: it is copied before the
    first write behind the fork. `exchanges` counts pages that were replaced by others of the same
    content: whoever keeps a copy of `pages` sees by it, and by their number, that it is old.
    """

    namespace: bytes
    reserved: int
    pages: list[int] = field(default_factory=list)
    num_indexed: int = 0
    chain: bytes = b""
    owes_copy: bool = False
    exchanges: int = 0

    def __post_init__(self) -> None:
        self.chain = self.chain or self.namespace

    @property
    def outstanding(self) -> int:
        """Pages promised to this sequence and not handed out yet."""
        return max(0, self.reserved - len(self.pages)) + self.owes_copy

    def exchange(self, position: int, page: int) -> None:
        self.pages[position] = page
        self.exchanges += 1
