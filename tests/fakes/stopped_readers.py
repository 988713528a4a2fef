"""Readers that stop reading, as a process of their own: `python -m tests.fakes.stopped_readers`.

Opens STREAMS generations on the Unix socket PATH, says "reading" once each has begun, and is then
for the test to stop with SIGSTOP. Its windows are those of an ordinary client.

    python -m tests.fakes.stopped_readers PATH STREAMS TOKENS
"""

import asyncio
import sys

from ixc.v1.generation_service_pb2 import GenerateRequest
from ixc.v1.sampling_pb2 import SamplingParams
from tests.fakes.http2_reader import Http2Reader
from tests.fakes.running_server import text_prompt

_ORDINARY_WINDOW = 65_535


async def main(path: str, num_streams: int, num_tokens: int) -> None:
    begun: set[int] = set()
    loop = asyncio.get_running_loop()
    _, reader = await loop.create_unix_connection(
        lambda: Http2Reader(lambda stream, _: begun.add(stream), stream_window=_ORDINARY_WINDOW),
        path,
    )
    for number in range(num_streams):
        request = GenerateRequest(
            prompt=text_prompt(f"Reader {number}"),
            sampling=SamplingParams(max_output_tokens=num_tokens, ignore_eos=True),
        )
        reader.ask("/ixc.v1.GenerationService/Generate", request.SerializeToString())
    while len(begun) < num_streams:  # noqa: ASYNC110 - the reader is a bare protocol
        await asyncio.sleep(0.01)
    print("reading", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
