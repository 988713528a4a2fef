"""A server's operation in the terminal: its bar, its lines, its result."""

import sys
import time

import ixc_client
from ixc_cli.figures import agreement_texts, drift_texts
from ixc_cli.outcome import CommandError, Exit
from ixc_cli.work_bar import Step, WorkBar, size_text, work_bar

# The work of hours outlives a server that is started anew; whoever watches it should, too.
PATIENCE_SECONDS = 120.0
_LOOK_AGAIN_SECONDS = 1.0

Stream = ixc_client.OperationStream[ixc_client.OperationResult]


def follow(
    ixc: ixc_client.Client,
    stream: Stream,
    title: str,
    *,
    server: str,
    limits: str = "",
    with_load: bool = False,
) -> int:
    """Watches to the end. Ctrl-C leaves the work alone and says where it can be found.

    `server` are the flags that lead to it, `limits` those that say how good the result must be.
    `with_load`: what is made is to be served; it is when this returns.
    """
    result = _watched(ixc, stream, title, server, limits)
    report(result)
    if not with_load or result is None or isinstance(result, ixc_client.LoadModelResult):
        return Exit.OK
    if not result.load_operation:
        raise CommandError(f"{result.model} is made; the server could not begin to load it")
    loading = ixc.operations.watch(result.load_operation)
    loaded = _watched(ixc, loading, f"loading {result.model}", server)
    if isinstance(loaded, ixc_client.LoadModelResult):  # its name has been printed
        print(_context(loaded), file=sys.stderr)
    return Exit.OK


def _watched(
    ixc: ixc_client.Client, stream: Stream, title: str, server: str, limits: str = ""
) -> ixc_client.OperationResult | None:
    with work_bar(title) as bar:
        watch = _Watch(ixc, stream, bar)
        try:
            return watch.to_its_end()
        except KeyboardInterrupt:
            end = CommandError("", Exit.INTERRUPTED)
        except ixc_client.QualityTooLow as error:
            if not limits:
                raise
            raise CommandError(f"{error}: {limits}") from error
        except ixc_client.ConnectionFailed as error:
            if not watch.operation:
                raise
            end = CommandError(str(error), Exit.NO_SERVER)
    if watch.operation:
        print(f"the work goes on: ixc watch {server}{watch.operation}", file=sys.stderr)
    raise end


class _Watch:
    """One operation, over connections that break."""

    def __init__(self, ixc: ixc_client.Client, stream: Stream, bar: WorkBar) -> None:
        self._ixc = ixc
        self._stream = stream
        self._bar = bar
        self._lost_at: float | None = None

    @property
    def operation(self) -> str:
        return self._stream.operation

    def to_its_end(self) -> ixc_client.OperationResult | None:
        while True:
            try:
                with self._stream:
                    for event in self._stream.events():
                        self._lost_at = None
                        _show(event, self._bar)
                return self._stream.result
            except ixc_client.IxcError as error:
                if not self._may_come_back(error):
                    raise
            time.sleep(_LOOK_AGAIN_SECONDS)
            self._stream = self._ixc.operations.watch(
                self.operation, after_sequence=self._stream.last_sequence
            )

    def _may_come_back(self, error: ixc_client.IxcError) -> bool:
        is_gone = isinstance(error, ixc_client.ConnectionFailed)
        if not self.operation or not (is_gone or error.reason == "SERVER_DRAINING"):
            return False
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
            self._bar.say("the server is gone; waiting for it to come back")
        return now - self._lost_at < PATIENCE_SECONDS


def _show(event: ixc_client.OperationEvent, bar: WorkBar) -> None:
    match event:
        case ixc_client.OperationAccepted(operation=operation, queue_position=ahead):
            if operation.name:
                waits = f", {ahead} before it" if ahead else ""
                bar.say(f"{operation.name}{waits}")
            else:
                bar.say(f"would take up to {size_text(event.required_bytes)}")
        case ixc_client.OperationProgress():
            bar.step(
                Step(
                    stage=event.stage,
                    stage_index=event.stage_index,
                    stage_count=event.stage_count,
                    fraction=event.fraction,
                    item=event.item,
                    eta=event.eta,
                )
            )
        case ixc_client.OperationLog(text=text):
            bar.say(text)
        case ixc_client.OperationRestarted(attempt=attempt, kept_files=kept):
            begins = f"takes over {kept} files" if kept else "starts over"
            bar.say(f"interrupted; attempt {attempt} {begins}")
        case ixc_client.Draining(time_left=left):
            bar.say(f"the server stops within {left:.0f} s; the work goes on when it is back")


def report(result: ixc_client.OperationResult | None) -> None:
    """The model's name on standard output, the figures beside it."""
    match result:
        case ixc_client.MergeLoraResult(published=published):
            agreement = agreement_texts(result.text, result.image)
            figures = [size_text(published.size_bytes), result.dtype, *agreement]
        case ixc_client.QuantizeResult(published=published):
            figures = [
                f"{size_text(published.size_bytes)} of {size_text(result.source_bytes)}",
                result.quantization,
                *drift_texts(result.text, result.image),
            ]
        case ixc_client.LoadModelResult():
            figures = [_context(result)]
        case None:
            return
    print(result.model)
    print(" · ".join(figures), file=sys.stderr)


def _context(result: ixc_client.LoadModelResult) -> str:
    return f"{result.info.context_limit} tokens of context"
