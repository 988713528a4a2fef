"""A server of one's own: started for this process, on a private socket, gone with it.

The server runs in processes of its own (`python -m ixc_cli serve`), so the client still knows
nothing but the contract, and a fault of the model cannot take the caller down. Its standard input
is a lifeline: when this process ends, however it ends, the server reads the end of file and stops.
"""

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from ixc_client._calls import Calls
from ixc_client._client import Client
from ixc_client._errors import ConnectionFailed, LaunchFailed, ServerError, UsageError
from ixc_client._health import Health
from ixc_client._settings import Retries, Timeouts

_POLL_SECONDS = 0.1
_STOP_SECONDS = 15.0
_LOG_LINES = 20

Setting = str | int | float | bool | Path


class PrivateServer:
    """A server process on a Unix socket in a folder of its own; both go when it is stopped.

    >>> with PrivateServer("demo") as server:  # doctest: +SKIP
    ...     ixc = ixc_client.AsyncClient(server.address)

    Args:
        model: folder of a checkpoint, or "demo" for the demo model.
        start_timeout: seconds until it must be ready; large checkpoints take minutes to load.
        settings: any flag of `ixc serve`, with underscores: max_batch=4, prefix_cache=False.
    """

    # What is run, before the model and the flags. Override it to start a server some other way.
    command: ClassVar[Sequence[str]] = (sys.executable, "-m", "ixc_cli", "serve")

    def __init__(
        self,
        model: str | Path,
        *,
        start_timeout: float = 600.0,
        **settings: Setting,
    ) -> None:
        self._model = str(model)
        self._start_timeout = start_timeout
        self._settings = settings
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"unix:{self._path('server.sock')}"

    @property
    def log(self) -> str:
        """The end of what the server has printed."""
        with self._path("server.log").open(encoding="utf-8", errors="replace") as lines:
            return "".join(deque(lines, maxlen=_LOG_LINES)).strip()

    def start(self) -> Self:
        """Returns once the server takes work. Raises LaunchFailed with the end of its log."""
        # Short: the path of a Unix socket has little more than a hundred bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="ixc-"))
        flags: dict[str, Setting] = {
            "listen": self.address,
            "data_dir": self._path("data"),
            "drain_notice_seconds": 0,  # no balancer sends anything here
            "drain_grace_seconds": 5,
            **self._settings,
        }
        try:
            with self._path("server.log").open("wb") as log:
                self._process = subprocess.Popen(
                    [
                        *self.command,
                        self._model,
                        "--until-stdin-closes",
                        f"--then-remove={self._folder}",  # should we be killed
                        *map(_flag, flags.items()),
                    ],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    # Ctrl-C in a terminal is for the caller, who may only mean to stop an answer.
                    start_new_session=True,
                )
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Lets running answers end for a few seconds, then stops the server for certain."""
        process, folder = self._process, self._folder
        if process is not None:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _path(self, name: str) -> Path:
        if self._folder is None:
            raise UsageError("the server is not started; enter its block, or call start()")
        return self._folder / name

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._start_timeout
        calls = Calls(self.address, timeouts=Timeouts(), retries=Retries(), tls=None, headers={})
        with contextlib.closing(calls):
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    status = process.wait(_POLL_SECONDS)
                    raise self._failure(f"the server ended with exit status {status}")
                with contextlib.suppress(ConnectionFailed, ServerError):
                    if (
                        self._path("server.sock").exists()
                        and calls.health("readiness") is Health.SERVING
                    ):
                        return
                if time.monotonic() > deadline:
                    raise self._failure(f"the server was not ready after {self._start_timeout} s")

    def _failure(self, what: str) -> LaunchFailed:
        log = self.log
        return LaunchFailed(f"{what}:\n{log}" if log else what, log=log)


def launch(
    model: str | Path,
    *,
    timeouts: Timeouts | None = None,
    retries: Retries | None = None,
    start_timeout: float = 600.0,
    **settings: Setting,
) -> Client:
    """Starts a private server and returns its client; closing the client stops the server.

    >>> with ixc_client.launch("demo") as ixc:  # doctest: +SKIP
    ...     for answer in ixc.generate(["What is the capital of France?", "And of Italy?"]):
    ...         print(answer)

    `settings` are the flags of `ixc serve`, with underscores. Needs the `server` extra.
    """
    server = PrivateServer(model, start_timeout=start_timeout, **settings).start()
    return _ClientWithServer(server, timeouts, retries)


class _ClientWithServer(Client):
    def __init__(
        self, server: PrivateServer, timeouts: Timeouts | None, retries: Retries | None
    ) -> None:
        super().__init__(server.address, timeouts=timeouts, retries=retries)
        self._server = server

    def close(self) -> None:
        super().close()
        self._server.stop()


def _flag(setting: tuple[str, Setting]) -> str:
    name, value = setting
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag}={value}"
