"""asyncio: conversations side by side, and one forked in two.

python clients/python/examples/many_sessions.py [SERVER]
"""

import asyncio
import contextlib
import sys

import ixc_client

COUNTRIES = ("France", "Italy", "Japan")


async def main(server: str | None = None) -> None:
    with contextlib.ExitStack() as stack:
        if server is None:
            server = stack.enter_context(ixc_client.PrivateServer("demo")).address
        async with ixc_client.AsyncClient(server) as ixc:
            for line in await asyncio.gather(*(visit(ixc, country) for country in COUNTRIES)):
                print(line)


async def visit(ixc: ixc_client.AsyncClient, country: str) -> str:
    """Two questions about a country; the second is asked of a fork and of the original."""
    sampling = ixc_client.Sampling(temperature=0, max_output_tokens=32)
    async with ixc.session(sampling=sampling) as chat:
        capital = await chat.say(f"What is the capital of {country}?")
        fork = await chat.fork()
        food, river = await asyncio.gather(
            chat.say("What do people eat there?"), fork.say("Which river is there?")
        )
        await fork.delete()
    return f"{country}: {capital}\n  {food}\n  {river}\n"


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:2]))
