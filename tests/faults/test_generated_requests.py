"""Requests that nobody would write: each is answered or refused as documented, and soon."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message import Message

from ixc.v1.chat_service_pb2 import ChatRequest
from ixc.v1.content_pb2 import ImagePart, Part, Prompt, VideoPart
from ixc.v1.generation_service_pb2 import GenerateRequest, WatchGenerationRequest
from ixc.v1.media_service_pb2 import UploadMediaRequest
from ixc.v1.media_service_pb2_grpc import MediaServiceStub
from ixc.v1.session_service_pb2 import CreateSessionRequest
from ixc.v1.session_service_pb2_grpc import SessionServiceStub
from ixc.v1.token_service_pb2 import CountTokensRequest
from ixc_service.server import SERVICES
from tests.fakes.clips import made_clip
from tests.fakes.request_mutations import Method, RequestMaker, methods_of
from tests.fakes.running_server import generate_request, text_prompt
from tests.fakes.server_process import ServerProcess, running_process
from tests.fakes.uploading import media_name, pieces_of, sha256, spec_of, upload
from tests.faults.documented import judged

HANG_SECONDS = 5.0
AT_ONCE = 4
PICTURE = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0\x90wS\xde"
    b"\0\0\0\x0cIDATx\x9cc\xf8\xcf\xc0\0\0\x03\x01\x01\0\xc9\xfe\x92\xef\0\0\0\0IEND\xaeB`\x82"
)
CLIP = made_clip("dot.webm").read_bytes()
ROUND = 50  # requests, after which there is a new session to name
# Short answers and short waits: what is tested is the answer's kind, not its length.
FLAGS = (
    "--max-output-tokens=16",
    "--max-generation-timeout-seconds=2",
    "--max-queue-wait-seconds=2",
    "--max-resume-grace-seconds=2",
    "--default-resume-grace-seconds=1",
    "--kv-bytes=8000000",
)


def our_methods() -> list[Method]:
    pool = descriptor_pool.Default()
    services = [name for name in SERVICES if name.startswith("ixc.v1.")]
    return [each for name in services for each in methods_of(pool.FindServiceByName(name))]


@dataclass
class Walker:
    channel: grpc.aio.Channel
    rng: random.Random
    session: str = ""
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    async def round(self, methods: list[Method], count: int) -> None:
        sessions: Any = SessionServiceStub(self.channel)
        self.session = (await sessions.CreateSession(CreateSessionRequest())).session.name
        await upload(MediaServiceStub(self.channel), PICTURE)
        known = (self.session, f"{self.session}/turns/1", media_name(PICTURE), sha256(PICTURE))
        maker = RequestMaker(self.rng, known)
        calls = []
        for _ in range(count):
            method = self.rng.choice(methods)
            calls.append((method, list(map(maker.message, self.examples(method)))))
        for start in range(0, count, AT_ONCE):
            await asyncio.gather(*(self.call(*each) for each in calls[start : start + AT_ONCE]))

    def examples(self, method: Method) -> list[Message]:
        """One request that would work, to be spoilt; several where the caller streams."""
        request = method.request()
        match request:
            case UploadMediaRequest():
                data = self.rng.choice((PICTURE, CLIP, self.rng.randbytes(300)))
                size = self.rng.choice((50, 700, len(data)))
                return [spec_of(data), *islice(pieces_of(data, size), self.rng.randint(0, 40))]
            case GenerateRequest():
                return [GenerateRequest(prompt=self.prompt())]
            case ChatRequest():
                content = self.prompt().contents.contents[0]
                return [ChatRequest(session=self.session, message=content)]
            case CountTokensRequest():
                return [CountTokensRequest(prompt=self.prompt())]
            case WatchGenerationRequest():
                return [WatchGenerationRequest(name="generations/0000000000")]
        if "name" in request.DESCRIPTOR.fields_by_name:
            names = (self.session, media_name(PICTURE))
            setattr(request, "name", self.rng.choice(names))  # noqa: B010 - of several types
        return [request]

    def prompt(self) -> Prompt:
        prompt = text_prompt("Say something.")
        shown = (
            Part(image=ImagePart(media=media_name(PICTURE))),
            Part(image=ImagePart(inline_data=PICTURE)),
            Part(video=VideoPart(inline_data=CLIP, max_frames=2)),
        )
        if self.rng.random() < 0.4:
            prompt.contents.contents[0].parts.insert(0, self.rng.choice(shown))
        return prompt

    async def call(self, method: Method, messages: list[bytes]) -> None:
        """Sends bytes as they are; notes every outcome that the contract does not know."""
        try:
            async with asyncio.timeout(HANG_SECONDS):
                await self._call(method, messages)
            outcome = "OK"
        except TimeoutError:
            outcome = "hang"
            self.wrong.append(f"{method.name} took over {HANG_SECONDS} s: {messages[0]!r:.4000}")
        except grpc.aio.AioRpcError as error:
            outcome, may_be = judged(method.name, error)
            if not may_be:
                said = f"{outcome} {error.details()!r}"
                self.wrong.append(f"{method.name}: {said} to {messages[0]!r:.4000}")
        self.outcomes[outcome] += 1

    async def _call(self, method: Method, messages: list[bytes]) -> None:
        async def several() -> AsyncIterator[bytes]:
            for message in messages:
                yield message

        if method.takes_stream:
            make = self.channel.stream_stream if method.gives_stream else self.channel.stream_unary
            request: Any = several()
        else:
            make = self.channel.unary_stream if method.gives_stream else self.channel.unary_unary
            request = messages[0]
        call: Any = make(method.path)(request)
        try:
            if not method.gives_stream:
                await call
                return
            while await call.read() is not grpc.aio.EOF:
                pass
        finally:
            call.cancel()


@pytest.mark.parametrize("count", [1_500, pytest.param(10_000, marks=pytest.mark.faults)])
async def test_every_request_is_answered_or_refused_as_documented(
    tmp_path: Path, tiny_model: Path, count: int
) -> None:
    """No code outside the RPC's own list, no INTERNAL, no hang; engine and front end live on."""
    async with (
        running_process(tmp_path, tiny_model, *FLAGS) as served,
        served.channel() as channel,
    ):
        processes = (served.pid, served.engine_pid)
        walker = Walker(channel, random.Random(int(os.environ.get("FAULTS_SEED", "5"))))
        methods = our_methods()
        for _ in range(count // ROUND):
            await walker.round(methods, ROUND)
        for outcome, number in walker.outcomes.most_common():
            print(f"{number:6} {outcome}")
        told = [line for line in served.log if " rpc method=" not in line]
        assert walker.wrong == [], "\n".join([*walker.wrong, *told[-100:]])
        assert (served.pid, served.engine_pid) == processes
        await still_answers(served, channel)
        assert not [line for line in served.log if "incident" in line]


async def still_answers(served: ServerProcess, channel: grpc.aio.Channel) -> None:
    await served.ready(5.0)
    async with asyncio.timeout(HANG_SECONDS):
        call: Any = channel.unary_stream("/ixc.v1.GenerationService/Generate")(
            generate_request("Still there?").SerializeToString()
        )
        while await call.read() is not grpc.aio.EOF:
            pass
