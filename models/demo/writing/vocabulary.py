"""Pools of words to draw from, each with a part that training never sees.

An eighth of every pool, those with the lowest checksums, is held out: an example from an
evaluation seed is built of those, so its names, colours and phrasings are new to the adapters. A
list is written down once, not as two: whoever adds to it cannot forget to hold some out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from random import Random
from zlib import crc32

from models.demo.drawing import EVALUATION_SEEDS, TRAINING_SEEDS

__all__ = ["EVALUATION_SEEDS", "TRAINING_SEEDS", "Draw", "Pool", "words"]

_HELD_OUT_ONE_IN = 8
_FEWEST = 5  # of a smaller pool, nothing is held out


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """`seen` in training; `unseen` in evaluations alone."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]

    @classmethod
    def of(cls, entries: Iterable[str], *, common: Iterable[str] = ()) -> "Pool":
        """What is too common to be missed in training is never held out."""
        ordered = tuple(dict.fromkeys((*entries, *common)))
        rare = sorted(set(ordered) - set(common), key=lambda entry: crc32(entry.encode()))
        count = ceil(len(ordered) / _HELD_OUT_ONE_IN) if len(ordered) >= _FEWEST else 0
        unseen = frozenset(rare[:count])
        return cls(
            seen=tuple(entry for entry in ordered if entry not in unseen),
            unseen=tuple(entry for entry in ordered if entry in unseen),
        )


class Draw:
    """All choices of one example: the same seed, the same choices."""

    def __init__(self, seed: int) -> None:
        if seed not in TRAINING_SEEDS and seed not in EVALUATION_SEEDS:
            raise ValueError(f"seed {seed} is not between 0 and {EVALUATION_SEEDS.stop - 1}")
        self.seed = seed
        self.rng = Random(seed)
        self.is_evaluation = seed in EVALUATION_SEEDS

    def one(self, pool: Pool, *, unseen_share: float = 1.0) -> str:
        """In training a seen entry; in an evaluation, so often, a held-out one if there is any."""
        unseen = self.is_evaluation and self.rng.random() < unseen_share
        return self.rng.choice((pool.unseen if unseen else ()) or pool.seen)

    def some(self, pool: Pool, count: int, *, unseen_share: float = 1.0) -> list[str]:
        """Different entries; at most as many as the seen ones are."""
        found: dict[str, None] = {}
        while len(found) < min(count, len(pool.seen)):
            share = unseen_share if len(found) < len(pool.unseen) else 0.0
            found[self.one(pool, unseen_share=share)] = None
        return list(found)

    def chance(self, share: float) -> bool:
        return self.rng.random() < share


def words(text: str) -> tuple[str, ...]:
    """Entries of a pool written with commas and line breaks between them."""
    return tuple(entry.strip() for entry in text.replace("\n", ",").split(",") if entry.strip())
