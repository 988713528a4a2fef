"""Draws all cases before the first is asked, by several processes: where many servers answer, one
that draws would be what they wait for.
"""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from models.demo.evaluation.case import Case, Task

_CHUNK = 8  # cases handed out at a time


def drawn_beforehand(tasks: Sequence[Task], seed: int, *, processes: int) -> list[Task]:
    """The same tasks; their cases of the run `seed` need no more drawing."""
    # Not by forking: whoever calls may have threads, which a fork leaves in mid-air.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        drawn = [pool.map(task.make, task.seeds_of(seed), chunksize=_CHUNK) for task in tasks]
        return [_of(task, seed, list(cases)) for task, cases in zip(tasks, drawn, strict=True)]


def _of(task: Task, seed: int, cases: list[Case]) -> Task:
    by_seed = dict(zip(task.seeds_of(seed), cases, strict=True))
    return replace(task, make=by_seed.__getitem__)
