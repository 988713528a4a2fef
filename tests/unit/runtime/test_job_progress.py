"""A job's progress: it only grows, is told often enough and no more, and promises no time early."""

from hypothesis import given
from hypothesis import strategies as st

from ixc_runtime.jobs.messages import Progress
from ixc_runtime.jobs.progress import Meter, Stage

STAGES = (Stage(name="a", weight=1), Stage(name="b", weight=8), Stage(name="c", weight=1))


class Rig:
    """A meter with a clock that tests move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[Progress] = []
        self.meter = Meter(STAGES, self.told.append, clock=lambda: self.now)


def test_the_time_left() -> None:
    """Is unset until three items have shown a rate; then it is theirs, later stages by weight."""
    rig = Rig()
    rig.meter.begin(1)
    for done in range(1, 5):
        rig.now += 2.0
        rig.meter.item(f"layer {done}", done=done, total=8)
    etas = [progress.eta_seconds for progress in rig.told]
    assert etas[:3] == [None, None, None]
    assert etas[3] == 2.0 * 5 + 2.0 * 8 / 8
    assert etas[4] == 2.0 * 4 + 2.0


def test_the_rate_is_that_of_late() -> None:
    """What was slow at first does not weigh for ever."""
    rig = Rig()
    rig.meter.begin(1)
    for done in range(1, 101):
        rig.now += 100.0 if done < 50 else 1.0
        rig.meter.item("layer", done=done, total=101)
    assert rig.told[-1].eta_seconds is not None and rig.told[-1].eta_seconds < 20


def test_it_is_not_told_more_often_than_anybody_can_see() -> None:
    """But a stage's beginning and end always are."""
    rig = Rig()
    rig.meter.begin(0)
    for done in range(1, 1001):
        rig.now += 0.001
        rig.meter.item("tensor", done=done, total=1000)
    assert 4 <= len(rig.told) <= 8
    assert rig.told[-1].done == rig.told[-1].total == 1000


@given(st.data())
def test_the_fraction_never_goes_back(data: st.DataObject) -> None:
    """Whatever stages and items say, and it stays between 0 and 1."""
    rig = Rig()
    for index in range(len(STAGES)):
        rig.meter.begin(index)
        for _ in range(data.draw(st.integers(0, 5))):
            rig.now += data.draw(st.floats(0, 10))
            total = data.draw(st.integers(0, 10))
            rig.meter.item("x", done=data.draw(st.integers(0, 12)), total=total)
    fractions = [progress.fraction for progress in rig.told]
    assert fractions == sorted(fractions)
    assert all(0 <= fraction <= 1 for fraction in fractions)
