"""`ixc serve [MODEL] [flags]`: hands over to the service, whose flags these are.

MODEL, if given, comes first: a checkpoint folder, or `demo`, which is built if it is not there.
With `--until-stdin-closes` the server stops, as on SIGTERM, when its standard input ends: whoever
started it and held the other end of that pipe is gone, and so should the server be. The folder of
`--then-remove=FOLDER` goes with it: it was made for this server, and nobody else is left to do it.
"""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Sequence

from ixc_cli import demo_model
from ixc_cli.outcome import require

_LIFELINE = "--until-stdin-closes"
_THEN_REMOVE = "--then-remove="


def run(argv: Sequence[str]) -> int:
    require(
        ("ixc_service", "torch", "msgspec", "uvloop", "tokenizers", "PIL"),
        extra="server",
        command="ixc serve",
    )
    from ixc_service.__main__ import main as serve

    if {"-h", "--help"} & set(argv):
        print("ixc serve [MODEL] …   MODEL: a checkpoint folder, or `demo`; else --model says it\n")
    ours = (_LIFELINE, _THEN_REMOVE)
    arguments = [argument for argument in argv if not argument.startswith(ours)]
    is_abandoned = threading.Event()
    if _LIFELINE in argv:
        threading.Thread(
            target=_stop_with_stdin, args=(is_abandoned,), name="ixc-lifeline", daemon=True
        ).start()
    if arguments and not arguments[0].startswith("-"):
        arguments[:1] = _model_flags(arguments[0])
    try:
        return serve(arguments, prog="ixc serve")
    finally:
        if is_abandoned.is_set():  # else whoever made the folder wants to read the log in it
            for argument in argv:
                if argument.startswith(_THEN_REMOVE):
                    shutil.rmtree(argument.removeprefix(_THEN_REMOVE), ignore_errors=True)


def _model_flags(model: str) -> list[str]:
    if model != demo_model.NAME:
        return [f"--model={model}"]
    # Its folder is called after its parts. A name of the user's own comes later, and wins.
    return [f"--model={demo_model.build()}", f"--model-name={demo_model.NAME}"]


def _stop_with_stdin(is_abandoned: threading.Event) -> None:
    # By descriptor: a thread inside Python's own buffered reader would block the exit.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    is_abandoned.set()
    os.kill(os.getpid(), signal.SIGTERM)
