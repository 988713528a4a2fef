"""Writes down what Python's audit hooks tell of a process: sockets, files opened to write, pickles.

Put into a folder as `sitecustomize.py`, with the name of a log file in LOG, and the folder onto
PYTHONPATH: every Python process started from there on imports it before anything else. Lines are
tab-separated: process id, role, event, arguments.
"""

import os
import sys

LOG = "@LOG@"  # the test writes the path here, for media workers are given no environment

# In a fresh checkout the interpreter would cache our modules beside their sources: its doing, not
# the server's, and it would depend on what ran before.
sys.dont_write_bytecode = True

_EVENTS = {
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.sendto",
    "urllib.Request",
    "pickle.find_class",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.truncate",
    "os.symlink",
    "os.link",
    "os.chmod",
    "os.chown",
    "subprocess.Popen",
    "shutil.rmtree",
    "sqlite3.connect",
    "ctypes.dlopen",
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _role() -> str:
    words = " ".join(sys.orig_argv)
    for mark, role in (
        ("ixc_runtime.engine_process.process", "engine"),
        ("ixc_runtime.media.worker", "media"),
        ("ixc_service", "front end"),
    ):
        if mark in words:
            return role
    return "other"


def _path(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _install() -> None:
    log = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    start = f"{os.getpid()}\t{_role()}\t"

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not (isinstance(flags, int) and flags & _WRITING):
                return
            arguments = (path,)
        elif event not in _EVENTS:
            return
        # Not everything's repr: a socket's would ask it for its name, which is an event too.
        plain = (str, bytes, tuple, list, os.PathLike)
        told = "\t".join(repr(_path(each)) for each in arguments if isinstance(each, plain))
        os.write(log, f"{start}{event}\t{told}\n".encode(errors="replace"))

    sys.addaudithook(hook)


if not LOG.startswith("@"):  # imported as itself, it does nothing
    _install()
