"""The event log: numbers, merging, folding, and exactly one terminal event."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixc_runtime import (
    Accepted,
    Completed,
    FinishReason,
    PromptProcessed,
    PromptUsage,
    SamplingParams,
    TextDelta,
    Timings,
    TokenLogprob,
    Usage,
)
from ixc_runtime.errors import EngineLost
from ixc_service.errors import EventLogCompacted
from ixc_service.event_log import Event, EventLog, Failed, Finished, Snapshot

USAGE = PromptUsage(prompt_tokens=1, image_tokens=0, num_images=0)
ACCEPTED = Accepted(usage=USAGE, queue_position=0, sampling=SamplingParams())
PROCESSED = PromptProcessed(usage=USAGE, cached_tokens=0, encoded_tiles=0)
DONE = Finished(
    completed=Completed(
        finish_reason=FinishReason.STOP,
        usage=Usage(prompt_tokens=1, image_tokens=0, cached_tokens=0, output_tokens=1),
        timings=Timings(),
    )
)
FAILED = Failed(fault=EngineLost("gone"))

deltas = st.lists(
    st.builds(
        TextDelta,
        text=st.text(max_size=5),
        token_ids=st.lists(st.integers(0, 99), max_size=3).map(tuple),
    ),
    max_size=30,
)


def filled(
    parts: list[TextDelta], *, end: Finished | Failed | None = DONE, **bounds: int
) -> EventLog:
    log = EventLog(**bounds)
    for update in (ACCEPTED, PROCESSED, *parts):
        log.append(update)
    if end:
        log.append(end)
    return log


def text_of(events: list[Event]) -> str:
    return "".join(event.update.text for event in events if isinstance(event.update, TextDelta))


def ids_of(events: list[Event]) -> list[int]:
    found = (event.update for event in events if isinstance(event.update, TextDelta))
    return [token for update in found for token in update.token_ids]


@given(deltas, st.integers(0, 40), st.sampled_from([DONE, FAILED]))
def test_any_cursor_splits_the_answer(
    parts: list[TextDelta], cursor: int, end: Finished | Failed
) -> None:
    """What comes up to a cursor and what comes after it make the whole, whatever was merged."""
    log = filled(parts, end=end)
    before = [delta for number, delta in log.deltas() if number <= cursor]
    after = log.read(cursor)
    assert "".join(part.text for part in before) + text_of(after) == log.text()
    assert [token for part in before for token in part.token_ids] + ids_of(after) == list(
        log.token_ids()
    )
    assert after[-1].update is end
    assert [isinstance(event.update, Finished | Failed) for event in after].count(True) == 1
    numbers = [event.sequence for event in after]
    assert numbers == sorted(set(numbers))


@given(deltas, st.data())
def test_a_reader_that_stops_and_goes_on_misses_nothing(
    parts: list[TextDelta], data: st.DataObject
) -> None:
    """Reading at any moments while the log grows, from the last number each time."""
    log, cursor, seen = EventLog(), 0, []
    for update in (ACCEPTED, PROCESSED, *parts, DONE):
        log.append(update)
        if data.draw(st.booleans()):
            seen += log.read(cursor)
            cursor = seen[-1].sequence if seen else 0
    if not (seen and isinstance(seen[-1].update, Finished)):
        seen += log.read(cursor)
    assert text_of(seen) == log.text()
    assert ids_of(seen) == list(log.token_ids())
    assert isinstance(seen[0].update, Accepted)
    assert isinstance(seen[-1].update, Finished)
    assert seen[-1].sequence == log.last_sequence


@given(deltas, st.integers(1, 6), st.integers(0, 40))
def test_a_folded_log_never_lies(parts: list[TextDelta], max_events: int, cursor: int) -> None:
    """Beyond its bound a cursor is served exactly, or told that it cannot be."""
    whole, log = filled(parts), filled(parts, max_events=max_events)
    assert log.text() == whole.text()
    assert log.token_ids() == whole.token_ids()
    assert len(list(log.deltas())) <= max_events
    try:
        events = log.read(cursor)
    except EventLogCompacted as fault:
        first = int(fault.metadata["first_available_sequence"])
        assert cursor < first - 1
        assert text_of(log.read(first - 1)) == text_of(whole.read(first - 1))
        snapshot = log.read(cursor, allow_snapshot=True)[0]
        assert isinstance(snapshot.update, Snapshot)
        assert snapshot.update.text == whole.text()
        assert snapshot.sequence == whole.last_sequence - 1
    else:
        assert text_of(events) == text_of(whole.read(cursor))
        assert ids_of(events) == ids_of(whole.read(cursor))
    assert text_of(log.read(0)) == whole.text()


@pytest.mark.parametrize(
    "updates",
    [
        (ACCEPTED, DONE, TextDelta(text="a", token_ids=(1,))),
        (ACCEPTED, DONE, DONE),
        (ACCEPTED, FAILED, DONE),
        (ACCEPTED, ACCEPTED),
        (ACCEPTED, PROCESSED, ACCEPTED),
        (ACCEPTED, TextDelta(text="a", token_ids=(1,)), PROCESSED),
    ],
)
def test_events_out_of_order(updates: tuple) -> None:
    """Nothing follows the terminal event, and no kind comes back."""
    log = EventLog()
    with pytest.raises(AssertionError):
        for update in updates:
            log.append(update)


def test_bytes_bound_the_log_too() -> None:
    """A few large deltas fold as many small ones do."""
    part = TextDelta(text="x" * 1000, token_ids=(1,))
    log = filled([part] * 10, max_bytes=10_000)
    assert log.first_available_sequence > 3
    assert log.text() == "x" * 10_000


def test_a_merged_delta_stays_small() -> None:
    """However much a reader missed, it comes in messages of a quarter MiB."""
    part = TextDelta(text="x" * 10_000, token_ids=(1,))
    events = filled([part] * 100, max_bytes=1 << 30).read(2)
    assert 1 < len(events) - 1 < 100
    assert text_of(events) == "x" * 1_000_000


def test_log_probabilities_are_merged_in_order() -> None:
    """One entry for each token, as they came."""
    entries = [TokenLogprob(token_id=n, logprob=-n) for n in range(4)]
    parts = [TextDelta(text="a", token_ids=(n,), logprobs=(entries[n],)) for n in range(4)]
    (merged, _) = filled(parts).read(2)
    assert isinstance(merged.update, TextDelta)
    assert list(merged.update.logprobs) == entries


async def test_waiting_ends_with_news() -> None:
    """wait_beyond by any event, wait_for_end by the last alone, both by a call to wake."""
    log = filled([], end=None)
    assert await log.wait_beyond(1, 10)
    assert not await log.wait_beyond(2, 0.001)
    waiting = asyncio.ensure_future(log.wait_beyond(2, 10))
    ending = asyncio.ensure_future(log.wait_for_end(10))
    await asyncio.sleep(0)
    log.append(replace(TextDelta(text="a", token_ids=(1,))))
    assert await waiting
    assert not ending.done()
    woken = asyncio.ensure_future(log.wait_beyond(3, 10))
    await asyncio.sleep(0)
    log.wake_readers()
    assert await woken
    assert await ending
    log.append(DONE)
    assert await log.wait_for_end(10)
