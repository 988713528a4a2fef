"""The whole engine behind its facade: a real process, real media workers, a tiny real model."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image

from ixc_runtime import (
    Accepted,
    Completed,
    Conversation,
    Engine,
    EngineConfig,
    FinishReason,
    GenerationRequest,
    GenerationUpdate,
    ImagePart,
    ImageSource,
    Message,
    OutputOptions,
    PromptProcessed,
    Role,
    SamplingParams,
    TextDelta,
    TextPart,
    TokenPrompt,
    errors,
)
from tests.fakes.tiny_checkpoint import write_tiny_checkpoint
from tests.fakes.tiny_tokenizer import write_tokenizer_model

# One engine serves all tests: starting a process and importing torch takes seconds.
pytestmark = pytest.mark.asyncio(loop_scope="module")

GREEDY = SamplingParams(temperature=0.0, max_output_tokens=12)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_checkpoint(
        tmp_path_factory.mktemp("models") / "tiny", vocab=1000, max_positions=1024
    )
    write_tokenizer_model(folder, vocab_size=1000)
    return folder


@pytest_asyncio.fixture(params=["process", "thread"], scope="module", loop_scope="module")
async def engine(request: pytest.FixtureRequest, tiny_folder: Path) -> AsyncIterator[Engine]:
    config = EngineConfig(model=str(tiny_folder), max_batch=4, queue_limit=2, threads=1)
    engine = await Engine.start(config, in_process=request.param == "thread")
    yield engine
    assert await engine.check_integrity() == []
    await engine.close()


@pytest.fixture
def picture(tmp_path: Path) -> ImageSource:
    return write_picture(tmp_path, "orange")


def write_picture(folder: Path, colour: str) -> ImageSource:
    path = folder / f"{colour}.png"
    Image.new("RGB", (80, 50), colour).save(path)
    return ImageSource(digest=sha256(path.read_bytes()).hexdigest(), path=path)


def ask(
    *parts: TextPart | ImagePart, sampling: SamplingParams = GREEDY, **options: object
) -> GenerationRequest:
    conversation = Conversation(messages=(Message(role=Role.USER, parts=parts),))
    return GenerationRequest(prompt=conversation, sampling=sampling, **options)  # type: ignore[arg-type]


@dataclass(kw_only=True)
class Heard:
    updates: list[GenerationUpdate]

    @property
    def text(self) -> str:
        return "".join(each.text for each in self.updates if isinstance(each, TextDelta))

    @property
    def ids(self) -> list[int]:
        deltas = [each for each in self.updates if isinstance(each, TextDelta)]
        return [token_id for delta in deltas for token_id in delta.token_ids]

    @property
    def completed(self) -> Completed:
        last = self.updates[-1]
        assert isinstance(last, Completed)
        return last


async def hear(engine: Engine, request: GenerationRequest) -> Heard:
    return Heard(updates=[update async for update in engine.generate(request)])


async def test_a_picture_question_is_answered_in_the_documented_order(
    engine: Engine, picture: ImageSource
) -> None:
    """Accepted, PromptProcessed, deltas, Completed; and a repeat comes from the cache."""
    request = ask(ImagePart(source=picture), TextPart(text="What is this?"))
    first = await hear(engine, request)
    again = await hear(engine, request)
    kinds = [type(update) for update in first.updates]
    usage = first.completed.usage

    assert kinds[:2] == [Accepted, PromptProcessed]
    assert set(kinds[2:-1]) == {TextDelta}
    assert usage.output_tokens == len(first.ids) <= 12
    assert usage.image_tokens == (2 * 2 + 1) * 4 + 1 + 3 * 2
    assert again.ids == first.ids
    assert again.completed.usage.cached_tokens == usage.prompt_tokens - 1


async def test_counting_costs_what_generating_reports(engine: Engine, picture: ImageSource) -> None:
    """The price told beforehand is the price."""
    request = ask(ImagePart(source=picture, hd_num=6), TextPart(text="Count me."))
    count = await engine.count(request.prompt)
    heard = await hear(engine, request)

    assert count.usage.prompt_tokens == heard.completed.usage.prompt_tokens
    assert count.usage.image_tokens == heard.completed.usage.image_tokens
    assert (count.images[0].tiles_wide, count.images[0].tiles_high) == (2, 2)


async def test_many_at_once_answer_as_they_do_alone(engine: Engine) -> None:
    """Six requests on a batch of four: each text is its own."""
    requests = [ask(TextPart(text=f"Say {n} things")) for n in range(6)]
    alone = [(await hear(engine, request)).ids for request in requests]
    together = await asyncio.gather(*(hear(engine, request) for request in requests))

    assert [heard.ids for heard in together] == alone


async def test_a_full_queue_refuses_at_once(engine: Engine) -> None:
    """Four in the batch and two waiting: the seventh gets QueueFull with the depth."""
    long = SamplingParams(temperature=0.0, max_output_tokens=300, ignore_eos=True)
    generations = [engine.generate(ask(TextPart(text="go"), sampling=long)) for _ in range(6)]
    streams = [aiter(generation) for generation in generations]
    for stream in streams:
        assert isinstance(await anext(stream), Accepted)

    with pytest.raises(errors.QueueFull, match="6 requests"):
        await hear(engine, ask(TextPart(text="one too many")))
    for stream in streams:
        await stream.aclose()  # type: ignore[attr-defined]


async def test_cancel_ends_with_completed_and_frees_the_pages(engine: Engine) -> None:
    """The stop button is a normal end: usage, reason CANCELLED, no page held."""
    long = SamplingParams(temperature=0.0, max_output_tokens=900, ignore_eos=True)
    generation = engine.generate(ask(TextPart(text="go on"), sampling=long))
    updates = []
    async for update in generation:
        updates.append(update)
        if isinstance(update, TextDelta):
            generation.cancel()

    assert isinstance(updates[-1], Completed)
    assert updates[-1].finish_reason is FinishReason.CANCELLED
    assert (await engine.fresh_load()).pages_used == 0


async def test_a_generation_timeout_ends_the_answer(engine: Engine) -> None:
    """The compute budget is the caller's; what was produced stays."""
    long = SamplingParams(temperature=0.0, max_output_tokens=1000, ignore_eos=True)
    heard = await hear(
        engine, ask(TextPart(text="go"), sampling=long, generation_timeout_seconds=0.05)
    )

    assert heard.completed.finish_reason in {FinishReason.TIMEOUT, FinishReason.CONTEXT_LIMIT}


