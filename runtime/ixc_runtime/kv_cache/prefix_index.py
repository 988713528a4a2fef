"""Finding pages whose tokens were computed before.

Knows slots' keys and pages, nothing of sequences or tensors. A full page is named by a SHA-256
chain: the digest of the page before it (the namespace's own for the first) and the keys of its
slots. The namespace covers everything else that the cached values depend on: weights, adapter,
tenant scope, rotary base, KV format. Two prompts share a page only if all of that is equal.
"""

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

# One slot's identity: a token id, or an image's key with the slot's offset inside the image.
SlotKey = int | tuple[bytes, int]


def _chain(parent: bytes, slots: Sequence[SlotKey]) -> bytes:
    digest = hashlib.sha256(parent)
    try:
        # Mostly tokens alone: a tenth of the time of the way below.
        digest.update(b"t" + array("q", slots).tobytes())  # type: ignore[type-var]
    except TypeError:
        digest.update(b"m")
    else:
        return digest.digest()
    for slot in slots:
        if isinstance(slot, int):
            digest.update(b"t%d;" % slot)
        else:
            key, offset = slot
            digest.update(b"i%d:%b;" % (offset, key))
    return digest.digest()


@dataclass(slots=True, kw_only=True)
class _Node:
    page: int
    digest: bytes
    parent: bytes
    slots: tuple[SlotKey, ...]
    children: set[bytes] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixMatch:
    """`pages` cover whole pages from the start; `partial` names one more page, of which only the
    first `partial_slots` slots agree: it must be copied before anything is written behind them.
    """

    pages: tuple[int, ...]
    partial: int | None
    partial_slots: int

    def num_slots(self, page_size: int) -> int:
        return len(self.pages) * page_size + self.partial_slots


class PrefixIndex:
    """Pages by their chain. Never owns a page: the pool says which are still there."""

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._nodes: dict[bytes, _Node] = {}
        self._digest_of_page: dict[int, bytes] = {}
        self._roots: dict[bytes, set[bytes]] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def match(self, namespace: bytes, slots: Sequence[SlotKey]) -> PrefixMatch:
        """The longest cached prefix of `slots`, to the slot."""
        size = self._page_size
        pages: list[int] = []
        digest = namespace
        children = self._roots.get(namespace, set())
        start = 0
        while start + size <= len(slots):
            node = self._nodes.get(_chain(digest, slots[start : start + size]))
            if node is None:
                break
            pages.append(node.page)
            digest, children = node.digest, node.children
            start += size
        partial, partial_slots = self._longest_child(children, slots[start : start + size])
        return PrefixMatch(pages=tuple(pages), partial=partial, partial_slots=partial_slots)

    def _longest_child(
        self, children: set[bytes], slots: Sequence[SlotKey]
    ) -> tuple[int | None, int]:
        best: tuple[int | None, int] = (None, 0)
        for digest in children:
            node = self._nodes[digest]
            agreeing = 0
            for ours, theirs in zip(slots, node.slots, strict=False):
                if ours != theirs:
                    break
                agreeing += 1
            if agreeing > best[1]:
                best = (node.page, agreeing)
        return best

    def insert(self, parent: bytes, slots: Sequence[SlotKey], page: int) -> tuple[bytes, int]:
        """Name one full page that follows `parent` (a digest from here, or the namespace).

        Returns its digest and the page that now stands for it: another than `page` if equal
        content was indexed before.
        """
        digest = _chain(parent, slots)
        known = self._nodes.get(digest)
        if known is not None:
            return digest, known.page
        node = _Node(page=page, digest=digest, parent=parent, slots=tuple(slots))
        self._nodes[digest] = node
        self._digest_of_page[page] = digest
        self._siblings(parent).add(digest)
        return digest, page

    def _siblings(self, parent: bytes) -> set[bytes]:
        node = self._nodes.get(parent)
        return node.children if node is not None else self._roots.setdefault(parent, set())

    def remove(self, page: int) -> None:
        """Forget a page that is being reused. It is a leaf: the pool evicts children first."""
        node = self._nodes.pop(self._digest_of_page.pop(page))
        assert not node.children, "a page was evicted before the pages behind it"
        siblings = self._siblings(node.parent)
        siblings.discard(node.digest)
        if not siblings and node.parent in self._roots:
            del self._roots[node.parent]
