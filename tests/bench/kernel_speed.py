"""Speed of every kernel on this GPU, beside what its memory and arithmetic allow.

    python -m tests.bench.kernel_speed [NAME ...] [--repeats N] [--output FILE]

Measures the chip's ceilings first, then asks every `kernels/bench_NAME.py` for its rows: each has a
function `rows(context)` that times a kernel, and beside it what torch has for the same.
"""

import argparse
import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.gpu import Context, Row, prepare, show_rows, write_rows
from tests.bench.record import RESULTS

_BENCHMARKS = Path(__file__).parent / "kernels"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(names())}; all by default")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--output", type=Path, default=RESULTS / "kernel_speed.json")
    args = parser.parse_args()
    chosen = args.names or names()
    if unknown := set(chosen) - set(names()):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    context = prepare(args.repeats)
    rows = []
    for name in chosen:
        mine = list(rows_of(name, context))
        show_rows(name, context, mine)
        rows += mine
        # After each, so that a run that is cut off keeps what it has found.
        write_rows(args.output, context, rows, {"benchmarks": chosen, "repeats": args.repeats})


def names() -> Sequence[str]:
    modules = pkgutil.iter_modules([str(_BENCHMARKS)])
    return [each.name.removeprefix("bench_") for each in modules if each.name.startswith("bench_")]


def rows_of(name: str, context: Context) -> Iterator[Row]:
    yield from importlib.import_module(f"tests.bench.kernels.bench_{name}").rows(context)


if __name__ == "__main__":
    main()