async def test_leaving_the_stream_stops_the_work(engine: Engine) -> None:
    """A reader that goes away costs nothing after the next step."""
    long = SamplingParams(temperature=0.0, max_output_tokens=900, ignore_eos=True)
    stream = aiter(engine.generate(ask(TextPart(text="go on"), sampling=long)))
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]

    assert (await engine.fresh_load()).pages_used == 0


async def test_a_stop_sequence_ends_the_text_before_it(engine: Engine) -> None:
    """The text is cut at the match whatever the engine had produced past it."""
    free = await hear(engine, ask(TextPart(text="Hello there")))
    assert len(free.text) > 4
    stop = free.text[2:4]
    sampling = SamplingParams(temperature=0.0, max_output_tokens=12, stop_sequences=(stop,))
    stopped = await hear(engine, ask(TextPart(text="Hello there"), sampling=sampling))
    kept = await hear(
        engine,
        ask(
            TextPart(text="Hello there"),
            sampling=sampling,
            output=OutputOptions(include_stop=True),
        ),
    )
    end = free.text.index(stop)

    assert stopped.text == free.text[:end]
    assert kept.text == free.text[: end + len(stop)]
    assert stopped.completed.finish_reason is FinishReason.STOP_SEQUENCE
    assert stopped.completed.matched_stop_sequence == stop
    assert stopped.ids == free.ids[: len(stopped.ids)]


