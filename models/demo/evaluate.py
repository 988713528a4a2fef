"""Asks a server questions whose answers are known, and prints how many it got right.

    python -m models.demo.evaluate                          # a private server with the demo model
    python -m models.demo.evaluate --target HOST:PORT       # a server that runs, whatever it serves
    python -m models.demo.evaluate --model FOLDER           # a private server for a checkpoint
    python -m models.demo.evaluate --shuffle                # the check: no better than chance
    python -m models.demo.evaluate --servers 14             # as many side by side, on many cores
    python -m models.demo.evaluate --model FOLDER --against FILE --most-drop 3
                                                            # case by case beside an earlier --json

Run it from the root of the repository. Pictures, clips, instructions and titles are drawn afresh
from seeds that training never uses. The table goes to standard output, a bar to standard error.
"""

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

import ixc_client
from models.demo.evaluation import (
    Comparison,
    Report,
    Task,
    compare,
    drawn_tasks,
    evaluate,
    written_tasks,
)
from models.demo.evaluation.beforehand import drawn_beforehand
from models.demo.evaluation.drawn import DRAWN, DRAWN_BY_DEFAULT
from models.demo.evaluation.failures import save_failures
from models.demo.evaluation.run import Watch
from models.demo.evaluation.servers import num_cores, private_servers, threads_of_each
from models.demo.evaluation.table import comparison_table, show_failures, table
from models.demo.evaluation.written import WRITTEN

_PACKAGES = ("ixc", "torch", "grpcio", "pillow", "numpy", "av")

_EPILOG = """\
exit status:
  0 every case was asked and answered · 1 errors, or what is required was missed: a target with
  --require-targets, the rates of --against with --most-drop
  2 wrong usage · 3 no server answered or started · 4 a part is not installed · 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    for name in ("concurrency", "servers"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} is {getattr(args, name)}; at least 1 is needed")
    if args.target is not None and args.servers > 1:
        parser.error("--servers are started here; with --target there is one, which runs already")
    if args.most_drop is not None and args.against is None:
        parser.error("--most-drop needs --against, the report of what it may have dropped from")
    known = (*drawn_tasks(args.count, names=DRAWN), *written_tasks(args.written))
    tasks = [task for task in known if task.name in args.tasks]
    earlier: Report | None = None
    try:
        for task in tasks:
            task.seeds_of(args.seed)
        if args.against is not None:
            earlier = Report.from_json(json.loads(args.against.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if importlib.util.find_spec("av") is None:
        print("evaluate: clips need an encoder: pip install av", file=sys.stderr)
        return 4
    try:
        report = asyncio.run(_evaluate(args, tasks))
    except (ixc_client.ConnectionFailed, ixc_client.LaunchFailed) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 3
    except ixc_client.IxcError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    comparison: Comparison | None = None
    cannot_compare = ""
    if earlier is not None:
        try:
            comparison = compare(earlier, report)
        except ValueError as error:
            cannot_compare = f"--against {args.against}: {error}"
    _show(args, report, comparison, tasks)
    if cannot_compare:
        parser.error(cannot_compare)
    is_missed = args.require_targets and report.missed
    has_dropped = (
        comparison is not None
        and args.most_drop is not None
        and comparison.overall.drop > args.most_drop
    )
    return 1 if report.errors or is_missed or has_dropped else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models.demo.evaluate",
        description=(__doc__ or "").partition("\n")[0],
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whom = parser.add_mutually_exclusive_group()
    whom.add_argument("--target", metavar="ADDRESS", help="a server that runs")
    whom.add_argument(
        "--model", metavar="MODEL", default="demo", help="a checkpoint folder to serve, or demo"
    )
    parser.add_argument("--adapter", default="", help="for every task (default: each its own)")
    parser.add_argument(
        "--tasks",
        nargs="+",
        choices=(*DRAWN, *WRITTEN),
        default=(*DRAWN_BY_DEFAULT, *WRITTEN),
        metavar="TASK",
        help=f"of {', '.join((*DRAWN, *WRITTEN))}; default: all with a target, and word_unseen",
    )
    parser.add_argument("--count", type=int, default=40, metavar="N", help="cases of a drawn task")
    parser.add_argument("--written", type=int, default=50, metavar="N", help="pages, and articles")
    parser.add_argument(
        "--servers", type=int, default=1, metavar="N", help="private ones that share the cases"
    )
    parser.add_argument(
        "--concurrency", type=int, default=8, metavar="N", help="cases at a time, at each server"
    )
    parser.add_argument("--seed", type=int, default=0, help="another one draws other cases")
    parser.add_argument(
        "--shuffle", action="store_true", help="exchange pictures: answers must drop to chance"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there too")
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="compare with this --json, case by case"
    )
    parser.add_argument(
        "--most-drop",
        type=float,
        metavar="POINTS",
        help="exit with 1 when more of a hundred cases than so many were lost against --against",
    )
    parser.add_argument(
        "--show-failures", type=int, default=0, metavar="K", help="print the first K of each task"
    )
    parser.add_argument(
        "--save-failures", type=Path, metavar="DIR", help="write pictures, clips and answers there"
    )
    parser.add_argument(
        "--require-targets", action="store_true", help="exit with 1 when a target is missed"
    )
    return parser


async def _evaluate(args: argparse.Namespace, tasks: Sequence[Task]) -> Report:
    async with contextlib.AsyncExitStack() as stack:
        if args.target is None:
            number = "a server" if args.servers == 1 else f"{args.servers} servers"
            print(f"starting {number} with {args.model} …", file=sys.stderr)
            threads = threads_of_each(args.servers)
            client, *beside = await stack.enter_async_context(
                private_servers(args.model, args.servers, threads=threads)
            )
        else:
            client = await stack.enter_async_context(ixc_client.AsyncClient(args.target))
            beside = []
        if beside:
            tasks = await asyncio.to_thread(
                drawn_beforehand, tasks, args.seed, processes=num_cores()
            )
        with _bar(tasks) as watch:
            return await evaluate(
                client,
                tasks,
                beside=beside,
                shuffle=args.shuffle,
                adapter=args.adapter,
                seed=args.seed,
                concurrency=args.concurrency,
                watch=watch,
            )


@contextlib.contextmanager
def _bar(tasks: Sequence[Task]) -> Iterator[Watch]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    is_hidden = not console.is_terminal  # else an empty line would stand in files and pipes
    with Progress(*columns, console=console, transient=True, disable=is_hidden) as progress:
        bars = {task.name: progress.add_task(task.name, total=task.count) for task in tasks}

        def watch(name: str, done: int, total: int) -> None:
            progress.update(bars[name], completed=done, total=total)

        yield watch


def _show(
    args: argparse.Namespace,
    report: Report,
    comparison: Comparison | None,
    tasks: Sequence[Task],
) -> None:
    # A file or pipe has no width; in the usual 80 columns the table would be cut.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    show_failures(console, report, args.show_failures)
    console.print(table(report))
    if comparison is not None:
        console.print(comparison_table(comparison, f"against {args.against}"))
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        document = _origin() | report.to_json()
        if comparison is not None:
            document["against"] = comparison.to_json()
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"written to {args.json}")
    if args.save_failures is not None:
        count = save_failures(args.save_failures, report, tasks)
        print(f"{count} failures written to {args.save_failures}")


def _origin() -> dict[str, Any]:
    """What belongs beside every figure: the command, the machine, the versions."""
    return {
        "command": " ".join(["python", "-m", "models.demo.evaluate", *sys.argv[1:]]),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
        },
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
