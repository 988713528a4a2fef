"""The engine's loop: receive, step, publish. Runs in a process of its own, or in a thread.

Nothing here knows what a step does; nothing in the core knows that there is a socket.
"""

from ixc_runtime.engine_process.channel import EngineChannel
from ixc_runtime.engine_process.core import EngineCore
from ixc_runtime.engine_process.messages import (
    Answer,
    Ask,
    Cancel,
    Frame,
    Pixels,
    PixelsFailed,
    Shutdown,
    Start,
    Submit,
    ToEngine,
)


def run_loop(core: EngineCore, channel: EngineChannel) -> None:
    """Serve until Shutdown. Raises ChannelClosed when the front end is gone."""
    is_busy = False
    while True:
        for message in channel.receive(wait=not is_busy):
            if isinstance(message, Shutdown):
                return
            _apply(message, core, channel)
        updates, is_busy = core.step()
        if updates:
            channel.send(Frame(updates, core.load))


def _apply(message: ToEngine, core: EngineCore, channel: EngineChannel) -> None:
    match message:
        case Submit():
            core.submit(message)
        case Cancel(sequence_id, reason):
            core.cancel(sequence_id, reason)
        case Pixels():
            core.supply(message)
        case PixelsFailed():
            core.pixels_failed(message)
        case Ask(question_id, question):
            violations = core.check_integrity() if question == "integrity" else []
            channel.send(Answer(question_id=question_id, load=core.load, violations=violations))
        case Start() | Shutdown():
            raise AssertionError("Start comes once, first; Shutdown never gets here")
