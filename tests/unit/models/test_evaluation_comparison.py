"""Two models beside each other, case by case: what was lost, gained, and how sure that is."""

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixc_client.testing import FakeServer
from models.demo.evaluate import main
from models.demo.evaluation import compare, drawn_tasks
from models.demo.evaluation.case import FOLLOW_UP, RIGHT
from models.demo.evaluation.intervals import paired_drop
from models.demo.evaluation.report import Failure, Report, Row, Subject
from models.demo.evaluation.written import PASSED

Out = pytest.CaptureFixture[str]
CASES = 20


def report(
    wrong: Collection[int], *, errors: Collection[int] = (), task: str = "colour", name: str = RIGHT
) -> Report:
    """Of one task with CASES cases; `wrong` and `errors` are their seeds."""
    row = Row(
        task=task,
        name=name,
        cases=CASES - len(errors),
        answers=CASES - len(errors),
        right=CASES - len(errors) - len(wrong),
        errors=len(errors),
        target=None,
        chance=None,
        seconds=1.0,
    )
    follow_up = replace(row, task=FOLLOW_UP, name=RIGHT, cases=3, answers=3, right=0, seconds=0.0)
    failure = Failure(task=task, seed=0, shown_seed=0, question="?", expected="", answer="")
    return Report(
        subject=Subject(
            model="m",
            display_name="m",
            weights_digest="d",
            dtype="float32",
            quantization=None,
            server_version="1",
        ),
        adapter="",
        seed=0,
        is_shuffled=False,
        rows=(row, follow_up),
        failures=(
            *(replace(failure, seed=seed, lacks=(name,)) for seed in wrong),
            *(replace(failure, seed=seed, error="Overloaded: full") for seed in errors),
            replace(failure, seed=0, lacks=(FOLLOW_UP,)),
        ),
    )


@pytest.mark.parametrize(("task", "name"), [("colour", RIGHT), ("web", PASSED)])
def test_what_was_lost_and_gained(task: str, name: str) -> None:
    """Counted over the same cases; follow-ups and what both got wrong do not matter."""
    comparison = compare(
        report({1, 2, 3}, task=task, name=name), report({2, 3, 4, 5, 6}, task=task, name=name)
    )
    (change,) = comparison.tasks
    assert (change.task, change.cases, change.lost, change.gained) == (task, CASES, 3, 1)
    assert change.drop == comparison.overall.drop == 10
    assert change.rates == (17 / CASES, 15 / CASES)
    low, high = change.interval
    assert low < 0 < change.drop < high


def test_what_was_not_answered() -> None:
    """By either model: such a case has no counterpart and is left out of both."""
    comparison = compare(report({1, 2}, errors={5}), report({2, 5}, errors={1}))
    (change,) = comparison.tasks
    assert (change.cases, change.lost, change.gained) == (CASES - 2, 0, 0)
    assert change.rates == (17 / 18, 17 / 18)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (replace(report(()), seed=1), "seed was 0 and is 1"),
        (replace(report(()), is_shuffled=True), "is_shuffled was False and is True"),
        (report((), task="shape"), "no task in common"),
        (replace(report(()), rows=(replace(report(()).rows[0], cases=3),)), "20 cases of colour"),
    ],
)
def test_reports_of_other_cases(other: Report, told: str) -> None:
    """Are not compared, and it is said why."""
    with pytest.raises(ValueError, match=told):
        compare(report(()), other)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 400))
def test_the_interval_of_a_drop(lost: int, gained: int, same: int) -> None:
    """Holds nearly what was found, stays within what can be, and mirrors an exchange of the two."""
    cases = lost + gained + same
    low, high = paired_drop(lost, gained, cases)
    found = (lost - gained) / cases if cases else 0.0
    assert -1 <= low <= found <= high <= 1
    assert paired_drop(gained, lost, cases) == pytest.approx((-high, -low))


def test_more_cases_say_more() -> None:
    """And cases that changed nothing widen nothing; more changes than cases cannot be."""
    narrow, wide = paired_drop(30, 10, 1000), paired_drop(3, 1, 100)
    assert narrow[1] - narrow[0] < (wide[1] - wide[0]) / 2
    with pytest.raises(ValueError, match="no interval for 3 lost"):
        paired_drop(3, 1, 3)


def asked(server: FakeServer, *arguments: str) -> int:
    flags = ["--tasks", "colour", "--count", "3", "--concurrency", "1"]
    return main(["--target", server.address, *flags, *arguments])


def answer_all(server: FakeServer) -> None:
    (task,) = drawn_tasks(3, names=["colour"])
    for seed in task.seeds_of(0):
        for question in task.make(seed).questions:
            server.reply(question.expected)


def test_a_model_that_has_become_worse(capsys: Out, tmp_path: Path) -> None:
    """Is told from its report, and makes 1 where that is more than it may drop."""
    good, beside = tmp_path / "good.json", tmp_path / "beside.json"
    with FakeServer() as server:
        answer_all(server)
        assert asked(server, "--json", str(good)) == 0
        answer_all(server)
        assert asked(server, "--against", str(good), "--most-drop", "0") == 0
        assert asked(server, "--against", str(good), "--json", str(beside)) == 0
        assert asked(server, "--against", str(good), "--most-drop", "3") == 1
    assert f"against {good}" in capsys.readouterr().out
    overall = json.loads(beside.read_text())["against"]["overall"]
    assert (overall["lost"], overall["gained"], overall["drop"]) == (3, 0, 100)


def test_against_other_cases(capsys: Out, tmp_path: Path) -> None:
    """What was found is shown all the same; then it is refused, as wrong usage."""
    other = tmp_path / "other.json"
    other.write_text(json.dumps(replace(report(()), seed=7).to_json()))
    with FakeServer() as server, pytest.raises(SystemExit) as leaving:
        answer_all(server)
        asked(server, "--against", str(other))
    assert leaving.value.code == 2
    printed = capsys.readouterr()
    assert "colour" in printed.out
    assert "seed was 7 and is 0" in printed.err