async def test_a_seeded_sample_replays_and_other_seeds_differ(engine: Engine) -> None:
    """The effective seed is reported, so an unseeded answer can be replayed too."""
    warm = SamplingParams(temperature=1.0, top_p=1.0, max_output_tokens=12)
    first = await hear(engine, ask(TextPart(text="Once upon a time"), sampling=warm))
    accepted = first.updates[0]
    assert isinstance(accepted, Accepted)
    replay = await hear(engine, ask(TextPart(text="Once upon a time"), sampling=accepted.sampling))
    other = await hear(engine, ask(TextPart(text="Once upon a time"), sampling=warm))

    assert replay.ids == first.ids
    assert other.ids != first.ids


@pytest.mark.parametrize(
    ("request_", "fault", "said"),
    [
        (ask(TextPart(text="")), errors.PromptEmpty, "neither text"),
        (ask(TextPart(text="hi"), adapter="nope"), errors.AdapterUnavailable, "'nope'"),
        (
            ask(TextPart(text="hi"), sampling=SamplingParams(top_p=7.0)),
            errors.FieldInvalid,
            "top_p is 7.0",
        ),
        (ask(TextPart(text="word " * 3000)), errors.ContextOverflow, "limit is 1024"),
        (
            GenerationRequest(prompt=TokenPrompt(token_ids=(5, 1000))),
            errors.TokenIdOutOfVocab,
            "token id 1000",
        ),
        (GenerationRequest(prompt=TokenPrompt(token_ids=())), errors.PromptEmpty, "no tokens"),
        (
            ask(TextPart(text="hi"), sampling=SamplingParams(logit_bias=((1000, 1.0),))),
            errors.FieldInvalid,
            "token id 1000 is beyond the vocabulary of 1000",
        ),
        (
            ask(TextPart(text="hi"), sampling=SamplingParams(logit_bias=((7, 0.1),) * 2049)),
            errors.FieldInvalid,
            "20.. biases, stops and spellings of bad words, allowed: 2048",
        ),
        (
            GenerationRequest(
                prompt=TokenPrompt(token_ids=(5,)), output=OutputOptions(top_logprobs=1001)
            ),
            errors.FieldInvalid,
            r"top_logprobs is 1001, allowed: \[0, 1000\]",
        ),
    ],
)
async def test_what_cannot_work_is_refused_with_the_numbers(
    engine: Engine, request_: GenerationRequest, fault: type[Exception], said: str
) -> None:
    """Before any work, naming the value and the limit."""
    with pytest.raises(fault, match=said):
        await hear(engine, request_)


async def test_bytes_that_are_no_picture_are_refused(engine: Engine, tmp_path: Path) -> None:
    """The worker says so; the engine never hears of it."""
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"not really")
    source = ImageSource(digest="00", path=path)
    with pytest.raises(errors.MediaUndecodable):
        await hear(engine, ask(ImagePart(source=source), TextPart(text="?")))


async def test_the_answer_stops_at_the_end_of_the_context(engine: Engine) -> None:
    """max_output_tokens 0 is what fits, and the reason says that the context ended it."""
    sampling = SamplingParams(temperature=0.0, max_output_tokens=0, ignore_eos=True)
    prompt = TokenPrompt(token_ids=tuple(10 + n % 200 for n in range(1000)))
    heard = await hear(engine, GenerationRequest(prompt=prompt, sampling=sampling))

    assert len(heard.ids) == 24
    assert heard.completed.finish_reason is FinishReason.CONTEXT_LIMIT


async def test_a_killed_engine_fails_its_streams_and_comes_back(tiny_folder: Path) -> None:
    """Streams end with EngineLost, the facade lives, and the next request is answered; by an engine
    with the cache that the first one chose, whatever is free by now.
    """
    engine = await Engine.start(EngineConfig(model=str(tiny_folder), threads=1))
    assert engine._supervisor.config.kv_bytes == engine.plan.kv_bytes
    states: list[bool] = []
    back = asyncio.Event()
    engine.on_change(lambda is_alive: (states.append(is_alive), is_alive and back.set()))
    long = SamplingParams(temperature=0.0, max_output_tokens=1000, ignore_eos=True)
    stream = aiter(engine.generate(ask(TextPart(text="go on"), sampling=long)))
    await anext(stream)
    assert engine.process_id is not None
    os.kill(engine.process_id, signal.SIGKILL)
    with pytest.raises(errors.EngineLost):
        while True:
            await anext(stream)
    await asyncio.wait_for(back.wait(), 60)
    heard = await hear(engine, ask(TextPart(text="still there?")))

    assert states == [False, True]
    assert heard.ids
    assert (await engine.fresh_load()).pages_total == engine.plan.num_pages
    await engine.close()


