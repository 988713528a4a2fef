"""How the client behaves, as small values: how long it waits, how often it tries, whom it trusts.

They are compared, printed and shared freely. Nothing here does anything by itself.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final, Literal


class _NotGiven(Enum):
    NOT_GIVEN = "NOT_GIVEN"

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NotGiven = Literal[_NotGiven.NOT_GIVEN]
# "The caller did not say": leaves a setting as it is, where None would clear it.
NOT_GIVEN: Final = _NotGiven.NOT_GIVEN


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds the client waits. Always finite; a stream has no total limit, only an idle one.

    >>> Timeouts(idle=60)
    Timeouts(unary=5.0, idle=60)
    """

    unary: float = 5.0  # a call with one answer: sessions, tokens, model and server information
    idle: float = 30.0  # a stream without any event; the server sends a heartbeat every 10 s

    def __post_init__(self) -> None:
        for name, value in (("unary", self.unary), ("idle", self.idle)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a finite number of seconds above 0, not {value}")


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a call is tried when nothing has come of it yet, and how long between tries.

    Only what is safe is tried again: reads, calls with a request id, and streams: before their
    first event the request is sent anew (its id makes the server attach, not run twice), after it
    the client watches the same generation from the last event it has seen. The wait doubles from
    `first_delay` up to `max_delay` with jitter, and is never shorter than the server asked for;
    a server that asks for more than `max_delay` is not waited for, but reported.

    >>> Retries(attempts=1)  # never again
    Retries(attempts=1, first_delay=0.1, max_delay=5.0)
    """

    attempts: int = 4
    first_delay: float = 0.1
    max_delay: float = 5.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")
        if not 0 <= self.first_delay <= self.max_delay < math.inf:
            raise ValueError(
                f"delays must be 0 <= first_delay <= max_delay, finite, "
                f"not {self.first_delay} and {self.max_delay}"
            )

    def delay(
        self,
        attempt: int,
        retry_after: float | None,
        jitter: Callable[[], float] = random.random,
    ) -> float | None:
        """Seconds to wait after the failure of the `attempt`-th try (from 1); None: give up."""
        if attempt >= self.attempts or (retry_after or 0.0) > self.max_delay:
            return None
        # Half the wait is random: neighbours that failed together do not come back together.
        longest = min(self.max_delay, self.first_delay * 2.0 ** (attempt - 1))
        return max(longest * (0.5 + jitter() / 2), retry_after or 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Certificates as PEM files. None throughout trusts what the system trusts."""

    root_certificates: Path | str | None = None
    certificate: Path | str | None = None  # the client's own, where the server asks for one
    private_key: Path | str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together: give both or neither")
