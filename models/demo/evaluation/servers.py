"""Servers of one's own, several side by side: what a machine of many cores is evaluated with.

One model of this size gains little from more than a few threads, so cores are shared out among
processes. Each is an ordinary `ixc serve`, asked like any other.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import ixc_client

# What the engines leave: front ends, media workers, and whoever asks and draws.
_SPARE_CORES = 8  # one of so many


@asynccontextmanager
async def private_servers(
    model: str, count: int, *, threads: int
) -> AsyncIterator[list[ixc_client.AsyncClient]]:
    """Clients of `count` servers, started here and gone afterwards. `threads` 0: one per core.

    Raises LaunchFailed.
    """
    servers = [ixc_client.PrivateServer(model, threads=threads) for _ in range(count)]
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_stop, servers)
        # The demo model is built by the first who asks for it.
        first = 1 if model == "demo" else 0
        for part in (servers[:first], servers[first:]):
            begun = await asyncio.gather(
                *(asyncio.to_thread(server.start) for server in part), return_exceptions=True
            )
            for outcome in begun:
                if isinstance(outcome, BaseException):
                    raise outcome
        clients = [ixc_client.AsyncClient(server.address) for server in servers]
        yield [await stack.enter_async_context(client) for client in clients]


async def _stop(servers: list[ixc_client.PrivateServer]) -> None:
    await asyncio.gather(*(asyncio.to_thread(server.stop) for server in servers))


def num_cores() -> int:
    return len(os.sched_getaffinity(0))


def threads_of_each(servers: int) -> int:
    """Of so many side by side; 0, one per core, of one alone."""
    cores = num_cores()
    return 0 if servers == 1 else max(1, (cores - cores // _SPARE_CORES) // servers)
