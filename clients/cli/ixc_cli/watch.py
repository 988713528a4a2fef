"""`ixc watch OPERATION`: follows long work to its end, with a bar."""

import argparse
from collections.abc import Sequence

from ixc_cli import flags
from ixc_cli.following import follow
from ixc_cli.outcome import CommandError


def run(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="ixc watch", description="Follow an operation to its end. Leaving stops nothing."
    )
    parser.add_argument(
        "operation", nargs="?", type=flags.given, help="its name; without one, the newest"
    )
    flags.add_connection(parser, private=False)
    args = parser.parse_args(argv)
    with flags.connect(args) as ixc:
        if args.operation is None:
            operation = next(ixc.operations.list(), None)
            if operation is None:
                raise CommandError("there are no operations")
        else:
            operation = ixc.operations.get(args.operation)
        stream = ixc.operations.watch(operation.name)
        title = f"{operation.kind} {operation.model}"
        return follow(ixc, stream, title, server=flags.server_text(args))
