"""Every instantiation that may be launched: what CI compiles is what runs, and nothing else does.

Each launcher module names its own in a tuple `INSTANTIATIONS`; here they come together.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ARCHITECTURES = ("sm_80", "sm_90", "sm_90a")


class UnknownKernel(LookupError):
    """A kernel that no launcher lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instantiation:
    """One kernel of one source file, with its template arguments."""

    source: str  # in kernels/: "rms_norm.cu"
    name: str  # the C++ name expression: "rms_norm<__nv_bfloat16, 4096>"
    architectures: tuple[str, ...]  # of ARCHITECTURES, those that it is compiled for

    def __post_init__(self) -> None:
        if not self.architectures or not set(self.architectures) <= set(ARCHITECTURES):
            raise ValueError(
                f"{self.name}: architectures {self.architectures}, expected some of {ARCHITECTURES}"
            )


@cache
def all_instantiations() -> tuple[Instantiation, ...]:
    """Of all launchers, by source and name."""
    listed = [each for module in _modules() for each in _listed_in(module)]
    return tuple(sorted(set(listed), key=lambda each: (each.source, each.name)))


@cache
def find(source: str, name: str) -> Instantiation:
    """The listed instantiation of that source and name."""
    # The launcher named like the source is asked first: most kernels need no other import.
    stem = Path(source).stem
    modules = sorted(_modules(), key=lambda module: module.rpartition(".")[2] != stem)
    for module in modules:
        for each in _listed_in(module):
            if (each.source, each.name) == (source, name):
                return each
    raise UnknownKernel(f"no launcher lists {name} of {source} in its INSTANTIATIONS")


def _modules() -> tuple[str, ...]:
    package = __name__.rpartition(".")[0]
    folder = str(Path(__file__).parent)
    found = (f"{package}.{each.name}" for each in pkgutil.iter_modules([folder]))
    # `__main__` is a command, not a launcher: importing it would run it.
    return tuple(name for name in found if name not in (__name__, f"{package}.__main__"))


def _listed_in(module: str) -> Iterator[Instantiation]:
    yield from getattr(importlib.import_module(module), "INSTANTIATIONS", ())
