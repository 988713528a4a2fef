"""`ixc demo-model`: builds the demo model into the user's cache, once, and prints its folder."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ixc_cli.outcome import CommandError, Exit, require

NAME = "demo"  # in the place of a checkpoint folder, and among a server's models


def run(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="ixc demo-model",
        description="Build the demo model once, and print the folder it is in.",
    )
    parser.add_argument(
        "--gguf", metavar="FILE", type=Path, help="a local SmolLM2 GGUF, instead of a download"
    )
    args = parser.parse_args(argv)
    print(build(args.gguf))
    return Exit.OK


def build(gguf: Path | None = None) -> Path:
    """The folder of the demo model; progress goes to standard error."""
    require(("ixc_runtime", "gguf", "numpy"), extra="demo", command="the demo model")
    from ixc_runtime.checkpoint.demo_model import ensure_demo_model
    from ixc_runtime.errors import RuntimeFault

    if gguf is not None and not gguf.is_file():
        raise CommandError(f"no such file: {gguf}", Exit.USAGE)
    try:
        return ensure_demo_model(gguf=gguf, progress=_say)
    except RuntimeFault as fault:
        raise CommandError(fault.message) from fault


def _say(text: str) -> None:
    print(text, file=sys.stderr)
