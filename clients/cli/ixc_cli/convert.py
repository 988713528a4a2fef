"""`ixc convert SOURCE TARGET`: published .bin weights become safetensors, which the server reads.

Nothing of SOURCE is executed or changed. TARGET appears whole or not at all.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ixc_cli.outcome import CommandError, Exit, require

if TYPE_CHECKING:
    from ixc_runtime.checkpoint.convert import ConvertProgress


def run(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="ixc convert", description="Turn published .bin weights into safetensors."
    )
    parser.add_argument("source", type=Path, help="folder of the published checkpoint")
    parser.add_argument("target", type=Path, help="folder to write; must not exist yet")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="round the weights to this; without it they stay bit for bit as they are",
    )
    args = parser.parse_args(argv)
    require(("ixc_runtime", "torch", "safetensors", "rich"), extra="server", command="ixc convert")
    import torch

    from ixc_runtime.checkpoint.convert import convert_checkpoint
    from ixc_runtime.errors import RuntimeFault

    dtype = getattr(torch, args.dtype) if args.dtype else None
    try:
        with _progress_bar() as progress:
            print(convert_checkpoint(args.source, args.target, dtype=dtype, progress=progress))
    except RuntimeFault as fault:
        raise CommandError(fault.message) from fault
    except OSError as error:
        raise CommandError(f"{error.strerror}: {error.filename or args.target}") from error
    return Exit.OK


@contextmanager
def _progress_bar() -> Iterator[Callable[["ConvertProgress"], None]]:
    """On standard error, so that standard output holds the folder alone."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("converting", total=None)

        def show(step: "ConvertProgress") -> None:
            bar.update(
                task,
                description=step.file,
                completed=step.done_bytes,
                total=step.total_bytes,
            )

        yield show
