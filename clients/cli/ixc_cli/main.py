"""The entry of `ixc`: picks the command, and turns every expected error into one line.

A command's module is imported only when it is asked for, so `ixc count` never loads what
`ixc serve` needs. Exit statuses are `outcome.Exit`'s, and stand in `ixc --help`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module, metadata

import ixc_client
from ixc_cli.outcome import CommandError, Exit

COMMANDS = {
    "serve": "serve a checkpoint over gRPC",
    "chat": "talk with a model in the terminal",
    "generate": "answer one prompt; reads and writes pipes",
    "count": "count the tokens of a prompt, its pictures and clips",
    "upload": "send pictures and clips, and print their names",
    "models": "list, load and unload models",
    "merge-lora": "merge a task or an adapter into a model's weights",
    "quantize": "round a model's weights to 4 bits",
    "operations": "list, stop and forget long work",
    "watch": "follow long work to its end",
    "convert": "turn published .bin weights into safetensors",
    "demo-model": "build the demo model and print its folder",
}

_EPILOG = """\
exit status:
  0 done · 1 refused or failed · 2 wrong usage · 3 no server answered or started
  4 a part of ixc is not installed · 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        # The first word alone: what follows belongs to the command.
        command = _parser().parse_args(arguments[:1] or ["--help"]).command
        module = import_module(f"ixc_cli.{command.replace('-', '_')}")
        return int(module.run(arguments[1:]))
    except SystemExit as leaving:  # argparse, after --help or a wrong flag
        return leaving.code if isinstance(leaving.code, int) else Exit.USAGE
    except CommandError as error:
        return _report(str(error), error.status)
    except ixc_client.UsageError as error:
        return _report(str(error), Exit.USAGE)
    except (ixc_client.ConnectionFailed, ixc_client.LaunchFailed) as error:
        return _report(str(error), Exit.NO_SERVER)
    except ixc_client.IxcError as error:
        return _report(str(error), Exit.FAILED)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more on its way out; there is nobody to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.PIPE_CLOSED


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    overview = "\n".join(f"  {name:{width}}  {text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="ixc",
        usage="ixc COMMAND [ARGUMENTS]   (ixc COMMAND --help says more)",
        description=f"InternLM-XComposer-2.5 over gRPC.\n\ncommands:\n{overview}",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"ixc {_version()}")
    return parser


def _version() -> str:
    try:
        return metadata.version("ixc")
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "(not installed)"


def _report(message: str, status: Exit) -> int:
    if message:
        print(f"ixc: {message}", file=sys.stderr)
    return status
