"""How long a newcomer would wait for a place in the batch, told from those before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixc_runtime.places import Places


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def full(clock: Clock, num_places: int = 2) -> Places:
    places = Places(clock)
    for number in range(num_places):
        places.sent(f"holder {number}")
        places.started(f"holder {number}")
    return places


def test_a_free_place() -> None:
    """No wait, whatever was learnt before."""
    clock = Clock()
    places = full(clock)
    clock.time += 50.0
    places.ended("holder 0")
    assert places.wait_seconds(2) == 0.0


def test_nothing_is_known_yet() -> None:
    """The first who wait are not refused: places were only just taken."""
    assert full(Clock()).wait_seconds(2) == 0.0


def test_places_are_held_as_long_as_those_before() -> None:
    """Two places of ten seconds each: one is free every five."""
    clock = Clock()
    places = full(clock)
    clock.time += 10.0
    places.ended("holder 0")
    places.ended("holder 1")
    for name in ("c", "d", "e"):
        places.sent(name)
    places.started("c")
    places.started("d")
    assert places.num_waiting == 1
    assert places.wait_seconds(2) == pytest.approx(10.0)


def test_places_held_longer_than_ever_before() -> None:
    """What has lasted for a minute is expected to last another."""
    clock = Clock()
    places = full(clock)
    clock.time += 60.0
    assert places.wait_seconds(2) == pytest.approx(30.0)


def test_pages_that_are_all_promised() -> None:
    """Whoever is kept waiting beside free places shows that there is no room."""
    clock = Clock()
    places = full(clock)
    places.sent("large")
    places.kept_waiting(1)
    clock.time += 8.0
    assert places.wait_seconds(16) == pytest.approx(8.0)
    places.ended("large")
    assert places.wait_seconds(16) == 0.0


def test_several_come_while_the_engine_is_in_a_step() -> None:
    """Those it has not looked at yet say nothing about places, however long answers usually are."""
    clock = Clock()
    places = full(clock)
    clock.time += 60.0
    places.ended("holder 0")
    for name in ("a", "b", "c"):
        places.sent(name)
        assert places.wait_seconds(16) == 0.0
    places.sent("d")
    assert places.wait_seconds(5) > 0.0


def test_an_engine_that_was_lost() -> None:
    """Nobody waits and nothing is held; a late word about one of them is passed over."""
    clock = Clock()
    places = full(clock)
    places.sent("c")
    clock.time += 4.0
    places.clear()
    places.ended("holder 0")
    places.started("c")
    assert (places.num_waiting, places.wait_seconds(1)) == (0, 0.0)


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(("sent", "started", "ended"))))
)
def test_any_order_of_news(news: list[tuple[str, str]]) -> None:
    """The estimate is finite and never below zero, and everyone who ended is forgotten."""
    clock = Clock()
    places = Places(clock)
    for name, event in news:
        clock.time += 1.0
        getattr(places, event)(name)
        assert 0.0 <= places.wait_seconds(2) <= 7 * len(news)
    for name in "abcdef":
        places.ended(name)
    assert (places.num_waiting, places.wait_seconds(1)) == (0, 0.0)
