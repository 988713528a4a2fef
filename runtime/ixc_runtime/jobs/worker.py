"""The process of one job.

    python -m ixc_runtime.jobs.worker FD

FD is an inherited, connected Unix socket. The work is done by the main thread; another one listens:
a Cancel is noticed at the next word of the work, and when whoever began the job is gone the process
ends at once, where it stands: what is finished stays for the next attempt.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from ixc_runtime.errors import EngineFault, JobCancelled, RuntimeFault
from ixc_runtime.jobs.messages import (
    LENGTH_BYTES,
    MAX_FRAME_BYTES,
    Begin,
    Cancel,
    Done,
    Failed,
    FromJob,
    JobEvent,
    JobResult,
    JobSpec,
    ToJob,
    encode,
)

_log = logging.getLogger(__name__)
_decoder: msgspec.msgpack.Decoder[ToJob] = msgspec.msgpack.Decoder(ToJob)
# Where memory runs out, a job is the first to go: it can be taken up, an answer cannot.
_OOM_SCORE = "800"
_ORPHANED = 3


class Teller(Protocol):
    """`tell` hands an event on; `check` raises JobCancelled once the job is to stop."""

    def tell(self, event: JobEvent) -> None: ...

    def check(self) -> None: ...


class _Wire:
    """The `Teller` of the work: says things over the socket, and hears of a cancel."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rb")
        self._cancelled = threading.Event()

    def tell(self, event: JobEvent) -> None:
        self.say(event)

    def check(self) -> None:
        if self._cancelled.is_set():
            raise JobCancelled("the job was cancelled")

    def say(self, message: FromJob) -> None:
        try:
            self._connection.sendall(encode(message))
        except OSError:
            os._exit(_ORPHANED)

    def hear(self) -> ToJob | None:
        """The next message; None once the other side is gone."""
        prefix = self._stream.read(LENGTH_BYTES)
        size = int.from_bytes(prefix, "big")
        if len(prefix) < LENGTH_BYTES or size > MAX_FRAME_BYTES:
            return None
        body = self._stream.read(size)
        return _decoder.decode(body) if len(body) == size else None

    def listen(self) -> None:
        while (message := self.hear()) is not None:
            if isinstance(message, Cancel):
                self._cancelled.set()
        os._exit(_ORPHANED)


Do = Callable[[JobSpec, Teller], JobResult]


def serve(connection: socket.socket, do: Do) -> None:
    """One job, from Begin to Done or Failed."""
    wire = _Wire(connection)
    message = wire.hear()
    if not isinstance(message, Begin):
        return
    threading.Thread(target=wire.listen, name="ixc-job-ear", daemon=True).start()
    try:
        _make_way(message.spec.niceness)
        result = do(message.spec, wire)
    except RuntimeFault as fault:
        wire.say(_failure(fault))
    except Exception:
        _log.exception("job %s met a fault of ours", message.spec.job)
        wire.say(_failure(EngineFault("a fault of ours; the job's log says more")))
    else:
        wire.say(Done(result))


def _failure(fault: RuntimeFault) -> Failed:
    return Failed(reason=fault.reason, message=fault.message, metadata=dict(fault.metadata))


def _make_way(niceness: int) -> None:
    """Whoever answers people goes first: for cores, and where memory runs out."""
    with contextlib.suppress(OSError):
        os.nice(niceness)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


def work_on_weights(spec: JobSpec, teller: Teller) -> JobResult:
    import torch  # takes a second, which a cancel need not wait for

    from ixc_runtime.jobs.work import run_job

    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    return run_job(spec, teller)


def main(do: Do = work_on_weights) -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    # Ctrl-C reaches the whole process group; whoever began the job decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(socket.socket(fileno=int(sys.argv[1])), do)


if __name__ == "__main__":
    main()
