"""An engine process without a model: tokens at a steady rate, over the real socket and messages.

    python -m tests.fakes.synthetic_engine FD          in place of ixc_runtime's engine process

A token is a function of the prompt and its position, so that an answer which was cut, resumed or
run anew can be compared with one that was not. SYNTHETIC_TOKENS_PER_SECOND is each sequence's
rate; all sequences step together, as in a batch, every SYNTHETIC_STEP_SECONDS.
"""

import hashlib
import os
import socket
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from ixc_runtime.config import load_config
from ixc_runtime.engine_process.channel import ChannelClosed, EngineChannel
from ixc_runtime.engine_process.messages import (
    Answer,
    Ask,
    Cancel,
    EngineConfig,
    Finished,
    Frame,
    PromptDone,
    Ready,
    Shutdown,
    Start,
    Started,
    Submit,
    ToEngine,
    Token,
    Update,
)
from ixc_runtime.engine_process.planning import batch_limit
from ixc_runtime.model_info import EngineLoad, MemoryPlan, ModelInfo
from ixc_runtime.prompt.tokenizer import load_tokenizer
from ixc_runtime.request import FinishReason
from ixc_runtime.sampling.settings import NEUTRAL

_PAGE_SIZE = 16


@dataclass(slots=True)
class _Sequence:
    request: Submit
    seed: int
    num_output: int = 0
    has_started: bool = False


class SyntheticEngine:
    """Steps every `step_seconds`; a sequence gains `rate * step_seconds` tokens in each."""

    def __init__(self, config: EngineConfig, *, rate: float, step_seconds: float) -> None:
        self._vocabulary = _plain_ids(Path(config.model))
        self._max_batch = batch_limit(config)
        self._per_step = max(1, round(rate * step_seconds))
        self._step_seconds = step_seconds
        self._sequences: dict[str, _Sequence] = {}
        self._updates: list[Update] = []

    @property
    def load(self) -> EngineLoad:
        running = min(len(self._sequences), self._max_batch)
        return EngineLoad(
            running=running,
            waiting=len(self._sequences) - running,
            pages_used=running,
            pages_total=1 << 20,
        )

    def run(self, channel: EngineChannel) -> None:
        due = time.monotonic()
        while True:
            for message in channel.receive(wait=not self._sequences):
                if isinstance(message, Shutdown):
                    return
                self._apply(message, channel)
            self._step()
            if self._updates:
                updates, self._updates = self._updates, []
                channel.send(Frame(updates, self.load))
            due = max(due + self._step_seconds, time.monotonic() - self._step_seconds)
            time.sleep(max(0.0, due - time.monotonic()))

    def _apply(self, message: ToEngine, channel: EngineChannel) -> None:
        match message:
            case Submit():
                prompt = repr(message.token_ids).encode()
                seed = int.from_bytes(hashlib.sha256(prompt).digest()[:4], "big")
                self._sequences[message.sequence_id] = _Sequence(message, seed)
            case Cancel(sequence_id, reason):
                if self._sequences.pop(sequence_id, None):
                    self._updates.append(Finished(sequence_id=sequence_id, reason=reason))
            case Ask(question_id):
                channel.send(Answer(question_id=question_id, load=self.load))

    def _step(self) -> None:
        for sequence_id, sequence in list(self._sequences.items())[: self._max_batch]:
            if not sequence.has_started:
                sequence.has_started = True
                self._updates += _beginning(sequence_id)
            room = sequence.request.sampling.max_output_tokens or 0
            for _ in range(min(self._per_step, room - sequence.num_output)):
                self._updates.append(Token(sequence_id, self._token(sequence)))
                sequence.num_output += 1
            if sequence.num_output == room:
                del self._sequences[sequence_id]
                self._updates.append(
                    Finished(sequence_id=sequence_id, reason=FinishReason.MAX_TOKENS)
                )

    def _token(self, sequence: _Sequence) -> int:
        mixed = (sequence.seed + sequence.num_output) * 2_654_435_761 >> 7
        return self._vocabulary[mixed % len(self._vocabulary)]


def _beginning(sequence_id: str) -> list[Update]:
    return [
        Started(sequence_id=sequence_id, queue_seconds=0.0, cached_tokens=0),
        PromptDone(
            sequence_id=sequence_id,
            encoded_tiles=0,
            media_seconds=0.0,
            vision_seconds=0.0,
            prefill_seconds=0.0,
        ),
    ]


def _plain_ids(folder: Path) -> list[int]:
    """Ids of whole words: as much text a token as real answers have."""
    tokenizer = load_tokenizer(folder)
    plain = [
        token_id
        for token_id in range(tokenizer.vocab_size)
        if not tokenizer.is_control(token_id)
        and len(piece := tokenizer.token_bytes(token_id)) > 2
        and piece.isascii()
        and piece.decode().strip().isalpha()
    ]
    assert plain, "a tokenizer has words"
    return plain


def _ready(config: EngineConfig) -> Ready:
    model = load_config(Path(config.model))
    context = config.max_context or model.max_position_embeddings
    info = ModelInfo(
        name=config.name or Path(config.model).name,
        display_name="Synthetic",
        description="No model behind it.",
        digest="0" * 64,
        context_limit=context,
        native_context_limit=context,
        vocab_size=model.vocab_size,
        num_layers=model.num_layers,
        adapters=("base",),
        tile_size=None,
        hd_num_single=1,
        hd_num_several=1,
        hd_num_max=1,
        max_image_tokens=0,
        stop_token_ids=(2,),
        default_sampling=replace(NEUTRAL, max_output_tokens=1024),
        system_instruction=None,
        dtype="none",
        quantization=None,
    )
    plan = MemoryPlan(
        device="cpu",
        backend="synthetic",
        weights_bytes=0,
        adapters_bytes=0,
        kv_bytes=0,
        kv_dtype="none",
        page_size=_PAGE_SIZE,
        num_pages=1 << 20,
        bytes_per_token=0,
        max_batch=batch_limit(config),
        max_step_tokens=batch_limit(config),
        tiles_per_step=1,
        queue_limit=4 * batch_limit(config) if config.queue_limit is None else config.queue_limit,
    )
    return Ready(info, plan)


def main() -> None:
    channel = EngineChannel(socket.socket(fileno=int(sys.argv[1])))
    try:
        (start,) = channel.receive(wait=True)
        assert isinstance(start, Start), "the first message is Start"
        engine = SyntheticEngine(
            start.config,
            rate=float(os.environ.get("SYNTHETIC_TOKENS_PER_SECOND", "1000")),
            step_seconds=float(os.environ.get("SYNTHETIC_STEP_SECONDS", "0.01")),
        )
        channel.send(_ready(start.config))
        engine.run(channel)
    except ChannelClosed:
        pass


if __name__ == "__main__":
    main()
