"""What a measurement is, how it is shown, and what is written beside it.

A figure without its machine, versions, command and spread is not worth keeping, so every file of
`results/` has them.
"""

import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("ixc", "torch", "transformers", "numpy", "grpcio", "protobuf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One quantity, measured several times in the same run."""

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        spread = f"{min(self.values):.2f} to {max(self.values):.2f}"
        return f"{self.name:44}{self.median:9.2f} {self.unit:9} ({spread})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A ratio of two medians that we mean to reach."""

    name: str
    ratio: float
    at_least: float

    def __str__(self) -> str:
        verdict = "reached" if self.ratio >= self.at_least else "MISSED"
        return f"{self.name:44}{self.ratio:9.2f} times     (goal {self.at_least:g}: {verdict})"


def show(measurements: Sequence[Measurement], goals: Sequence[Goal]) -> None:
    for line in (*measurements, "", *goals):
        print(line)


def write(
    path: Path,
    measurements: Sequence[Measurement],
    goals: Sequence[Goal],
    settings: Mapping[str, object],
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = origin() | {
        "settings": settings,
        "measurements": [asdict(each) | {"median": each.median} for each in measurements],
        "goals": [asdict(goal) for goal in goals],
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {path}")


def origin() -> dict[str, object]:
    """What belongs beside every figure: the command, when, the machine, the versions."""
    return {
        "command": " ".join([Path(sys.executable).name, "-m", _module(), *sys.argv[1:]]),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def machine() -> dict[str, object]:
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        # Others' work on the machine makes figures worthless; this shows it.
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _module() -> str:
    spec = sys.modules["__main__"].__spec__
    return spec.name if spec is not None else "?"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
