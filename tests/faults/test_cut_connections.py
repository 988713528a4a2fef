"""Connections that break anywhere: the client's stream is the one that would have come unbroken."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from ixc_client import Answer, AsyncClient, OnDisconnect, Output, Retries, Run, Sampling
from tests.fakes.server_process import ServerProcess, running_process
from tests.fakes.tcp_proxy import TcpProxy

NUM_CUTS = pytest.mark.parametrize("num_cuts", [20, pytest.param(100, marks=pytest.mark.faults)])
PATIENT = Retries(attempts=20, first_delay=0.01, max_delay=0.2)
# An answer of 100 tokens is some 3 kB on the wire, handshake and headers included.
LONGEST_LIFE = 3000
SAMPLING = Sampling(max_output_tokens=100, ignore_eos=True)
OUTPUT = Output(token_ids=True, flush_interval=0.0)


@pytest_asyncio.fixture
async def served(tmp_path: Path, tiny_model: Path) -> AsyncIterator[ServerProcess]:
    pace = {"SYNTHETIC_TOKENS_PER_SECOND": "1000", "SYNTHETIC_STEP_SECONDS": "0.002"}
    async with running_process(tmp_path, tiny_model, synthetic=True, environ=pace) as served:
        yield served


async def streamed(client: AsyncClient, prompt: str) -> Answer:
    """The answer by deltas, not whole at the end, so that there is something to resume."""
    run = Run(on_disconnect=OnDisconnect.GRACE)
    stream = client.stream(prompt, sampling=SAMPLING, output=OUTPUT, run=run)
    return await stream.read()


@NUM_CUTS
async def test_a_cut_stream_goes_on_where_it_broke(served: ServerProcess, num_cuts: int) -> None:
    """Text and ids equal those of an unbroken stream, and each prompt ran once."""
    rng = random.Random(7)
    async with (
        TcpProxy(served.address) as proxy,
        AsyncClient(served.address) as direct,
    ):
        asked = 0
        while proxy.num_cut < num_cuts:
            prompt = f"Question {asked}"
            asked += 1
            uncut = await streamed(direct, prompt)
            proxy.cut_after(*(rng.randrange(1, LONGEST_LIFE) for _ in range(rng.randint(1, 4))))
            async with AsyncClient(proxy.address, retries=PATIENT) as client:
                answer = await streamed(client, prompt)
            assert (answer.text, answer.token_ids) == (uncut.text, uncut.token_ids)
        assert len([run async for run in direct.list_generations()]) == 2 * asked


@NUM_CUTS
async def test_a_cut_chat_keeps_each_turn_once(served: ServerProcess, num_cuts: int) -> None:
    """However often its stream breaks, a question is one turn with one answer."""
    rng = random.Random(8)
    async with (
        TcpProxy(served.address) as proxy,
        AsyncClient(served.address) as direct,
        direct.session() as session,
    ):
        said: list[tuple[str, str]] = []
        while proxy.num_cut < num_cuts:
            question = f"Question {len(said)}"
            proxy.cut_after(*(rng.randrange(1, LONGEST_LIFE) for _ in range(rng.randint(1, 4))))
            async with AsyncClient(proxy.address, retries=PATIENT) as client:
                stream = client.open_session(session.name).stream(
                    question, sampling=SAMPLING, output=OUTPUT
                )
                said.append((question, (await stream.read()).text))
            if len(said) % 8 == 0:  # the context is small
                await session.rewind(0)
                said.clear()
        turns = [turn async for turn in session.turns()]
        assert [(turn.user.text, turn.assistant.text) for turn in turns] == said


async def test_the_proxy_cuts_to_the_byte() -> None:
    """What it promises the tests above."""

    async def shout(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 1000)
        await writer.drain()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, TcpProxy(f"127.0.0.1:{port}") as proxy:
        proxy.cut_after(7)
        host, _, at = proxy.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(at))
        taken = b""
        try:
            while data := await reader.read(100):
                taken += data
        except ConnectionResetError:
            pass
        writer.close()
        assert len(taken) <= 7
        assert proxy.num_cut == 1
