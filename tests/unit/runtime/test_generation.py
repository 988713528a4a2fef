"""One answer's life against a scripted host: cancels and deadlines before the engine is reached."""

import asyncio
from dataclasses import replace

import pytest

from ixc_runtime import (
    Accepted,
    Completed,
    FinishReason,
    GenerationRequest,
    PromptUsage,
    TextDelta,
    TokenPrompt,
)
from ixc_runtime.admission import Admission
from ixc_runtime.engine_process.messages import Cancel, Finished, Started, Submit, Token, Update
from ixc_runtime.errors import PromptEmpty, QueueTimeout
from ixc_runtime.generation import Generation
from ixc_runtime.mailbox import Mailbox
from ixc_runtime.prompt.layout import PromptLayout
from ixc_runtime.sampling.settings import NEUTRAL

REQUEST = GenerationRequest(prompt=TokenPrompt(token_ids=(5,)))


class Letters:
    """Each token is a letter."""

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([97 + token_id % 26])


class Host:
    """Admits when `release` is set, and remembers what reached the engine."""

    def __init__(self) -> None:
        self.tokenizer = Letters()
        self.release = asyncio.Event()
        self.fault: Exception | None = None
        self.mailbox: Mailbox[Update] | None = None
        self.cancelled: list[FinishReason] = []
        self.submitted = asyncio.Event()

    async def admit(self, generation_id: str, request: GenerationRequest) -> Admission:
        await self.release.wait()
        if self.fault is not None:
            raise self.fault
        return Admission(
            submit=Submit(
                sequence_id=generation_id,
                token_ids=[5],
                images=[],
                adapter="base",
                scope="",
                sampling=replace(NEUTRAL, max_output_tokens=8, seed=1),
                stop_token_ids=[],
                bad_word_ids=[],
                top_logprobs=None,
            ),
            layout=PromptLayout(token_ids=(5,), images=()),
            usage=PromptUsage(prompt_tokens=1, image_tokens=0, num_images=0),
            is_context_bound=False,
        )

    def submit(self, admission: Admission, mailbox: Mailbox[Update]) -> int:
        self.mailbox = mailbox
        self.submitted.set()
        return 0

    def withdraw(self, generation_id: str, reason: FinishReason | None) -> None:
        pass

    def send_cancel(self, message: Cancel) -> None:
        self.cancelled.append(message.reason)


async def updates_of(generation: Generation) -> list[object]:
    return [update async for update in generation]


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancel_in_any_moment_of_the_admission_is_not_lost(turns: int) -> None:
    """Between any two turns of the loop: nothing was sent, or a cancel was sent after it."""
    host = Host()
    generation = Generation(host, REQUEST)  # type: ignore[arg-type]
    running = asyncio.create_task(updates_of(generation))
    await asyncio.sleep(0)
    host.release.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    generation.cancel()
    for _ in range(8):
        await asyncio.sleep(0)
    assert bool(host.cancelled) == host.submitted.is_set()
    if host.mailbox is not None:
        host.mailbox.put(Finished(sequence_id=generation.id, reason=FinishReason.CANCELLED))
    accepted, completed = await asyncio.wait_for(running, 5)
    assert isinstance(accepted, Accepted)
    assert isinstance(completed, Completed)
    assert completed.finish_reason is FinishReason.CANCELLED


async def test_a_refusal_in_the_moment_of_a_cancel_is_a_refusal() -> None:
    """What cannot work says so, whatever the caller has decided meanwhile."""
    host = Host()
    host.fault = PromptEmpty("nothing")
    generation = Generation(host, REQUEST)  # type: ignore[arg-type]
    running = asyncio.create_task(updates_of(generation))
    await asyncio.sleep(0)
    host.release.set()
    for _ in range(3):
        await asyncio.sleep(0)
    generation.cancel()
    with pytest.raises(PromptEmpty):
        await running


async def test_the_queue_timeout_holds_while_media_are_measured() -> None:
    """A worker that is never free is a queue like any other."""
    host = Host()
    request = replace(REQUEST, queue_timeout_seconds=0.01)
    with pytest.raises(QueueTimeout, match=r"0\.01 s") as caught:
        await updates_of(Generation(host, request))  # type: ignore[arg-type]
    assert caught.value.metadata == {"timeoutSeconds": "0.01"}


async def test_the_queue_timeout_holds_in_the_engines_queue() -> None:
    """What the wait for media has used of it is gone."""
    host = Host()
    host.release.set()
    request = replace(REQUEST, queue_timeout_seconds=0.01)
    with pytest.raises(QueueTimeout):
        await updates_of(Generation(host, request))  # type: ignore[arg-type]


async def test_tokens_gather_until_the_end_cuts_it_short() -> None:
    """Fewer and larger deltas; the last words wait for nothing."""
    host = Host()
    host.release.set()
    generation = Generation(host, REQUEST)  # type: ignore[arg-type]
    stream = aiter(generation)
    assert isinstance(await anext(stream), Accepted)
    assert host.mailbox is not None
    name = generation.id
    host.mailbox.put(Started(sequence_id=name, queue_seconds=0.0, cached_tokens=0))
    host.mailbox.put(Token(name, 300), is_urgent=False)
    first = await anext(stream)
    assert isinstance(first, TextDelta)
    gathering = asyncio.create_task(generation.gather(60.0))
    for token_id in (301, 302, 303):
        host.mailbox.put(Token(name, token_id), is_urgent=False)
        await asyncio.sleep(0)
    assert not gathering.done()
    host.mailbox.put(Finished(sequence_id=name, reason=FinishReason.MAX_TOKENS))
    await asyncio.wait_for(gathering, 5)
    second = await anext(stream)
    assert isinstance(second, TextDelta)
    assert second.token_ids == (301, 302, 303)
    await asyncio.wait_for(generation.gather(60.0), 5)  # the end has been read already
    assert isinstance(await anext(stream), Completed)
