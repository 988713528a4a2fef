"""`ixc operations`: long work of a server: listed, stopped, forgotten."""

import argparse
from collections.abc import Sequence

import ixc_client
from ixc_cli import flags
from ixc_cli.outcome import Exit
from ixc_cli.table import print_table

_HEADINGS = ("name", "kind", "state", "progress", "model", "makes", "begun")
_OPEN = (ixc_client.OperationState.QUEUED, ixc_client.OperationState.RUNNING)


def run(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="ixc operations", description="List long work, newest first; or stop or forget some."
    )
    flags.add_connection(parser, private=False)
    parser.add_argument("--open", action="store_true", help="only what waits or runs")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--cancel", metavar="NAME", type=flags.given, help="stop this one")
    what.add_argument(
        "--delete", metavar="NAME", type=flags.given, help="forget this one, which is done"
    )
    args = parser.parse_args(argv)
    with flags.connect(args) as ixc:
        if args.cancel:
            print(ixc.operations.cancel(args.cancel).state)
            return Exit.OK
        if args.delete:
            ixc.operations.delete(args.delete, allow_missing=False)
            return Exit.OK
        found = ixc.operations.list(states=_OPEN if args.open else ())
        print_table(_HEADINGS, [_row(each) for each in found])
    return Exit.OK


def _row(operation: ixc_client.Operation) -> tuple[str, ...]:
    progress = operation.progress
    how_far = "" if progress is None else f"{progress.fraction:.0%} {progress.stage}"
    if operation.error is not None:
        how_far = operation.error.reason
    begun = operation.create_time
    return (
        operation.name,
        operation.kind,
        operation.state,
        "done" if operation.result else how_far,
        operation.model,
        operation.output_model,
        begun.astimezone().strftime("%Y-%m-%d %H:%M") if begun else "",
    )
