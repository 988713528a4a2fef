"""`python -m ixc_service --model FOLDER …`, also reached as `ixc serve`."""

import asyncio
import os
import sys
from collections.abc import Sequence

import uvloop

from ixc_runtime.errors import RuntimeFault
from ixc_service import lifecycle, log_events, settings


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m ixc_service") -> int:
    """0 after a drain, 1 for a server that could not start, 2 for settings that make no sense."""
    try:
        chosen = settings.load(sys.argv[1:] if argv is None else argv, os.environ, prog=prog)
    except settings.SettingsError as error:
        return _complain(prog, error, 2)
    log_events.configure(chosen.log_level, chosen.log_format)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(lifecycle.run(chosen, os.environ))
    except settings.SettingsError as error:
        return _complain(prog, error, 2)
    except RuntimeFault as fault:
        return _complain(prog, f"{fault.reason}: {fault.message}", 1)
    return 0


def _complain(prog: str, what: object, code: int) -> int:
    print(f"{prog}: {what}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
