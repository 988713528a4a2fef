"""A server's operation in the terminal: its bar, its lines, its result."""

import sys

import ixc_client
from ixc_cli.figures import agreement_texts, drift_texts
from ixc_cli.outcome import CommandError, Exit
from ixc_cli.work_bar import Step, WorkBar, size_text, work_bar


def follow(
    stream: ixc_client.OperationStream[ixc_client.OperationResult], title: str, *, limits: str = ""
) -> int:
    """Watches to the end. Ctrl-C leaves the work alone and says where it can be found.

    `limits` are the flags that say how good the result must be.
    """
    try:
        with stream, work_bar(title) as bar:
            for event in stream.events():
                _show(event, bar)
    except KeyboardInterrupt:
        if stream.operation:
            print(f"the work goes on: ixc watch {stream.operation}", file=sys.stderr)
        return Exit.INTERRUPTED
    except ixc_client.QualityTooLow as error:
        if not limits:
            raise
        raise CommandError(f"{error}: {limits}") from error
    report(stream.result)
    return Exit.OK


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
        case ixc_client.LoadModelResult(info=info):
            figures = [f"{info.context_limit} tokens of context"]
        case None:
            return
    print(result.model)
    print(" · ".join(figures), file=sys.stderr)
