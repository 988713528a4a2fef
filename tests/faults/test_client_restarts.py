"""Our own client while its server is killed and started again: it asks nobody for help."""

import asyncio
import random
from pathlib import Path

import pytest

from ixc_client import AsyncClient, AsyncSession, Retries, Sampling
from tests.fakes.server_process import ServerProcess, running_process

# Longer than a server needs to come back.
PATIENT = Retries(attempts=100, first_delay=0.05, max_delay=0.3)
SAMPLING = Sampling(max_output_tokens=60, ignore_eos=True)


@pytest.mark.parametrize("num_kills", [4, pytest.param(30, marks=pytest.mark.faults)])
async def test_a_chat_outlives_its_servers(
    tmp_path: Path, tiny_model: Path, num_kills: int
) -> None:
    """What the reader hears, delta by delta, is the turn that is stored, and stored once.

    The synthetic engine answers a prompt the same way each time, as a model does at temperature 0.
    """
    rng = random.Random(11)
    pace = {"SYNTHETIC_TOKENS_PER_SECOND": "300"}
    async with (
        running_process(tmp_path, tiny_model, synthetic=True, environ=pace) as served,
        AsyncClient(served.address, retries=PATIENT) as client,
        client.session() as session,
    ):
        said: list[tuple[str, str]] = []
        for _ in range(num_kills):
            question = f"Question {len(said)}"
            killing = asyncio.create_task(kill_and_start(served, rng.uniform(0.0, 0.3)))
            said.append((question, await heard(session, question)))
            await killing
            turns = [turn async for turn in session.turns()]
            assert [(turn.user.text, turn.assistant.text) for turn in turns] == said
            if len(said) == 8:  # the context is small
                await session.rewind(0)
                said.clear()


async def heard(session: AsyncSession, question: str) -> str:
    return "".join([delta.text async for delta in session.stream(question, sampling=SAMPLING)])


async def kill_and_start(served: ServerProcess, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await served.kill()
    await served.start()
