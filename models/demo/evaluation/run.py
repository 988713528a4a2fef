"""The evaluation itself: draws cases, has them answered several at a time, judges and counts.

Tasks are begun one after the other, those with the longest answers first, and the next one is under
way before the last answers of one are there: no server waits for a straggler. Nothing here depends
on the model: whatever serves the contract can be evaluated.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import ixc_client
from models.demo.evaluation.asking import Answerer, ServerAnswerer, SeveralAnswerers
from models.demo.evaluation.case import FOLLOW_UP, RIGHT, Case, Reply, Task
from models.demo.evaluation.report import Failure, Report, Row, Subject
from models.demo.evaluation.shuffling import chance, exchanged

# Called with the task's name, how many of its cases are done, and how many there are.
Watch = Callable[[str, int, int], None]


async def evaluate(
    client: ixc_client.AsyncClient,
    tasks: Sequence[Task],
    count: int | None = None,
    *,
    beside: Sequence[ixc_client.AsyncClient] = (),
    shuffle: bool = False,
    adapter: str = "",
    seed: int = 0,
    concurrency: int = 8,
    watch: Watch = lambda task, done, total: None,
) -> Report:
    """Asks the server behind `client` and returns what came of it.

    Args:
        client: of any server, with any model.
        tasks: what to ask; `drawn_tasks` and `written_tasks` make them.
        count: cases per task; None: each task's own number.
        beside: of further servers with the same model, to share the cases with.
        shuffle: exchange the pictures among a task's cases, which must ruin the answers.
        adapter: for every task; "" leaves it to them.
        seed: of the run. Another seed asks about other pictures.
        concurrency: cases under way at a time, at each server.
        watch: is told of every case that is done.

    An error of the server about one case is a row's `errors` and a failure that says so, and the
    run goes on; when nobody answers any more it raises ServerUnreachable.
    """
    subject = Subject.of(await client.model(), await client.server_info())
    clients = (client, *beside)
    rows, failures = await judge(
        SeveralAnswerers([ServerAnswerer(each, adapter) for each in clients]),
        [task if count is None else replace(task, count=count) for task in tasks],
        shuffle=shuffle,
        seed=seed,
        concurrency=concurrency * len(clients),
        watch=watch,
    )
    return Report(
        subject=subject,
        adapter=adapter,
        seed=seed,
        is_shuffled=shuffle,
        rows=tuple(rows),
        failures=tuple(failures),
    )


async def judge(
    answerer: Answerer,
    tasks: Sequence[Task],
    *,
    shuffle: bool,
    seed: int,
    concurrency: int,
    watch: Watch,
) -> tuple[list[Row], list[Failure]]:
    """The same with anybody who answers; `concurrency` is of all together."""
    places = asyncio.Semaphore(concurrency)
    drawing = asyncio.Lock()  # threads of Python would only be in each other's way

    async def of_task(task: Task) -> _Judged:
        watch(task.name, 0, task.count)
        async with drawing:
            made = await asyncio.to_thread(list, map(task.make, task.seeds_of(seed)))
        cases = [case for case in made if case.questions]
        pairs = exchanged(cases, seed) if shuffle else [(case, case) for case in cases]
        if not pairs:
            return _Judged(rows=[], failures=[])  # nothing that could be exchanged
        outcomes, seconds = await _ask(answerer, task, pairs, places, watch)
        by_chance = chance([case for case, _ in pairs]) if shuffle else None
        return _Judged(
            rows=_rows(task, outcomes, by_chance, seconds),
            failures=[failure for outcome in outcomes for failure in outcome.failures],
        )

    try:
        async with asyncio.TaskGroup() as group:
            longest_first = sorted(
                range(len(tasks)), key=lambda number: -tasks[number].max_output_tokens
            )
            begun = {number: group.create_task(of_task(tasks[number])) for number in longest_first}
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    judged = [begun[number].result() for number in range(len(tasks))]
    rows = [row for each in judged for row in each.rows]
    failures = [failure for each in judged for failure in each.failures]
    follow_ups = [row for row in rows if row.name == FOLLOW_UP and row.answers]
    rows = [row for row in rows if row.name != FOLLOW_UP]
    return [*rows, *([_sum(follow_ups)] if follow_ups else [])], failures


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """Of one task."""

    rows: list[Row]
    failures: list[Failure]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """Of one case: a verdict for each property of each judged answer, and what went wrong."""

    verdicts: tuple[tuple[str, bool], ...]
    failures: tuple[Failure, ...]
    is_error: bool = False


async def _ask(
    answerer: Answerer,
    task: Task,
    pairs: Sequence[tuple[Case, Case]],
    places: asyncio.Semaphore,
    watch: Watch,
) -> tuple[list[_Outcome], float]:
    """What came of every pair, and the seconds from the first question to the last answer."""
    done = 0
    began: float | None = None

    async def one(case: Case, other: Case) -> _Outcome:
        nonlocal done, began
        async with places:
            began = time.perf_counter() if began is None else began
            outcome = await _outcome(answerer, task, case, other)
        done += 1
        watch(task.name, done, len(pairs))
        return outcome

    try:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(one(case, other)) for case, other in pairs]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    assert began is not None, "there is something to ask"
    return [each.result() for each in asked], time.perf_counter() - began


async def _outcome(answerer: Answerer, task: Task, case: Case, other: Case) -> _Outcome:
    try:
        replies = await answerer.answer(task, other.shown, [each.text for each in case.questions])
    except ixc_client.ServerUnreachable:
        raise  # everybody's failure, not this case's
    except ixc_client.IxcError as error:
        failure = Failure(
            task=task.name,
            seed=case.seed,
            shown_seed=other.seed,
            question=case.questions[0].text,
            expected=case.questions[0].expected,
            answer="",
            error=f"{type(error).__name__}: {error}",
        )
        return _Outcome(verdicts=(), failures=(failure,), is_error=True)
    return _judged(task, case, other, replies)


def _judged(task: Task, case: Case, other: Case, replies: Sequence[Reply]) -> _Outcome:
    verdicts: list[tuple[str, bool]] = []
    failures = []
    for question, reply in zip(case.questions, replies, strict=True):
        if question.judge is None:
            continue
        found = question.judge(reply)
        verdicts += found.items()
        lacks = tuple(name for name, holds in found.items() if not holds)
        if lacks:
            failures.append(
                Failure(
                    task=task.name,
                    seed=case.seed,
                    shown_seed=other.seed,
                    question=question.text,
                    expected=question.expected,
                    answer=reply.text,
                    lacks=lacks,
                )
            )
    return _Outcome(verdicts=tuple(verdicts), failures=tuple(failures))


def _rows(
    task: Task, outcomes: Sequence[_Outcome], by_chance: float | None, seconds: float
) -> list[Row]:
    """One for each property that the task promises, also where no answer came."""
    cases: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for outcome in outcomes:
        cases.update({name for name, _ in outcome.verdicts})
        answers.update(name for name, _ in outcome.verdicts)
        right.update(name for name, holds in outcome.verdicts if holds)
    if unknown := set(answers) - set(task.targets):
        raise ValueError(f"task {task.name} judges {sorted(unknown)}, which it does not announce")
    errors = sum(outcome.is_error for outcome in outcomes)
    return [
        Row(
            task=task.name,
            name=name,
            cases=cases[name],
            answers=answers[name],
            right=right[name],
            errors=errors,
            target=target,
            chance=None if name == FOLLOW_UP else by_chance,
            seconds=seconds,
        )
        for name, target in task.targets.items()
    ]


def _sum(rows: Sequence[Row]) -> Row:
    """Of all tasks together. Their time and errors stand in their own rows already."""
    return Row(
        task=FOLLOW_UP,
        name=RIGHT,
        cases=sum(row.cases for row in rows),
        answers=sum(row.answers for row in rows),
        right=sum(row.right for row in rows),
        errors=0,
        target=None,
        chance=None,
        seconds=0.0,
    )
