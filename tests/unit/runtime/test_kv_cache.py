"""Pages: counted exactly, shared by equal prefixes, copied before a shared one is written."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ixc_runtime.kv_cache.cache import KvCache
from ixc_runtime.kv_cache.page_table import PageTable

SPACE = b"space"


class ContentCache:
    """A KvCache whose pages hold the keys that were written, so that content can be compared."""

    def __init__(self, num_pages: int, page_size: int = 4, *, reuse_prefixes: bool = True) -> None:
        self.content: list[list[object]] = [[None] * page_size for _ in range(num_pages)]
        self.copies: list[tuple[int, int]] = []
        self.cache = KvCache(
            num_pages=num_pages,
            page_size=page_size,
            copy_page=self._copy,
            reuse_prefixes=reuse_prefixes,
        )

    def _copy(self, source: int, target: int) -> None:
        self.copies.append((source, target))
        self.content[target] = list(self.content[source])

    def compute(self, table: PageTable, slots: list, start: int, stop: int) -> None:
        """What a step does: make room, write the slots, publish full pages."""
        self.cache.extend(table, start=start, stop=stop)
        size = self.cache.page_size
        for index in range(start, stop):
            self.content[table.pages[index // size]][index % size] = slots[index]
        self.cache.publish(table, slots, stop)

    def read(self, table: PageTable, stop: int) -> list[object]:
        size = self.cache.page_size
        return [self.content[table.pages[index // size]][index % size] for index in range(stop)]

    def run(self, slots: list, *, max_slots: int | None = None) -> tuple[PageTable, int]:
        opened = self.cache.open(namespace=SPACE, prompt=slots, max_slots=max_slots or len(slots))
        assert opened is not None
        table, cached = opened
        self.compute(table, slots, cached, len(slots))
        return table, cached


def test_a_second_prompt_with_the_same_start_computes_only_the_rest() -> None:
    """Full pages are shared, and the page where the prompts part is reused up to that slot."""
    fixture = ContentCache(16)
    first, _ = fixture.run([1, 2, 3, 4, 5, 6, 7, 8, 9])
    _, cached = fixture.run([1, 2, 3, 4, 5, 6, 99, 98])

    assert cached == 6
    assert fixture.read(first, 9) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert fixture.cache.check_integrity() == []


def test_an_identical_prompt_still_computes_its_last_slot() -> None:
    """Logits come from computing the last token, so it is never taken from the cache."""
    fixture = ContentCache(16)
    fixture.run([1, 2, 3, 4, 5, 6, 7, 8])
    _, cached = fixture.run([1, 2, 3, 4, 5, 6, 7, 8])

    assert cached == 7


def test_another_namespace_shares_nothing() -> None:
    """Weights, adapter, tenant and rotary base are in the namespace: none may leak through."""
    fixture = ContentCache(16)
    fixture.run([1, 2, 3, 4, 5])
    opened = fixture.cache.open(namespace=b"other", prompt=[1, 2, 3, 4, 5], max_slots=5)

    assert opened is not None
    assert opened[1] == 0


def test_images_are_shared_by_content_and_place() -> None:
    """A slot of an image is its key and offset: another image never matches."""
    fixture = ContentCache(16)
    cat = [(b"cat", offset) for offset in range(6)]
    dog = [(b"dog", offset) for offset in range(6)]
    fixture.run([1, *cat, 2])
    _, of_same = fixture.run([1, *cat, 3])
    _, of_other = fixture.run([1, *dog, 2])

    assert (of_same, of_other) == (7, 1)


def test_a_request_larger_than_what_is_left_waits() -> None:
    """The worst case is promised at admission, so a running sequence never lacks a page."""
    fixture = ContentCache(4)
    table, _ = fixture.run([1, 2], max_slots=12)  # 3 pages promised, 1 held

    assert fixture.cache.open(namespace=SPACE, prompt=[7], max_slots=8) is None
    fixture.cache.close(table)
    assert fixture.cache.open(namespace=SPACE, prompt=[7], max_slots=8) is not None


def test_idle_pages_are_taken_back_oldest_leaf_first() -> None:
    """A cached prefix never loses its start before its end."""
    fixture = ContentCache(4)
    table, _ = fixture.run(list(range(12)))
    fixture.cache.close(table)
    other, _ = fixture.run([50, 51, 52, 53, 54])  # takes the free page and the oldest leaf
    fixture.cache.close(other)
    _, cached = fixture.run(list(range(12)))

    assert cached == 8
    assert fixture.cache.check_integrity() == []


def test_two_that_computed_the_same_page_keep_one() -> None:
    """Running side by side they cannot share yet; once full, equal pages become one."""
    fixture = ContentCache(16)
    slots = [1, 2, 3, 4, 5, 6]
    first = fixture.cache.open(namespace=SPACE, prompt=slots, max_slots=6)
    second = fixture.cache.open(namespace=SPACE, prompt=slots, max_slots=6)
    assert first is not None and second is not None
    fixture.compute(first[0], slots, 0, 6)
    fixture.compute(second[0], slots, 0, 6)

    assert first[0].pages[0] == second[0].pages[0]
    assert fixture.cache.num_used == 3
    assert fixture.cache.check_integrity() == []


def test_a_fork_copies_the_shared_page_when_one_side_writes() -> None:
    """Copy on write: neither side sees what the other writes behind the fork."""
    fixture = ContentCache(16)
    table, _ = fixture.run([1, 2, 3, 4, 5, 6], max_slots=12)
    twin = fixture.cache.fork(table, 6, max_slots=12)
    assert twin is not None
    assert fixture.copies == []
    fixture.compute(twin, [1, 2, 3, 4, 5, 6, 70], 6, 7)
    fixture.compute(table, [1, 2, 3, 4, 5, 6, 80], 6, 7)

    assert fixture.read(twin, 7) == [1, 2, 3, 4, 5, 6, 70]
    assert fixture.read(table, 7) == [1, 2, 3, 4, 5, 6, 80]
    assert len(fixture.copies) == 1
    assert fixture.cache.check_integrity() == []


def test_with_reuse_off_nothing_is_found() -> None:
    """Switching the prefix cache off computes every prompt in full."""
    fixture = ContentCache(16, reuse_prefixes=False)
    fixture.run([1, 2, 3, 4, 5])
    _, cached = fixture.run([1, 2, 3, 4, 5])

    assert cached == 0


def test_forgetting_frees_everything_idle() -> None:
    """After `forget` no prompt is cached, and the accounts still balance."""
    fixture = ContentCache(8)
    table, _ = fixture.run([1, 2, 3, 4, 5])
    fixture.cache.close(table)
    fixture.cache.forget()

    assert fixture.cache.num_indexed == 0
    assert fixture.cache.check_integrity() == []


class CacheMachine(RuleBasedStateMachine):
    """Any order of opening, computing, forking and closing keeps accounts and content right."""

    def __init__(self) -> None:
        super().__init__()
        self.fixture = ContentCache(12, page_size=3)
        self.open: list[tuple[PageTable, list[int], int, int]] = []

    @rule(prompt=st.lists(st.integers(0, 1), min_size=1, max_size=10), extra=st.integers(0, 6))
    def admit(self, prompt: list[int], extra: int) -> None:
        limit = len(prompt) + extra
        opened = self.fixture.cache.open(namespace=SPACE, prompt=prompt, max_slots=limit)
        if opened is None:
            return
        table, cached = opened
        assert cached < len(prompt)
        assert self.fixture.read(table, cached) == prompt[:cached]
        self.open.append((table, list(prompt), cached, limit))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 99), rows=st.integers(1, 4), token=st.integers(0, 1))
    def compute(self, which: int, rows: int, token: int) -> None:
        index = which % len(self.open)
        table, slots, computed, limit = self.open[index]
        while len(slots) < min(computed + rows, limit):
            slots.append(token)
        stop = min(computed + rows, len(slots))
        if stop > computed:
            self.fixture.compute(table, slots, computed, stop)
            self.open[index] = (table, slots, stop, limit)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 99), extra=st.integers(0, 4))
    def fork(self, which: int, extra: int) -> None:
        table, slots, computed, _ = self.open[which % len(self.open)]
        if computed == 0:
            return
        limit = computed + extra
        twin = self.fixture.cache.fork(table, computed, max_slots=limit)
        if twin is not None:
            self.open.append((twin, slots[:computed], computed, limit))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 99))
    def close(self, which: int) -> None:
        table, _, _, _ = self.open.pop(which % len(self.open))
        self.fixture.cache.close(table)

    @invariant()
    def accounts_balance(self) -> None:
        assert self.fixture.cache.check_integrity([entry[0] for entry in self.open]) == []

    @invariant()
    def everyone_reads_what_he_wrote(self) -> None:
        for table, slots, computed, _ in self.open:
            assert self.fixture.read(table, computed) == slots[:computed]


CacheMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_any_order_of_operations_keeps_the_cache_sound = CacheMachine.TestCase


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_a_prompt_always_finds_its_longest_common_prefix(prompts: list[list[int]]) -> None:
    """With room for all, a full page computed before is always found again."""
    fixture = ContentCache(64, page_size=3)
    for prompt in prompts:
        fixture.run(prompt)
    for prompt in prompts:
        _, cached = fixture.run(prompt)

        assert cached >= (len(prompt) - 1) // 3 * 3
