"""An operation's log: numbers only grow, little is kept, and every cursor stays right."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from ixc_runtime.jobs import Logged, Metric, Progress, Severity
from ixc_service.operations import log as module
from ixc_service.operations.log import OperationLog
from ixc_service.operations.records import (
    Completed,
    Event,
    LoadOutcome,
    Restarted,
    Update,
)

END = Completed(outcome=LoadOutcome(model_id="m"), elapsed_seconds=1.0)


def progress(stage: int, done: int = 0) -> Progress:
    return Progress(
        stage=f"stage {stage}",
        stage_index=stage,
        stage_count=3,
        fraction=0.0,
        done=done,
        elapsed_seconds=0.0,
    )


def metric(value: float = 0.0) -> Metric:
    return Metric(layer="layer", name="error", value=value)


UPDATES = st.one_of(
    st.builds(progress, st.integers(0, 2), st.integers(0, 9)),
    st.builds(metric, st.floats(0, 1)),
    st.just(Logged(severity=Severity.INFO, text="a line")),
    st.just(Restarted(attempt=2, kept_files=0, kept_bytes=0)),
)


def write(log: OperationLog, *updates: Update) -> list[Event]:
    events, superseded = log.take(updates)
    log.commit(events, superseded)
    return events


def test_of_a_stage_only_the_newest_progress_is_kept() -> None:
    """Whether they were written together or one by one."""
    log = OperationLog()
    write(log, progress(0, 1), progress(0, 2))
    write(log, progress(0, 3), progress(1, 1))
    assert [event.update for event in log.after(0)] == [progress(0, 3), progress(1, 1)]


def test_a_new_attempt_forgets_the_progress_of_the_last() -> None:
    """But not its figures."""
    log = OperationLog()
    write(log, progress(0), metric(), Restarted(attempt=2, kept_files=0, kept_bytes=0))
    assert [type(event.update) for event in log.after(0)] == [Metric, Restarted]


def test_lines_are_kept_up_to_a_bound(monkeypatch: object) -> None:
    """Beyond it the oldest go."""
    monkeypatch.setattr(module, "MAX_LINES", 3)
    log = OperationLog()
    for value in range(10):
        write(log, metric(value))
    write(log, *(metric(value) for value in range(10, 15)))
    kept = [event.update.value for event in log.after(0) if isinstance(event.update, Metric)]
    assert kept == [12, 13, 14]


@given(st.lists(st.lists(UPDATES, max_size=6), max_size=12))
def test_a_reader_that_keeps_up_and_one_that_does_not(batches: list[list[Update]]) -> None:
    """What the late one sees is what the early one has seen and is still kept, in order; numbers
    only grow; the log restored from what was written is the same.
    """
    log, cursor, seen, stored = OperationLog(), 0, [], {}
    for batch in batches:
        events, superseded = log.take(batch)
        assert not set(superseded) & {event.sequence for event in events}
        for number in superseded:
            del stored[number]
        stored |= {event.sequence: event for event in events}
        log.commit(events, superseded)
        new = log.after(cursor)
        assert all(event.sequence > cursor for event in new)
        seen += new
        cursor = log.last_sequence
    late = log.after(0)
    numbers = [event.sequence for event in late]
    assert numbers == sorted(set(numbers))
    assert [event for event in seen if event in late] == late
    assert list(stored.values()) == late
    restored = OperationLog(late)
    assert restored.after(0) == late
    if late:
        assert restored.last_sequence == late[-1].sequence


def test_the_end() -> None:
    """Is the last event, and known as such."""
    log = OperationLog()
    write(log, progress(0))
    assert log.terminal is None
    write(log, END)
    assert log.terminal == END and log.terminal_event == Event(2, END)


async def test_waiting() -> None:
    """Ends with the next event, or with time."""
    log = OperationLog()
    assert not await log.wait(0.001)
    waiting = asyncio.create_task(log.wait(10))
    await asyncio.sleep(0)
    write(log, progress(0))
    assert await waiting
