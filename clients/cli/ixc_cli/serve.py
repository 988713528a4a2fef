"""`ixc serve [MODEL] [flags]`: hands over to the service, whose flags these are.

MODEL, if given, comes first: a checkpoint folder, or `demo`, which is built if it is not there.
With `--until-stdin-closes` the server stops, as on SIGTERM, when its standard input ends: whoever
started it and held the other end of that pipe is gone, and so should the server be.
"""

import os
import signal
import sys
import threading
from collections.abc import Sequence

from ixc_cli.outcome import require

_LIFELINE = "--until-stdin-closes"


def run(argv: Sequence[str]) -> int:
    require(
        ("ixc_service", "torch", "msgspec", "uvloop", "tokenizers", "PIL"),
        extra="server",
        command="ixc serve",
    )
    from ixc_service.__main__ import main as serve

    if {"-h", "--help"} & set(argv):
        print("ixc serve [MODEL] …   MODEL: a checkpoint folder, or `demo`; else --model says it\n")
    arguments = [argument for argument in argv if argument != _LIFELINE]
    if _LIFELINE in argv:
        threading.Thread(target=_stop_with_stdin, name="ixc-lifeline", daemon=True).start()
    if arguments and not arguments[0].startswith("-"):
        arguments[0] = f"--model={_folder_of(arguments[0])}"
    return serve(arguments, prog="ixc serve")


def _folder_of(model: str) -> str:
    if model != "demo":
        return model
    from ixc_cli.demo_model import build

    return str(build())


def _stop_with_stdin() -> None:
    # By descriptor: a thread inside Python's own buffered reader would block the exit.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
