"""The evaluation's own check: with the pictures exchanged, a rate must drop to chance.

A task that can be answered without looking, by its wording or because one answer is frequent,
shows here: what is right all the same is what the pictures did not contribute.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

from models.demo.evaluation.case import Case


def exchanged(cases: Sequence[Case], seed: int) -> list[tuple[Case, Case]]:
    """Cases, each with the one whose pictures it gets: never itself, always the same kind.

    Everybody's pictures are given away once, in a ring of random order. A case whose kind of
    pictures nobody else has is left out, and so are those that show nothing.
    """
    alike: dict[tuple[int, bool], list[Case]] = defaultdict(list)
    for case in cases:
        if not case.shown.is_empty:
            alike[case.shown.kind].append(case)
    order = random.Random(seed)
    giver: dict[int, Case] = {}
    for group in alike.values():
        if len(group) < 2:
            continue
        ring = order.sample(group, len(group))
        giver.update(
            {case.seed: other for case, other in zip(ring, ring[1:] + ring[:1], strict=True)}
        )
    return [(case, giver[case.seed]) for case in cases if case.seed in giver]


def chance(cases: Sequence[Case]) -> float | None:
    """How often the right answer about another case's pictures is right here, on average.

    Over all pairs of questions of one form about different pictures: whoever answers in the form
    that a question asks for, but about the wrong picture, is right so often. None without pairs.
    """
    keys: dict[str, Counter[Hashable]] = defaultdict(Counter)  # by form, over all cases
    same = total = 0
    for case in cases:
        own: dict[str, Counter[Hashable]] = defaultdict(Counter)
        for question in case.questions:
            if question.judge is not None and question.key is not None:
                own[question.form][question.key] += 1
        for form, counts in own.items():
            # With those before it; the pair with those after it is counted when they come.
            same += sum(count * keys[form][key] for key, count in counts.items())
            total += counts.total() * keys[form].total()
        for form, counts in own.items():
            keys[form] += counts
    return same / total if total else None
