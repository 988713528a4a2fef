"""The drawn tasks: whoever gives the trained answers is right, whoever never looks is not."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest

from models.demo.drawing import EVALUATION_SEEDS, JUDGED_TASKS, draw
from models.demo.evaluation.case import FOLLOW_UP, RIGHT, Reply, Shown, Task
from models.demo.evaluation.drawn import drawn_case, drawn_tasks
from models.demo.evaluation.run import judge
from models.demo.evaluation.table import is_at_chance

COUNT = 12


class Informed:
    """Says what the model is trained to say about what is shown, or to the very questions."""

    def __init__(self, tasks: Sequence[Task], *, by_picture: bool) -> None:
        self._answers: dict[object, list[str]] = {}
        for task in tasks:
            for seed in task.seeds_of(0):
                case = task.make(seed)
                texts = tuple(question.text for question in case.questions)
                answers = [question.expected for question in case.questions]
                self._answers[case.shown if by_picture else (case.shown, texts)] = answers
        self._by_picture = by_picture

    async def answer(self, task: Task, shown: Shown, questions: Sequence[str]) -> list[Reply]:
        answers = self._answers[shown if self._by_picture else (shown, tuple(questions))]
        return [
            Reply(text=answers[min(place, len(answers) - 1)], is_complete=True, seconds=0.0)
            for place in range(len(questions))
        ]


async def rows_of(tasks: Sequence[Task], *, shuffle: bool):
    # Made once: an encoder need not make the same bytes of the same frames twice.
    tasks = [replace(task, make=cache(task.make)) for task in tasks]
    rows, failures = await judge(
        Informed(tasks, by_picture=shuffle),
        tasks,
        shuffle=shuffle,
        seed=0,
        concurrency=4,
        watch=lambda name, done, total: None,
    )
    return {row.task: row for row in rows}, failures


def test_every_judged_task_has_a_target() -> None:
    """And what has none says so."""
    targets = {task.name: task.targets[RIGHT] for task in drawn_tasks()}
    assert {name for name, target in targets.items() if target} == set(JUDGED_TASKS)
    assert targets["word_unseen"] is None


def test_a_task_by_its_name() -> None:
    """Also one that is not asked by default."""
    (task,) = drawn_tasks(3, names=["number"])
    assert (task.name, task.count, task.targets[RIGHT]) == ("number", 3, None)


async def test_the_trained_answers_are_right() -> None:
    """All of them, follow-ups too; so a missed target is the model's fault and not the judge's."""
    rows, failures = await rows_of(drawn_tasks(COUNT), shuffle=False)
    assert failures == []
    assert {name: row.rate for name, row in rows.items()} == dict.fromkeys(rows, 1.0)
    assert rows[FOLLOW_UP].answers > COUNT


@pytest.mark.parametrize("name", ["colour", "word", "compare", "direction"])
async def test_answers_about_another_picture_are_at_chance(name: str) -> None:
    """Right about the picture that is shown, they are wrong about the one that is asked for."""
    tasks = [task for task in drawn_tasks(40) if task.name == name]
    rows, _ = await rows_of(tasks, shuffle=True)
    assert rows[name].chance is not None
    assert rows[name].chance < 0.6
    assert is_at_chance(rows[name])


def test_cases_come_from_evaluation_seeds() -> None:
    """None of which training draws."""
    for task in drawn_tasks(200):
        seeds = task.seeds_of(7)
        assert seeds[0] in EVALUATION_SEEDS
        assert seeds[-1] in EVALUATION_SEEDS


def test_a_clip_is_sent_as_one() -> None:
    """As MP4 alone; a comparison as several pictures."""
    seed = EVALUATION_SEEDS.start
    moving = drawn_case("direction", seed).shown
    assert moving.pictures == ()
    assert moving.clip is not None
    assert moving.clip[4:8] == b"ftyp"
    compared = drawn_case("compare", seed).shown
    assert len(compared.pictures) >= 2
    assert compared.clip is None
    assert all(picture.startswith(b"\x89PNG") for picture in compared.pictures)


def test_a_question_is_the_tasks_own_if_it_is_the_first_that_is_judged() -> None:
    """Asked before it: what needs no verdict. Never asked: what comes after the last verdict."""
    for seed in EVALUATION_SEEDS[:50]:
        turns = draw("scene", seed).turns
        questions = drawn_case("scene", seed).questions
        assert [each.text for each in questions] == [
            turn.question for turn in turns[: len(questions)]
        ]
        assert all(turn.expectation is None for turn in turns[len(questions) :])
        names = [
            name
            for each, turn in zip(questions, turns, strict=False)
            if each.judge is not None
            for name in each.judge(Reply(text=turn.answer, is_complete=True, seconds=0.0))
        ]
        assert names == [RIGHT, *[FOLLOW_UP] * (len(names) - 1)]


def test_right_is_what_a_drawn_task_promises() -> None:
    """Beside the follow-ups, which have no target."""
    assert all(set(task.targets) == {RIGHT, FOLLOW_UP} for task in drawn_tasks())
