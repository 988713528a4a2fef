"""What a process can no longer do once it has given system calls up, and what it still can."""

import subprocess
import sys
from pathlib import Path

import pytest

from ixc_runtime.media import seccomp

TRY = """
import os, socket, subprocess, sys, threading
from ixc_runtime.media.seccomp import refuse_system_calls
assert refuse_system_calls()
attempts = dict(
    socket=lambda: socket.socket(),
    pair=lambda: socket.socketpair(),
    fork=lambda: os.fork(),
    execute=lambda: os.execv("/bin/true", ["true"]),
    spawn=lambda: subprocess.run(["/bin/true"]),
    kill=lambda: os.kill(os.getppid(), 0),
    remove=lambda: os.unlink(sys.argv[1]),
    rename=lambda: os.rename(sys.argv[1], sys.argv[1] + "x"),
    make=lambda: os.mkdir(sys.argv[1] + "d"),
    change=lambda: os.chmod(sys.argv[1], 0),
)
for name, attempt in attempts.items():
    try:
        attempt()
    except PermissionError:
        continue
    print(name, "was allowed")
thread = threading.Thread(target=lambda: print(open(sys.argv[1]).read()))
thread.start()
thread.join()
"""


def test_given_up(tmp_path):
    """No sockets, processes, signals or changes to files; threads and reading remain."""
    path = tmp_path / "file"
    path.write_text("read in a thread")
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    command = [sys.executable, "-c", TRY, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("read in a thread\n", "")
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_processor(monkeypatch):
    """No filter is installed where its numbers would mean other calls."""
    monkeypatch.setattr(seccomp.platform, "machine", lambda: "riscv64")
    before = Path("/proc/self/status").read_text()
    assert not seccomp.refuse_system_calls()
    assert ("NoNewPrivs:\t0" in before) == (
        "NoNewPrivs:\t0" in Path("/proc/self/status").read_text()
    )


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_program(machine):
    """Whole instructions, every jump within the program, and it ends by allowing."""
    program = seccomp.filter_program(machine)
    lines = [program[at : at + 8] for at in range(0, len(program), 8)]
    assert len(program) % 8 == 0
    for index, line in enumerate(lines):
        assert index + 1 + max(line[2], line[3]) < len(lines) or line[0] == 0x06
    assert lines[-1] == seccomp._line(0x06, 0x7FFF0000)
