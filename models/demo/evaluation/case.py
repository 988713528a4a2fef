"""What is asked and how it is judged: plain values between those who draw, ask and count.

    Task ── make(seed) ──► Case: what is shown, and questions about it
    Question ── judge(Reply) ──► one verdict a property

Knows neither how a case is drawn nor how a server is reached.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

# The property that an answer is right, of tasks that ask for one.
RIGHT = "right"
# The same of later turns, which ask about anything on the picture: one row for all tasks.
FOLLOW_UP = "follow-up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Pictures and a clip as the files that are sent."""

    pictures: tuple[bytes, ...] = ()
    clip: bytes | None = None

    @property
    def kind(self) -> tuple[int, bool]:
        """What may stand in for it: as many pictures, a clip for a clip."""
        return len(self.pictures), self.clip is not None

    @property
    def is_empty(self) -> bool:
        return not self.pictures and self.clip is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back. `is_complete`: the model ended by itself, not at a limit."""

    text: str
    is_complete: bool
    seconds: float


Judge = Callable[[Reply], Mapping[str, bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    text: str
    expected: str  # for people who read the failures
    judge: Judge | None  # None: asked because a later question needs it, and not judged
    # Questions of one form take the same answers; with the same key as well, the same one is right.
    # None: there is no such thing as the right answer.
    form: str = ""
    key: Hashable = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Without questions it is not asked: nothing about what is shown could be judged."""

    seed: int
    shown: Shown
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """`targets` has the rate that each judged property is to reach; None: none is set."""

    name: str
    make: Callable[[int], Case]
    seeds: range
    adapter: str
    max_output_tokens: int
    targets: Mapping[str, float | None] = field(default_factory=dict)
    count: int

    def seeds_of(self, run_seed: int) -> range:
        """The seeds of one run. Runs with different seeds share no case."""
        first = self.seeds.start + run_seed * _CASES_OF_A_RUN
        if not 0 < self.count <= _CASES_OF_A_RUN:
            raise ValueError(f"{self.count} cases of {self.name}; 1 to {_CASES_OF_A_RUN} can be")
        if run_seed < 0 or first + self.count > self.seeds.stop:
            runs = len(self.seeds) // _CASES_OF_A_RUN
            raise ValueError(f"seed {run_seed} of {self.name}; 0 to {runs - 1} can be")
        return range(first, first + self.count)


_CASES_OF_A_RUN = 1 << 16
