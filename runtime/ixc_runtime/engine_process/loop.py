"""The engine's loop: receive, step, publish. Runs in a process of its own, or in a thread.

Nothing here knows what a step does; nothing in the core knows that there is a socket.
"""

import logging
from concurrent.futures import Future

from ixc_runtime.engine_process.channel import EngineChannel
from ixc_runtime.engine_process.core import EngineCore
from ixc_runtime.engine_process.messages import (
    Answer,
    Ask,
    Cancel,
    DropAdapter,
    Frame,
    Pixels,
    PixelsFailed,
    Query,
    Refusal,
    Shutdown,
    Start,
    Submit,
    TakeAdapter,
    ToEngine,
)
from ixc_runtime.engine_process.user_adapters import AdapterReader, ReadAdapter
from ixc_runtime.errors import EngineFault, RuntimeFault

_log = logging.getLogger(__name__)
# How often an idle engine looks whether an adapter has been read.
_LOOK_SECONDS = 0.02


def run_loop(core: EngineCore, channel: EngineChannel) -> None:
    """Serve until Shutdown. Raises ChannelClosed when the front end is gone."""
    reader = AdapterReader(core.model, core.adapter_room)
    try:
        _run(core, channel, reader)
    finally:
        reader.close()


def _run(core: EngineCore, channel: EngineChannel, reader: AdapterReader) -> None:
    is_busy = False
    while True:
        patience = _LOOK_SECONDS if reader.is_reading else None
        for message in channel.receive(wait=not is_busy, at_most=patience):
            if isinstance(message, Shutdown):
                return
            _apply(message, core, channel, reader)
        _answer_readings(core, channel, reader)
        updates, is_busy = core.step()
        if updates:
            channel.send(Frame(updates, core.load))


def _apply(
    message: ToEngine, core: EngineCore, channel: EngineChannel, reader: AdapterReader
) -> None:
    match message:
        case Submit():
            core.submit(message)
        case Cancel(sequence_id, reason):
            core.cancel(sequence_id, reason)
        case Pixels():
            core.supply(message)
        case PixelsFailed():
            core.pixels_failed(message)
        case Ask(question_id, TakeAdapter(source)):
            reader.begin(question_id, source)
        case Ask(question_id, DropAdapter(name)):
            core.remove_adapter(name)
            channel.send(Answer(question_id=question_id, load=core.load))
        case Ask(question_id, question):
            violations = core.check_integrity() if question is Query.INTEGRITY else []
            channel.send(Answer(question_id=question_id, load=core.load, violations=violations))
        case Start() | Shutdown():
            raise AssertionError("Start comes once, first; Shutdown never gets here")


def _answer_readings(core: EngineCore, channel: EngineChannel, reader: AdapterReader) -> None:
    """Apart from the loop, whose variables would hold on to the last adapter's tensors."""
    for question_id, read in reader.finished():
        channel.send(_taken(question_id, read, core))


def _taken(question_id: int, read: Future[ReadAdapter], core: EngineCore) -> Answer:
    # Not raised here: its traceback would lead back to `read`, and both keep what was read.
    error = read.exception()
    if error is None:
        adapter = read.result()
        try:
            core.add_adapter(adapter)
        except Exception as fault:
            refusal = _refusal(fault)
        else:
            return Answer(question_id=question_id, load=core.load, adapter=adapter.info)
    else:
        refusal = _refusal(error)
    return Answer(question_id=question_id, load=core.load, refusal=refusal)


def _refusal(error: BaseException) -> Refusal:
    if isinstance(error, RuntimeFault):
        fault = error
    else:
        _log.error("an adapter could not be read", exc_info=error)
        fault = EngineFault("the adapter could not be read; the engine's log says why")
    return Refusal(reason=fault.reason, message=fault.message, metadata=dict(fault.metadata))