async def test_a_hung_engine_is_killed_and_replaced(tiny_folder: Path) -> None:
    """Stopped in mid-answer, it is silent: its streams get EngineLost, another one answers."""
    engine = await Engine.start(
        EngineConfig(model=str(tiny_folder), threads=1), step_timeout_seconds=0.5
    )
    states: list[bool] = []
    back = asyncio.Event()
    engine.on_change(lambda is_alive: (states.append(is_alive), is_alive and back.set()))
    long = SamplingParams(temperature=0.0, max_output_tokens=1000, ignore_eos=True)
    stream = aiter(engine.generate(ask(TextPart(text="go on"), sampling=long)))
    await anext(stream)
    hung = engine.process_id
    assert hung is not None
    os.kill(hung, signal.SIGSTOP)
    with pytest.raises(errors.EngineLost):
        while True:
            await anext(stream)
    await asyncio.wait_for(back.wait(), 60)
    heard = await hear(engine, ask(TextPart(text="still there?")))

    assert states == [False, True]
    assert engine.process_id != hung
    assert heard.ids
    await engine.close()


async def test_pixels_that_a_dead_engine_did_not_read_are_removed(
    tiny_folder: Path, picture: ImageSource
) -> None:
    """Shared memory is the machine's; a crash leaves none of it taken."""
    engine = await Engine.start(EngineConfig(model=str(tiny_folder), threads=1))
    assert engine.process_id is not None
    os.kill(engine.process_id, signal.SIGSTOP)  # asks for pixels no more, reads them no more
    folder = engine._desk._folder.path
    span = (await engine.count(ask(ImagePart(source=picture)).prompt)).images[0]
    handed_over = asyncio.Event()
    engine._desk.render(span, 56, answer=lambda _: handed_over.set())
    await asyncio.wait_for(handed_over.wait(), 30)
    assert len(list(folder.iterdir())) == 1
    back = asyncio.Event()
    engine.on_change(lambda is_alive: is_alive and back.set())
    os.kill(engine.process_id, signal.SIGKILL)
    await asyncio.wait_for(back.wait(), 60)

    assert list(folder.iterdir()) == []
    await engine.close()


async def test_an_idle_engine_is_left_alone(tiny_folder: Path) -> None:
    """With nothing to do it is silent for longer than any step may take, and lives."""
    engine = await Engine.start(
        EngineConfig(model=str(tiny_folder), threads=1), step_timeout_seconds=0.05
    )
    before = engine.process_id
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 0.3)
    assert engine.process_id == before
    await engine.close()


async def test_a_model_that_cannot_be_served_says_why(tmp_path: Path) -> None:
    """An empty folder names the missing file; the engine process is gone afterwards."""
    with pytest.raises(errors.CheckpointMissing, match=r"config\.json"):
        await Engine.start(EngineConfig(model=str(tmp_path)))


async def test_a_device_without_operations_is_refused(tiny_folder: Path) -> None:
    """No silent fallback: someone who asks for a GPU does not get a CPU."""
    with pytest.raises(errors.FieldInvalid, match=r"device is cuda: .*: (install|update|take)"):
        await Engine.start(EngineConfig(model=str(tiny_folder), device="cuda"))


async def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    """Ids that the model has no embedding for are found at start, not by the first request."""
    folder = write_tiny_checkpoint(tmp_path / "mismatched", vocab=900)
    write_tokenizer_model(folder, vocab_size=1000)
    with pytest.raises(errors.CheckpointInvalid, match="makes 1000 ids, the model knows 900"):
        await Engine.start(EngineConfig(model=str(folder)))
