"""Long measurements on a machine that may go away at any moment: in parts, each a process of its
own; a line every few seconds; and a file that has all that is known by now.
"""

import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

from tests.bench.record import Goal, Measurement, write

TELL_SECONDS = 4.0

Figures = dict[str, list[float]]  # of one part, by name


class Pulse:
    """Says on standard error how far a process is: nobody need wonder whether it still runs."""

    def __init__(self, name: str, *, beside: Callable[[], str]) -> None:
        self._name = name
        self._beside = beside
        self.at = "begun"  # what it is doing

    @contextmanager
    def beating(self) -> Iterator[None]:
        over, began = threading.Event(), time.perf_counter()

        def beat() -> None:
            while not over.wait(TELL_SECONDS):
                seconds = time.perf_counter() - began
                line = f"   {self._name}, {seconds:.0f} s: {self.at} ({self._beside()})"
                print(line, file=sys.stderr, flush=True)

        thread = threading.Thread(target=beat, name="pulse", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def gib_under(folder: Path) -> float:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # gone meanwhile
            total += path.stat().st_size
    return total / 2**30


def say(figures: Figures) -> None:
    """To whoever runs this process as a part: all that is known by now."""
    print(json.dumps(figures), flush=True)


def in_own_process(command: Sequence[str]) -> Iterator[Figures]:
    """What a part says, each time that it says more. Raises CalledProcessError if it fails."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "a pipe was asked for"
        for line in process.stdout:
            if line.endswith("\n"):  # else the process was ended in the middle of it
                yield json.loads(line)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def earlier(output: Path, settings: Mapping[str, object]) -> dict[str, Figures]:
    """What a run with these settings has left in the file, by part; that of others is put aside."""
    if not output.is_file():
        return {}
    document = json.loads(output.read_text(encoding="utf-8"))
    if document["settings"] != settings:
        output.replace(output.with_name(f"{output.stem}.before.json"))
        return {}
    found: dict[str, Figures] = {}
    for each in document["measurements"]:
        part, _, name = each["name"].partition(", ")
        found.setdefault(part, {})[name] = each["values"]
    return found


def keep(
    output: Path,
    measurements: Sequence[Measurement],
    goals: Sequence[Goal],
    settings: Mapping[str, object],
) -> None:
    """As `record.write`; in the file's place there is a whole one at any moment."""
    beside = output.with_name(f".{output.name}")
    with redirect_stdout(io.StringIO()):  # it would say each time that it has written
        write(beside, measurements, goals, settings)
    beside.replace(output)
